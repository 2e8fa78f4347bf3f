"""The state of the engine's work: windows that wait, batches that run, and what follows when the process dies.

    add -> waiting -> schedule -> running -> postprocess -> the answers are set
                         ^                      |
                         +------- requeue <-----+ the process died

No method does I/O or blocks: `schedule` returns the batches that are now to be sent.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import structlog

from worker.adapters.parakeet.frames import LONGEST_WINDOW_SAMPLES, PassPlan
from worker.adapters.parakeet.protocol import Batch, Done
from worker.errors import EngineError, GpuMemoryError, WorkerError
from worker.ports import SAMPLE_RATE_HZ, Pcm, Recognition

log = structlog.get_logger()

LEAST_IN_FLIGHT = 2
"""Batches: one that runs, and one in the pipe so that the process is not idle until its parent has answered."""

DEATHS_TO_QUARANTINE = 2
"""A window that was running in two processes that died, the last time alone, is taken for the cause."""


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
        return self._retries.popleft() if self.has_retries else []

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


@dataclass(eq=False, kw_only=True, slots=True)
class RunningBatch:
    """A batch that the process has, and the time from which it could begin it."""

    windows: list[Window]
    since: float

    @property
    def samples(self) -> int:
        """The number of samples in all windows."""
        return sum(len(window.samples) for window in self.windows)

    def charge(self, seconds: float) -> None:
        """Divide engine time among the windows by their length."""
        total = self.samples
        for window in self.windows:
            window.engine_seconds += seconds * len(window.samples) / total


class Scheduler:
    """Packs waiting windows into batches, answers them, and runs lost batches again. Belongs to one event loop.

    `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting = WindowQueue()
        self._running: deque[RunningBatch] = deque()
        self._plan: PassPlan | None = None
        self._most_in_flight = LEAST_IN_FLIGHT

    @property
    def oldest(self) -> RunningBatch | None:
        """The batch that the process answers next."""
        return self._running[0] if self._running else None

    @property
    def running_audio_seconds(self) -> float:
        """The length of all windows that the process has."""
        return sum(batch.samples for batch in self._running) / SAMPLE_RATE_HZ

    def add(self, window: Window) -> None:
        """Queue a window; its answer will be set, to a result or to an error."""
        self._waiting.add(window)

    def attach(self, plan: PassPlan, batches_in_flight: int) -> None:
        """Schedule for a new, idle process: batches within the plan, and at most the given number in flight."""
        self._plan, self._most_in_flight = plan, max(LEAST_IN_FLIGHT, batches_in_flight)

    def schedule(self) -> list[Batch]:
        """Move waiting windows into running batches, and return those batches: they are to be sent in this order.

        There are none without a process or while enough batches are in flight. Repeated batches run one at a time, so
        that the next death identifies the one at fault.
        """
        batches: list[Batch] = []
        while self._plan and len(self._running) < self._room() and (windows := self._next_windows(self._plan)):
            self._running.append(RunningBatch(windows=windows, since=self._clock()))
            samples = tuple(window.samples for window in windows)
            keyterms = tuple(window.keyterms for window in windows) if any(one.keyterms for one in windows) else ()
            is_last = next(iter(self._waiting), None) is None
            batches.append(Batch(windows=samples, is_last=is_last, keyterms=keyterms))
        return batches

    def postprocess(self, done: Done) -> None:
        """Answer the windows of the oldest batch."""
        batch = self._running.popleft()
        batch.charge(done.seconds)
        if self._running:
            self._running[0].since = self._clock()
        if done.words is None:
            _refuse(batch.windows, lambda: GpuMemoryError(1))
            return
        for window, words in zip(batch.windows, done.words, strict=True):
            if not window.answer.done():  # else its job was cancelled
                window.answer.set_result(Recognition(words=words, engine_seconds=window.engine_seconds))

    def requeue(self, error: WorkerError) -> None:
        """Requeue the batches of a lost process, to run one at a time, since any of them may be at fault.

        A batch that was running alone is halved, to find the window at fault. A window that was running alone, and not
        in its first lost process, is refused with `error`.
        """
        self._plan = None
        if not self._running:
            return
        self._running[0].charge(self._clock() - self._running[0].since)
        batches = [batch.windows for batch in self._running]
        self._running.clear()
        for window in chain(*batches):
            window.suspect = True
        self._waiting.requeue(_halves(batches[0], error) if len(batches) == 1 else batches)

    def refuse_all(self, error: Callable[[], WorkerError]) -> None:
        """Refuse every window, waiting or running, each with an error of its own."""
        self._plan = None
        _refuse(chain(*(batch.windows for batch in self._running), self._waiting), error)
        self._running.clear()

    def _room(self) -> int:
        suspects = self._waiting.has_retries or any(batch.windows[0].suspect for batch in self._running)
        return 1 if suspects else self._most_in_flight

    def _next_windows(self, plan: PassPlan) -> list[Window]:
        if lost := self._waiting.pop_retry():
            return self._retried(lost, plan)
        windows = self._waiting.in_turn()
        # Where a pass costs its size, a part-filled one had better grow while the process is busy.
        only_full = bool(plan.sizes) and len(self._running) >= LEAST_IN_FLIGHT
        taken = [windows[position] for position in plan.next_pass(_frames(windows, plan), only_full=only_full)]
        if taken:
            self._waiting.remove(taken)
        return taken

    def _retried(self, lost: list[Window], plan: PassPlan) -> list[Window]:
        """Return as many of a lost batch as the new process takes in a pass: it may have less memory than the last."""
        taken = [lost[position] for position in plan.fill(_frames(lost, plan), plan.capacity)]
        if len(taken) < len(lost):
            self._waiting.requeue([[window for window in lost if window not in taken]])
        return taken


def _frames(windows: Iterable[Window], plan: PassPlan) -> list[int]:
    return [plan.frames_of(len(window.samples)) for window in windows]


def _halves(windows: list[Window], error: WorkerError) -> Iterator[list[Window]]:
    for window in windows:
        window.deaths += 1
    if len(windows) > 1:
        middle = len(windows) // 2
        yield windows[:middle]
        yield windows[middle:]
    elif windows[0].deaths < DEATHS_TO_QUARANTINE:
        yield windows
    else:
        log.error("engine.window_quarantined", job_id=windows[0].job_id, reason=str(error))
        _refuse(windows, lambda: error)


def _refuse(windows: Iterable[Window], error: Callable[[], WorkerError]) -> None:
    for window in windows:
        if not window.answer.done():
            refusal = error()
            if isinstance(refusal, EngineError):
                refusal.engine_seconds = window.engine_seconds
            window.answer.set_exception(refusal)
