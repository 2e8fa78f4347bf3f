"""How many windows of a length go through the encoder at once: as many as the device's memory holds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
import torch

log = structlog.get_logger()

_Result = TypeVar("_Result")

# Batches that must have fitted before more rows are tried again; doubled by each try that fails, up to the longest.
# 64 batches are seconds on a GPU, 4,096 are minutes: a failed try costs one encoder pass.
FIRST_PATIENCE, LONGEST_PATIENCE = 64, 4096

# Of what is free when the model is loaded; the rest is for what the allocator cannot use of its blocks.
_USABLE = 0.9


def rows_within(free_bytes: float, row_bytes: int, most: int) -> int:
    """`most`, halved until that many rows fit; at least 1. A row is measured by itself, so fixed costs count each."""
    rows = most
    while rows > 1 and rows * row_bytes > free_bytes * _USABLE:
        rows //= 2
    return rows


@dataclass(kw_only=True, slots=True)
class _Length:
    most: int
    """What the measured model allows."""
    rows: int
    fitted: int = 0
    """Batches in a row that ran with `rows`."""
    grown: bool = False
    """`rows` is a try: there were fewer before."""
    patience: int = FIRST_PATIENCE


class RowsThatFit:
    """For each length of window its number of rows: halved when memory runs out, doubled again after a while.

    `most` is what is wanted of every length. Knows nothing of the device but the `torch.OutOfMemoryError` that work
    raises; one caller at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lengths: dict[int, _Length] = {}

    def of(self, samples: int) -> int:
        """The rows of the moment for windows of that many samples."""
        return self._length(samples).rows

    def limit(self, samples: int, rows: int) -> None:
        """From now on at most so many rows for windows of that many samples."""
        self._lengths[samples] = _Length(most=rows, rows=rows)
        if rows < self._most:
            log.info("engine.rows_limited", samples=samples, rows=rows, wanted=self._most)

    def run(self, samples: int, work: Callable[[int], _Result]) -> _Result:
        """`work(rows)` with as many rows as fit. Raises `torch.OutOfMemoryError` when not even one does."""
        length = self._length(samples)
        _grow(length)
        while True:
            try:
                result = work(length.rows)
            except torch.OutOfMemoryError:
                if length.rows == 1:
                    raise
            else:
                length.fitted += 1
                return result
            # Only here, past the handler, is the traceback gone that kept the tensors of the failed try alive.
            torch.cuda.empty_cache()
            _shrink(length)
            log.warning("engine.rows_halved", samples=samples, rows=length.rows)

    def _length(self, samples: int) -> _Length:
        return self._lengths.setdefault(samples, _Length(most=self._most, rows=self._most))


def _shrink(length: _Length) -> None:
    if length.fitted:
        length.patience = FIRST_PATIENCE
    elif length.grown:  # the memory has not come back: wait longer before the next try
        length.patience = min(2 * length.patience, LONGEST_PATIENCE)
    length.rows, length.fitted, length.grown = length.rows // 2, 0, False


def _grow(length: _Length) -> None:
    if length.rows < length.most and length.fitted >= length.patience:
        length.rows, length.fitted, length.grown = min(length.most, 2 * length.rows), 0, True
