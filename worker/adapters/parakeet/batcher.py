"""What the engine owes: windows waiting, batches under way, and what to do with them when the process dies."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import structlog

from worker.adapters.parakeet.messages import Batch, Done
from worker.adapters.parakeet.waiting import Waiting, Window
from worker.errors import GpuMemoryError, WorkerError
from worker.ports import SAMPLE_RATE_HZ, Recognition

log = structlog.get_logger()

# One that runs and one that waits in the pipe: the process never idles for want of its parent.
BATCHES_UNDER_WAY = 2

# A window that was in a dying process twice, the last time alone, is taken for the cause.
DEATHS_TO_QUARANTINE = 2


@dataclass(eq=False, kw_only=True, slots=True)
class Flight:
    """A batch handed to the process. `since` is when the process could begin it."""

    windows: list[Window]
    since: float

    @property
    def audio_seconds(self) -> float:
        """How much audio is in it."""
        return sum(len(window.samples) for window in self.windows) / SAMPLE_RATE_HZ

    def charge(self, seconds: float) -> None:
        """Apportion engine time by audio."""
        total = self.audio_seconds * SAMPLE_RATE_HZ
        for window in self.windows:
            window.engine_seconds += seconds * len(window.samples) / total


class Batcher:
    """Forms batches while the engine is busy, answers their windows, and gives lost batches another try.

    `clock` gives monotonic seconds. `soon` runs what it is given once the windows that come together have all come: a
    chunk's first one would else go alone. All methods return at once and belong to one event loop.
    """

    def __init__(
        self,
        batch_size: int,
        clock: Callable[[], float],
        soon: Callable[[Callable[[], None]], object] = lambda pump: pump(),
    ) -> None:
        self._batch_size, self._clock, self._soon = batch_size, clock, soon
        self._waiting = Waiting()
        self._flights: deque[Flight] = deque()
        self._send: Callable[[Batch], None] | None = None

    @property
    def running(self) -> Flight | None:
        """The batch that the process works on."""
        return self._flights[0] if self._flights else None

    def add(self, window: Window) -> None:
        """Take a window on; its answer will be set, with a result or with an error."""
        self._waiting.add(window)
        self._soon(self._pump)

    def attach(self, send: Callable[[Batch], None], *, mixes_lengths: bool = False) -> None:
        """A process is there, and idle: send it batches from now on, of one bucket each unless it mixes lengths."""
        self._send, self._waiting.mixes_lengths = send, mixes_lengths
        self._pump()

    def settle(self, done: Done) -> None:
        """The running batch is done: answer its windows and send the next."""
        flight = self._flights.popleft()
        flight.charge(done.seconds)
        if self._flights:
            self._flights[0].since = self._clock()
        if done.words is None:
            _refuse(flight.windows, lambda: GpuMemoryError(1))
        else:
            for window, words in zip(flight.windows, done.words, strict=True):
                _answer(window, Recognition(words=words, engine_seconds=window.engine_seconds))
        self._pump()

    def lose(self, error: WorkerError) -> None:
        """The process is gone: line its batches up again, the running one in halves, to find the window at fault.

        A window that was alone and is not in its first lost process is given up: it gets `error`.
        """
        self._send = None
        if not self._flights:
            return
        running, *unbegun = self._flights
        self._flights.clear()
        running.charge(self._clock() - running.since)
        self._waiting.retry([*_halves(running.windows, error), *(flight.windows for flight in unbegun)])

    def refuse_all(self, error: Callable[[], WorkerError]) -> None:
        """Give up on every window, waiting or under way: each gets an error of its own."""
        self._send = None
        for windows in (*(flight.windows for flight in self._flights), self._waiting.everything()):
            _refuse(windows, error)
        self._flights.clear()

    def _pump(self) -> None:
        while self._send and len(self._flights) < BATCHES_UNDER_WAY:
            # The second place is for full batches alone: a small one does better to grow while the first runs.
            windows = self._waiting.take(self._batch_size, only_full=bool(self._flights))
            if not windows:
                return
            self._flights.append(Flight(windows=windows, since=self._clock()))
            self._send(Batch(windows=tuple(window.samples for window in windows)))


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


def _answer(window: Window, recognition: Recognition) -> None:
    if not window.answer.done():  # a cancelled one needs none
        window.answer.set_result(recognition)


def _refuse(windows: Iterable[Window], error: Callable[[], WorkerError]) -> None:
    for window in windows:
        if not window.answer.done():
            window.answer.set_exception(error())
