"""A delivery room to test in: the real consumer, a job handler and a self-test that do what a test says."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support.clock import FakeClock
from tests.support.queues.scripted_subscription import ScriptedSubscription, make_delivery
from worker.core.delivery.consumer import Consumer
from worker.core.delivery.fitness import Fitness, Part
from worker.errors import WorkerError
from worker.ports import Clock, Delivery, JobSlot


class ScriptedHandler:
    """Jobs that last until the test ends them with `finish` or `fail`."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.recorded: list[str] = []
        self.crashes: list[tuple[str, str]] = []
        self.given_up: list[tuple[str, type[Exception], int]] = []
        self.attempts_before = 0
        self.record_error: Exception | None = None
        self.give_up_error: Exception | None = None
        self.error_on_cancel: Exception | None = None
        self.cancel_takes_seconds = 0.0
        self._ends: dict[str, asyncio.Future[Exception | None]] = {}
        self._parking: dict[str, asyncio.Event] = {}

    def attempt(self, delivery: Delivery) -> "ScriptedAttempt":
        return ScriptedAttempt(self, delivery.message_id)

    async def handle(self, name: str, slot: JobSlot) -> None:
        self.started.append(name)
        try:
            if name.startswith("parked"):
                await self._park(name, slot)
            await self._work(name)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            await self._linger()
            raise

    async def _park(self, name: str, slot: JobSlot) -> None:
        self._parking[name] = asyncio.Event()
        async with slot.parked():
            await self._parking[name].wait()
        self.started.append(f"{name} again")

    async def _work(self, name: str) -> None:
        error = await self._ends.setdefault(name, asyncio.get_running_loop().create_future())
        if error is not None:
            raise error

    async def _linger(self) -> None:
        """A job that ignores its cancellation, further ones too, for a while."""
        over = self._clock.monotonic() + self.cancel_takes_seconds
        while self._clock.monotonic() < over:
            try:
                await self._clock.sleep(over - self._clock.monotonic())
            except asyncio.CancelledError:
                continue
        if self.error_on_cancel is not None:
            raise self.error_on_cancel

    async def record_failure(self, name: str) -> int:
        if self.record_error is not None:
            raise self.record_error
        self.recorded.append(name)
        return self.attempts_before + self.recorded.count(name)

    async def record_crash(self, name: str, error: WorkerError) -> None:
        if self.record_error is not None:
            raise self.record_error
        self.crashes.append((name, str(error)))

    async def give_up(self, name: str, error: Exception, attempts: int) -> None:
        if self.give_up_error is not None:
            raise self.give_up_error
        self.given_up.append((name, type(error), attempts))

    def finish(self, name: str) -> None:
        self._ends[name].set_result(None)

    def fail(self, name: str, error: Exception) -> None:
        self._ends[name].set_result(error)

    def unpark(self, name: str) -> None:
        self._parking[name].set()


class ScriptedAttempt:
    """An attempt at the job of that name."""

    def __init__(self, handler: ScriptedHandler, name: str) -> None:
        self._handler, self._name = handler, name

    async def handle(self, slot: JobSlot) -> None:
        await self._handler.handle(self._name, slot)

    async def record_failure(self, _error: Exception) -> int:
        return await self._handler.record_failure(self._name)

    async def record_crash(self, error: WorkerError) -> None:
        await self._handler.record_crash(self._name, error)

    async def give_up(self, error: Exception, attempts: int) -> None:
        await self._handler.give_up(self._name, error, attempts)


class ScriptedSelfTest:
    """A self-test whose runs last until the test lets them pass or fail."""

    def __init__(self) -> None:
        self.runs = 0
        self._end: asyncio.Future[Exception | None] | None = None

    async def __call__(self) -> None:
        self.runs += 1
        self._end = asyncio.get_running_loop().create_future()
        error = await self._end
        if error is not None:
            raise error

    def end(self, error: Exception | None = None) -> None:
        assert self._end is not None
        self._end.set_result(error)


def fitness_of(self_test: Callable[[], Awaitable[None]], clock: Clock) -> Fitness:
    """A worker of one part, which is tested so."""
    part = Part(name="sample", resource="sample", probe=self_test, remote=False)
    return Fitness([part], clock, random.Random(1))


class Room:
    """A consumer at work among scripted neighbours."""

    def __init__(self, **settings: Any) -> None:
        defaults = {"slots": 2, "max_parked": 2, "ack_deadline_seconds": 10, "max_attempts": 3, "fuse_threshold": 3}
        self.clock = FakeClock()
        self.subscription = ScriptedSubscription()
        self.handler = ScriptedHandler(self.clock)
        self.self_test = ScriptedSelfTest()
        self.fitness = fitness_of(self.self_test, self.clock)
        self.consumer = Consumer(
            self.subscription,
            self.handler,
            fitness=self.fitness,
            clock=self.clock,
            rng=random.Random(1),
            **(defaults | settings),
        )
        self.run = asyncio.create_task(self.consumer.run(), name="consumer")

    async def deliver(self, *names: str) -> None:
        """One answer to a pull, and all that follows from it without time passing."""
        self.subscription.deliver(*(make_delivery(name) for name in names))
        await self.clock.rest()

    async def finish(self, *names: str) -> None:
        for name in names:
            self.handler.finish(name)
        await self.clock.rest()

    async def fail(self, name: str, error: Exception) -> None:
        self.handler.fail(name, error)
        await self.clock.rest()

    async def seconds_to_next_pull(self) -> float:
        """Let time pass, a twentieth of a second at a time, until the consumer pulls again."""
        pulls, before = len(self.subscription.pulls), self.clock.monotonic()
        while len(self.subscription.pulls) == pulls:
            await self.clock.advance(0.05)
        return self.clock.monotonic() - before

    async def stop(self) -> None:
        self.consumer.stop("SIGTERM")
        await self.clock.rest()


@asynccontextmanager
async def room(**settings: Any) -> AsyncIterator[Room]:
    """A consumer at work; at the end it is stopped at once, and must end in time whatever the test left hanging."""
    opened = Room(**settings)
    await opened.clock.rest()
    yield opened
    opened.consumer.stop("end of test")
    opened.consumer.stop("end of test")
    await opened.clock.advance(6)
    assert opened.run.done()
    await opened.clock.advance(60)
    if not opened.run.cancelled():
        opened.run.exception()
