"""Windows of all jobs that wait for the engine, and their order."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest

from worker.adapters.parakeet.frames import LONGEST_WINDOW_SAMPLES
from worker.ports import SAMPLE_RATE_HZ, Pcm, Recognition


@dataclass(eq=False, kw_only=True, slots=True)
class Window:
    """A window of a job, the future of its answer, and what it has cost so far. ValueError above 40 s."""

    samples: Pcm
    job_id: str
    answer: asyncio.Future[Recognition]
    keyterms: tuple[str, ...] = ()
    team_id: str = ""
    engine_seconds: float = 0.0
    suspect: bool = False
    """It was running in a process that was lost."""
    deaths: int = 0
    """Processes lost while nothing but its batch was running."""

    def __post_init__(self) -> None:
        if len(self.samples) > LONGEST_WINDOW_SAMPLES:
            longest = LONGEST_WINDOW_SAMPLES // SAMPLE_RATE_HZ
            raise ValueError(f"a window of {len(self.samples)} samples is longer than {longest} s")


class WindowQueue:
    """Windows that are not running: batches that are tried again first, then the jobs in turn."""

    def __init__(self) -> None:
        self._jobs: dict[str, list[Window]] = {}
        """Each job's windows in order; the first job is the one whose turn it is."""
        self._retries: deque[list[Window]] = deque()

    def add(self, window: Window) -> None:
        """Append to the windows of the same job."""
        self._jobs.setdefault(window.job_id, []).append(window)

    def requeue(self, batches: Iterable[list[Window]]) -> None:
        """Put these batches, in order, before everything else; each stays a batch of its own."""
        self._retries.extendleft(reversed(list(batches)))

    @property
    def has_retries(self) -> bool:
        """True where the next batch is one that is tried again."""
        self._drop_cancelled()
        return bool(self._retries)

    def pop_retry(self) -> list[Window]:
        """Remove and return the first batch that is tried again; empty where there is none."""
        self._drop_cancelled()
        return self._retries.popleft() if self._retries else []

    def in_turn(self) -> list[Window]:
        """Return the windows that are tried for the first time: one of each job, then the second of each, and so on."""
        self._drop_cancelled()
        return [window for turn in zip_longest(*self._jobs.values()) for window in turn if window is not None]

    def remove(self, windows: Collection[Window]) -> None:
        """Remove windows that run from now on, and pass the turn on to the next job.

        So no job waits for more than one batch of each of the others.
        """
        for window in windows:
            self._jobs[window.job_id].remove(window)
        leader = next(iter(self._jobs))
        self._jobs[leader] = self._jobs.pop(leader)
        self._drop_cancelled()

    def __iter__(self) -> Iterator[Window]:
        return chain(*self._retries, *self._jobs.values())

    def _drop_cancelled(self) -> None:
        self._retries = deque(batch for batch in map(_wanted, self._retries) if batch)
        self._jobs = {job: windows for job, waiting in self._jobs.items() if (windows := _wanted(waiting))}


def _wanted(windows: list[Window]) -> list[Window]:
    return [window for window in windows if not window.answer.done()]
