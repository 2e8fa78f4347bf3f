"""Windows of all jobs that wait for the engine, and their order."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

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
    """Windows that are not running: batches that are tried again first, then the teams in turn.

    A team's jobs take turns for its windows. A job that names no team is a team of its own.
    """

    def __init__(self) -> None:
        self._teams: dict[str, dict[str, list[Window]]] = {}
        """Each team's jobs, and each job's windows in order; first is the team, and the job, whose turn it is."""
        self._retries: deque[list[Window]] = deque()

    def add(self, window: Window) -> None:
        """Append to the windows of the same job."""
        self._teams.setdefault(_team_of(window), {}).setdefault(window.job_id, []).append(window)

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
        """Return the windows that are tried for the first time: one of each team, then a second one, and so on."""
        self._drop_cancelled()
        return list(_alternating(list(_alternating(jobs.values())) for jobs in self._teams.values()))

    def remove(self, windows: Collection[Window]) -> None:
        """Remove windows that run from now on, and pass the turn on to the next team, and to the next job of each team.

        So no team waits for more than one batch of each of the others, and no job for more than its team's other jobs.
        """
        for team in dict.fromkeys(map(_team_of, windows)):
            jobs = self._teams[team]
            for window in windows:
                if _team_of(window) == team:
                    jobs[window.job_id].remove(window)
            _rotate(jobs)
        _rotate(self._teams)
        self._drop_cancelled()

    def __iter__(self) -> Iterator[Window]:
        return chain(*self._retries, *(windows for jobs in self._teams.values() for windows in jobs.values()))

    def _drop_cancelled(self) -> None:
        self._retries = deque(batch for batch in map(_wanted, self._retries) if batch)
        left = (
            (team, {job: windows for job, waiting in jobs.items() if (windows := _wanted(waiting))})
            for team, jobs in self._teams.items()
        )
        self._teams = {team: jobs for team, jobs in left if jobs}


def _team_of(window: Window) -> str:
    return f"team {window.team_id}" if window.team_id else f"job {window.job_id}"


def _alternating(queues: Iterable[list[Window]]) -> Iterator[Window]:
    return (window for turn in zip_longest(*queues) for window in turn if window is not None)


def _rotate(turns: dict[str, Any]) -> None:
    leader = next(iter(turns))
    turns[leader] = turns.pop(leader)


def _wanted(windows: list[Window]) -> list[Window]:
    return [window for window in windows if not window.answer.done()]
