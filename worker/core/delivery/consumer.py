"""Pulls into free slots, keeps each delivery leased while its job runs, and settles it.

The only place that acks, and the only one that catches everything: from here on an error is data.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, assert_never

import structlog

from worker.core.delivery.disposition import Disposition, decide, is_verdict
from worker.core.delivery.fuse import Fuse
from worker.core.delivery.handler import JobAttempt, JobHandler
from worker.core.delivery.intake import Intake, never_idle
from worker.core.delivery.lease import LeaseKeeper, LeaseLost
from worker.core.delivery.lifetime import Lifetime
from worker.core.delivery.slots import Slot, Slots
from worker.core.delivery.snapshot import ConsumerSnapshot
from worker.core.delivery.timing import backoff_seconds, bounded, first_of
from worker.errors import JobFault, QueueNotFound, QueueServiceError, WorkerError
from worker.ports import Clock, Delivery, Subscription
from worker.telemetry.register import DELIVERIES
from worker.telemetry.spans import job_span

# Cloud Run kills 10 s after SIGTERM. The grace of pull and jobs runs at once, then comes one nack: below 7 s in all.
# A job may need 3.2 s for the answer to a paid request, then a checkpoint and the release of its claim.
PULL_GRACE_SECONDS = 1.0
JOBS_GRACE_SECONDS = 4.5
NACK_GRACE_SECONDS = 2.0
# The sample through the whole worker takes seconds; on a CPU with a cold model, minutes.
SELF_TEST_SECONDS = 300.0
LONGEST_SELF_TEST_BACKOFF_SECONDS = 60.0

T = TypeVar("T")
Chore: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

log = structlog.get_logger()


class Consumer:
    """Runs `handler` on what `subscription` delivers, `slots` jobs at once and `max_parked` deliveries beside them.

    `ack_deadline_seconds` is the subscription's own. A job is dead-lettered at `max_attempts` counted verdicts.
    After `fuse_threshold` failures in a row `self_test` tells whether the worker is at fault: it returns or raises.
    Nothing is pulled while `why_idle` gives a reason. `chores`, by name, are work without an end that runs for as long
    as the consumer does; the death of one is the end of all.
    """

    def __init__(
        self,
        subscription: Subscription,
        handler: JobHandler,
        *,
        slots: int,
        max_parked: int,
        ack_deadline_seconds: int,
        max_attempts: int,
        self_test: Callable[[], Awaitable[None]],
        fuse_threshold: int,
        clock: Clock,
        rng: random.Random,
        why_idle: Callable[[], str] = never_idle,
        chores: Mapping[str, Chore] | None = None,
    ) -> None:
        self._subscription = subscription
        self._handler = handler
        self._max_attempts = max_attempts
        self._self_test = self_test
        self._chores = chores or {}
        self._clock = clock
        self._rng = rng
        self._slots = Slots(slots, max_parked)
        self._fuse = Fuse(fuse_threshold)
        self._lifetime = Lifetime(clock)
        self._intake = Intake(subscription, self._slots, self._fuse, why_idle, clock, rng)
        self._deliveries: set[asyncio.Task[None]] = set()
        self._unsettled: dict[str, asyncio.Task[None]] = {}
        self._leases = LeaseKeeper(subscription, seconds=ack_deadline_seconds, clock=clock, on_lost=self._unsettled.pop)

    @property
    def snapshot(self) -> ConsumerSnapshot:
        """The state at this moment."""
        return ConsumerSnapshot(
            jobs=self._slots.busy,
            parked=self._slots.parked,
            free_slots=self._slots.free,
            unsettled=len(self._unsettled),
            pull_failures_in_a_row=self._intake.failures_in_a_row,
            fuse=self._fuse.status,
            intake_stopped_because=self._intake.stopped_because,
            stopping=self._lifetime.is_stopping,
        )

    def stop(self, reason: str) -> None:
        """Make `run` return in less than 7 s; called again, at once. Safe in a signal handler of the event loop."""
        log.info("consumer.stopping", reason=reason, again=self._lifetime.is_stopping, unsettled=len(self._unsettled))
        self._lifetime.stop()

    async def run(self) -> None:
        """Work until `stop` is called; everything unsettled is then nacked.

        Raises what ended one of its background tasks, `QueueNotFound` above all; the jobs are then stopped and
        nacked likewise, as they are when `run` is cancelled. To be run once.
        """
        intake = self._lifetime.own(self._intake.run(self._accept), "intake")
        background = [
            self._lifetime.own(self._leases.renew(), "lease-renewal"),
            self._lifetime.own(self._leases.watch(), "lease-watch"),
            self._lifetime.own(self._tend_fuse(), "fuse"),
            *(self._lifetime.own(chore(), name) for name, chore in self._chores.items()),
        ]
        try:
            await self._lifetime.wait_for_stop()
        finally:
            intake.cancel()
            await self._wind_down(background)
        self._lifetime.raise_cause_of_death()

    def _accept(self, deliveries: Sequence[Delivery]) -> None:
        surplus = []
        for delivery in deliveries:
            # While the pull was under way a parked delivery may have come back, or the intake have been stopped.
            if self._slots.free and not self._intake.stopped_because:
                self._start(delivery)
            else:
                surplus.append(delivery.ack_id)
        if surplus:
            log.info("delivery.surplus", count=len(surplus))
            self._run(self._nack(surplus), "surplus")

    def _start(self, delivery: Delivery) -> None:
        work = self._deliver(delivery, self._slots.take())
        self._unsettled[delivery.ack_id] = self._run(work, f"delivery-{delivery.message_id}")

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._lifetime.own(work, name)
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)
        return task

    async def _deliver(self, delivery: Delivery, slot: Slot) -> None:
        structlog.contextvars.bind_contextvars(message_id=delivery.message_id, attempt=delivery.delivery_attempt)
        log.info("delivery.received", age_seconds=(self._clock.now() - delivery.publish_time).total_seconds())
        started_at = self._clock.monotonic()
        try:
            with job_span(delivery.attributes, message_id=delivery.message_id):
                outcome = await self._work_and_settle(delivery, slot)
        finally:
            slot.release()
        DELIVERIES.add(outcome=outcome)
        log.info("delivery.settled", outcome=outcome, seconds=self._clock.monotonic() - started_at)

    async def _work_and_settle(self, delivery: Delivery, slot: Slot) -> str:
        try:
            with self._leases.hold(delivery):
                disposition = await self._work(delivery, slot)
        except LeaseLost:
            return "lost"
        await self._settle(delivery, disposition)
        return disposition.value

    async def _work(self, delivery: Delivery, slot: Slot) -> Disposition:
        attempt = self._handler.attempt(delivery)
        error = await caught(attempt.handle(slot))
        if error is None:
            self._fuse.record_success()
            return Disposition.ACK
        self._check(error)
        if not is_verdict(error):
            log.info("delivery.deferred", reason=str(error))
            return Disposition.RETRY
        is_unexpected = not isinstance(error, WorkerError)
        log.warning("delivery.failed", reason=str(error), exc_info=error if is_unexpected else None)
        self._fuse.record_failure(error)
        return await self._judge(attempt, error)

    async def _judge(self, attempt: JobAttempt, error: Exception) -> Disposition:
        disposition = await caught(self._record_verdict(attempt, error))
        if isinstance(disposition, Exception):
            self._check(disposition)
            log.error("delivery.verdict_unrecorded", reason=str(disposition), exc_info=disposition)
            return Disposition.RETRY
        return disposition

    async def _record_verdict(self, attempt: JobAttempt, error: Exception) -> Disposition:
        is_counted = not isinstance(error, JobFault)
        attempts = await attempt.record_failure() if is_counted else 1
        disposition = decide(error, attempts, self._max_attempts)
        if disposition is Disposition.DEAD_LETTER:
            await attempt.give_up(error, attempts)
        return disposition

    def _check(self, error: Exception) -> None:
        """An error of a job that was told to stop is no verdict; a missing topic is the worker's own end."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error
        if isinstance(error, QueueNotFound):
            self._lifetime.die(error, "handler")

    async def _settle(self, delivery: Delivery, disposition: Disposition) -> None:
        # From here on a shutdown neither cancels this task nor nacks the message.
        self._unsettled.pop(delivery.ack_id, None)
        match disposition:
            case Disposition.ACK | Disposition.DEAD_LETTER:
                await self._ack(delivery)
            case Disposition.RETRY:
                await self._nack([delivery.ack_id])
            case _:
                assert_never(disposition)

    async def _ack(self, delivery: Delivery) -> None:
        try:
            await self._subscription.ack(delivery.ack_id)
        except QueueServiceError as exc:
            log.warning("delivery.ack_failed", reason=str(exc))

    async def _nack(self, ack_ids: Iterable[str]) -> None:
        try:
            await self._leases.release(ack_ids)
        except QueueServiceError as exc:
            log.warning("delivery.nack_failed", reason=str(exc))

    async def _tend_fuse(self) -> None:
        failures = 0
        while True:
            await self._fuse.wait_blown()
            error = await caught(bounded(self._self_test(), SELF_TEST_SECONDS, self._clock))
            if error is None:
                self._fuse.self_test_passed()
                failures = 0
                continue
            self._fuse.self_test_failed(error)
            failures += 1
            await self._clock.sleep(
                backoff_seconds(failures, base=1.0, most=LONGEST_SELF_TEST_BACKOFF_SECONDS, rng=self._rng)
            )

    async def _wind_down(self, background: Sequence[asyncio.Task[None]]) -> None:
        for task in self._unsettled.values():
            task.cancel()
        # A message nacked while a pull of ours is under way could come back by that very pull.
        pulled, _ = await asyncio.gather(self._last_pull(), self._end_of_jobs())
        for task in background:
            task.cancel()
        await self._nack_in_time([*pulled, *self._unsettled])
        log.info("consumer.stopped", left_behind=len(self._deliveries))

    async def _last_pull(self) -> Sequence[str]:
        deliveries = await self._intake.finish(lambda: self._lifetime.grace(PULL_GRACE_SECONDS))
        return [delivery.ack_id for delivery in deliveries]

    async def _end_of_jobs(self) -> None:
        if self._deliveries:
            await first_of(asyncio.wait(list(self._deliveries)), self._lifetime.grace(JOBS_GRACE_SECONDS))

    async def _nack_in_time(self, ack_ids: Sequence[str]) -> None:
        if not ack_ids:
            return
        error = await caught(bounded(self._leases.release(ack_ids), NACK_GRACE_SECONDS, self._clock))
        log.info("delivery.nacked", count=len(ack_ids), error=error and str(error))


async def caught(work: Awaitable[T]) -> T | Exception:
    """What the work returned or raised: the one broad except of the worker. Cancellation passes."""
    try:
        return await work
    except Exception as exc:  # noqa: BLE001
        return exc
