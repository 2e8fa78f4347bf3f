"""The only wiring: Settings to adapters to core."""
