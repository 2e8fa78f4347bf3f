"""Deadlines that can be moved and cancelled, kept in memory proportional to the live ones."""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_COMPACT_ABOVE = 64


class Timers(Generic[K]):
    """One deadline a key, in seconds of a monotonic clock. Nothing fires by itself: the owner asks what is due."""

    def __init__(self) -> None:
        self._due: dict[K, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0

    def set(self, key: K, due: float) -> None:
        """Start the key's deadline, or move it."""
        self._count += 1
        self._due[key] = (due, self._count)
        heapq.heappush(self._heap, (due, self._count, key))
        if len(self._heap) > 2 * len(self._due) + _COMPACT_ABOVE:
            self._heap = [(due, count, key) for key, (due, count) in self._due.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: K) -> None:
        """Forget the key's deadline, if it has one."""
        self._due.pop(key, None)

    def next_due(self) -> float | None:
        """Return the earliest deadline."""
        while self._heap and self._is_stale(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[K]:
        """Remove and return the keys whose deadline has come, earliest first."""
        keys = []
        while (due := self.next_due()) is not None and due <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            keys.append(key)
        return keys

    def _is_stale(self, item: tuple[float, int, K]) -> bool:
        due, count, key = item
        return self._due.get(key) != (due, count)
