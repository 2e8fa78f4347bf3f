"""Windows of all jobs that wait for the engine, and which of them go next."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from worker.adapters.parakeet.buckets import bucket_of
from worker.ports import Pcm, Recognition


@dataclass(eq=False, kw_only=True, slots=True)
class Window:
    """A window, whom it belongs to, where its answer goes, and what it has cost so far."""

    samples: Pcm
    job_id: str
    answer: asyncio.Future[Recognition]
    bucket: int = field(init=False)
    engine_seconds: float = 0.0
    suspect: bool = False
    """It was under way in a process that was lost."""
    deaths: int = 0
    """Processes lost while nothing but its batch was under way."""

    def __post_init__(self) -> None:
        self.bucket = bucket_of(len(self.samples))


class Waiting:
    """Windows not yet handed over: retries first, then the jobs in turn."""

    def __init__(self) -> None:
        self._jobs: dict[str, list[Window]] = {}
        self._retries: deque[list[Window]] = deque()
        self.mixes_lengths = False
        """All buckets count as one."""

    def add(self, window: Window) -> None:
        """Line up behind the same job's earlier windows."""
        self._jobs.setdefault(window.job_id, []).append(window)

    def retry(self, groups: Iterable[list[Window]]) -> None:
        """Put these batches, in order, before everything else; each stays a batch of its own."""
        self._retries.extendleft(reversed(list(groups)))

    def take(self, size: int, *, only_full: bool) -> list[Window]:
        """The next batch of at most `size` windows of one bucket; empty when there is none.

        The job whose turn it is chooses among its buckets the one that fills most, the oldest window's of equals; then
        all jobs fill the batch in turn: no job waits for more than one batch of each of the others. `only_full`:
        a smaller batch stays where it is.
        """
        self._drop_cancelled()
        if self._retries:
            return self._retries.popleft()
        if not self._jobs:
            return []
        leader, windows = next(iter(self._jobs.items()))
        batch = max((self._in_turn(bucket)[:size] for bucket in dict.fromkeys(map(self._bucket, windows))), key=len)
        if only_full and len(batch) < size:
            return []
        self._remove(batch)
        self._jobs[leader] = self._jobs.pop(leader)  # now it is the last in turn
        self._drop_cancelled()
        return batch

    @property
    def has_retries(self) -> bool:
        """The next batch is one that comes again."""
        return bool(self._retries)

    def everything(self) -> Iterator[Window]:
        """Every waiting window."""
        return chain(*self._retries, *self._jobs.values())

    def _in_turn(self, bucket: int) -> list[Window]:
        fitting = ([window for window in windows if self._bucket(window) == bucket] for windows in self._jobs.values())
        return [window for turn in zip_longest(*fitting) for window in turn if window is not None]

    def _bucket(self, window: Window) -> int:
        return 0 if self.mixes_lengths else window.bucket

    def _remove(self, batch: list[Window]) -> None:
        for window in batch:
            self._jobs[window.job_id].remove(window)

    def _drop_cancelled(self) -> None:
        self._retries = deque(group for group in map(_wanted, self._retries) if group)
        self._jobs = {job: windows for job, queue in self._jobs.items() if (windows := _wanted(queue))}


def _wanted(windows: list[Window]) -> list[Window]:
    return [window for window in windows if not window.answer.done()]
