"""Parakeet measured: our inference against NeMo's own on the same weights, and what the device could do at most."""
