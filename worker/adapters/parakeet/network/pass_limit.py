"""The size of passes that fits into the device's memory: halved when memory runs out, doubled again after a while."""

FIRST_PATIENCE, LONGEST_PATIENCE = 64, 4096
"""Passes that must have fitted before a larger size is tried again; doubled by each try that fails, up to the longest.

64 passes are seconds on a GPU, 4,096 are minutes: a failed try costs one pass."""


class PassLimit:
    """The most blocks in a pass, between 1 and `most`; one caller at a time."""

    def __init__(self, most: int) -> None:
        self._most = self._blocks = most
        self._fitted = 0
        self._is_try = False
        self._patience = FIRST_PATIENCE

    @property
    def blocks(self) -> int:
        """The limit for the next pass."""
        return self._blocks

    def set_most(self, most: int) -> None:
        """Never exceed `most` from now on."""
        self._most = self._blocks = max(1, most)

    def fitted(self) -> None:
        """Note that a pass fitted into memory."""
        self._fitted += 1
        if self._blocks < self._most and self._fitted >= self._patience:
            self._blocks, self._fitted, self._is_try = min(self._most, 2 * self._blocks), 0, True

    def shrink(self) -> bool:
        """Halve the limit after memory ran out. Returns False where it was 1 already."""
        if self._blocks == 1:
            return False
        if self._fitted:
            self._patience = FIRST_PATIENCE
        elif self._is_try:  # the memory has not come back: wait longer before the next try
            self._patience = min(2 * self._patience, LONGEST_PATIENCE)
        self._blocks, self._fitted, self._is_try = self._blocks // 2, 0, False
        return True
