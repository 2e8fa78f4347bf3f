"""The wiring of a worker: the only place where settings, adapters and core meet."""
