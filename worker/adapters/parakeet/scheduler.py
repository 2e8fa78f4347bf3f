"""What the engine owes: windows waiting, batches under way, and what to do with them when the process dies."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import structlog

from worker.adapters.parakeet.protocol import Batch, Done
from worker.adapters.parakeet.queue import Waiting, Window
from worker.errors import EngineError, GpuMemoryError, WorkerError
from worker.ports import SAMPLE_RATE_HZ, Recognition

log = structlog.get_logger()

# One that runs and one that waits in the pipe: the process never idles for want of its parent.
LEAST_UNDER_WAY = 2

# A window that was in a dying process twice, the last time alone, is taken for the cause.
DEATHS_TO_QUARANTINE = 2


@dataclass(eq=False, kw_only=True, slots=True)
class Flight:
    """A batch handed to the process. `since` is when the process could begin it."""

    windows: list[Window]
    since: float

    @property
    def samples(self) -> int:
        """How much audio is in it."""
        return sum(len(window.samples) for window in self.windows)

    def charge(self, seconds: float) -> None:
        """Apportion engine time by audio."""
        total = self.samples
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
        self._most_under_way, self._mixes_lengths = LEAST_UNDER_WAY, False

    @property
    def running(self) -> Flight | None:
        """The batch that the process answers next."""
        return self._flights[0] if self._flights else None

    @property
    def audio_seconds(self) -> float:
        """How much audio is under way."""
        return sum(flight.samples for flight in self._flights) / SAMPLE_RATE_HZ

    def add(self, window: Window) -> None:
        """Take a window on; its answer will be set, with a result or with an error."""
        self._waiting.add(window)
        self._soon(self._pump)

    def attach(
        self, send: Callable[[Batch], None], *, mixes_lengths: bool = False, batches_under_way: int = LEAST_UNDER_WAY
    ) -> None:
        """A process is there, and idle: send it batches from now on, of one bucket each unless it mixes lengths.

        It has so many `batches_under_way` at most.
        """
        self._send, self._most_under_way = send, max(LEAST_UNDER_WAY, batches_under_way)
        self._mixes_lengths = self._waiting.mixes_lengths = mixes_lengths
        self._pump()

    def settle(self, done: Done) -> None:
        """The oldest batch is done: answer its windows and send the next."""
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
        """The process is gone: line its batches up again, to be sent one by one, since any of them may be at fault.

        A batch that was under way by itself comes again in halves, to find the window at fault. One that was alone and
        is not in its first lost process is given up: it gets `error`.
        """
        self._send = None
        if not self._flights:
            return
        self._flights[0].charge(self._clock() - self._flights[0].since)
        batches = [flight.windows for flight in self._flights]
        self._flights.clear()
        for window in chain(*batches):
            window.suspect = True
        self._waiting.retry(_halves(batches[0], error) if len(batches) == 1 else batches)

    def refuse_all(self, error: Callable[[], WorkerError]) -> None:
        """Give up on every window, waiting or under way: each gets an error of its own."""
        self._send = None
        for windows in (*(flight.windows for flight in self._flights), self._waiting.everything()):
            _refuse(windows, error)
        self._flights.clear()

    def _pump(self) -> None:
        while self._send and len(self._flights) < self._room():
            # A small batch does better to grow while the process is busy, unless it costs no more in two.
            only_full = not self._mixes_lengths and len(self._flights) >= LEAST_UNDER_WAY
            windows = self._waiting.take(self._batch_size, only_full=only_full)
            if not windows:
                return
            self._flights.append(Flight(windows=windows, since=self._clock()))
            self._send(Batch(windows=tuple(window.samples for window in windows)))

    def _room(self) -> int:
        suspects = self._waiting.has_retries or any(flight.windows[0].suspect for flight in self._flights)
        return 1 if suspects else self._most_under_way


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
            refusal = error()
            if isinstance(refusal, EngineError):
                refusal.engine_seconds = window.engine_seconds
            window.answer.set_exception(refusal)
