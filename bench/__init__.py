"""Measurements of the worker, outside the wheel: each is `python -m bench.NAME`, listed by `python -m bench`."""
