"""Pulls into free slots, keeps each delivery leased while its job runs, and settles it.

The only place that acknowledges. `Consumer._see_through` is the whole way of one delivery:

    lease -> handle -> diagnose the error (whose fault?) -> next step (`next_step`) -> record it -> settle

On Python 3.11 and 3.12 a task group leaves `task.cancelling()` at 1 after a child has failed. So the flags of the stop
and of the lease decide whether a cancellation was requested, not `cancelling()`.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

import structlog

from worker.core.delivery.fitness import Fitness, PartTest
from worker.core.delivery.fuse import Fuse, FuseStatus
from worker.core.delivery.handler import Attempt, DeliveryOutcome, JobHandler, Step, next_step
from worker.core.delivery.intake import Intake, UrgentFirst
from worker.core.delivery.lease import Lease, LeaseKeeper, LeaseLost
from worker.core.delivery.slots import Slot, Slots
from worker.core.tasks import bounded, caught, first_of
from worker.errors import (
    Fatal,
    QueueServiceError,
    Retryable,
    ServiceDown,
    SubscriptionNotFound,
    WorkerError,
    WorkerFault,
)
from worker.ports import Clock, Delivery, Subscription
from worker.telemetry.register import DELIVERIES
from worker.telemetry.spans import job_span

# Cloud Run kills 10 s after SIGTERM. The grace of pull and jobs runs at once, then comes one nack: below 7 s in all.
# A job may need 3.2 s for the answer to a paid request, then a checkpoint and the release of its claim.
PULL_GRACE_SECONDS = 1.0
JOBS_GRACE_SECONDS = 4.5
NACK_GRACE_SECONDS = 2.0

Chore: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerSnapshot:
    """State of the consumer, for health endpoints. `unsettled` counts all deliveries held, parked ones too."""

    jobs: int
    parked: int
    free_slots: int
    unsettled: int
    pull_failures_in_a_row: int
    pull_failure: str
    """Reason why the last pull failed; empty if it did not."""
    urgent_pull_failures_in_a_row: int = 0
    urgent_pull_failure: str = ""
    parts: tuple[PartTest, ...]
    fuse: FuseStatus
    intake_stopped_because: str
    """Empty while messages are pulled."""
    stopping: bool


class Consumer:
    """Runs `handler` on the deliveries of `subscription`: `slots` jobs at once, and `max_parked` parked deliveries.

    `ack_deadline_seconds` is the subscription's own. A job is dead-lettered at `max_attempts` counted attempts. After
    `fuse_threshold` failures in a row `fitness` tests the worker. Nothing is pulled while it is not fit, or while
    `why_idle` returns a reason. `chores` are endless background tasks; an error of one stops the consumer.
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
        fitness: Fitness,
        fuse_threshold: int,
        clock: Clock,
        rng: random.Random,
        why_idle: Callable[[], str] = lambda: "",
        chores: Mapping[str, Chore] | None = None,
    ) -> None:
        self._subscription = subscription
        self._handler = handler
        self._max_attempts = max_attempts
        self._fitness = fitness
        self._chores = chores or {}
        self._clock = clock
        self._slots = Slots(slots, max_parked)
        self._fuse = Fuse(fuse_threshold)
        self._lifetime = Lifetime(clock)
        why_not = lambda: fitness.why_unfit() or why_idle()  # noqa: E731
        self._intake = Intake(subscription, self._slots, self._fuse, why_not, clock, rng)
        self._deliveries: set[asyncio.Task[None]] = set()
        self._unsettled: dict[str, asyncio.Task[None]] = {}
        self._leases = LeaseKeeper(subscription, seconds=ack_deadline_seconds, clock=clock, on_lost=self._unsettled.pop)

    @property
    def snapshot(self) -> ConsumerSnapshot:
        """Current state, for health endpoints."""
        both = self._subscription if isinstance(self._subscription, UrgentFirst) else None
        return ConsumerSnapshot(
            jobs=self._slots.busy,
            parked=self._slots.parked,
            free_slots=self._slots.free,
            unsettled=len(self._unsettled),
            pull_failures_in_a_row=self._intake.failures_in_a_row,
            pull_failure=self._intake.failure,
            urgent_pull_failures_in_a_row=both.urgent_failures if both else 0,
            urgent_pull_failure=both.urgent_failure if both else "",
            parts=self._fitness.tests,
            fuse=self._fuse.status,
            intake_stopped_because=self._intake.stopped_because,
            stopping=self._lifetime.is_stopping,
        )

    def stop(self, reason: str) -> None:
        """Make `run` return within 7 s; a second call makes it return at once. Safe in a signal handler of the loop."""
        log.info("consumer.stopping", reason=reason, again=self._lifetime.is_stopping, unsettled=len(self._unsettled))
        self._lifetime.stop()

    async def run(self) -> None:
        """Work until `stop` is called, then nack every unsettled delivery. May be called once.

        Raises the error that ended a background task, such as `SubscriptionNotFound`. Jobs are nacked then too, and
        when `run` is cancelled.
        """
        intake = self._lifetime.own(self._intake.run(self._accept), "intake")
        background = [
            self._lifetime.own(self._leases.renew(), "lease-renewal"),
            self._lifetime.own(self._leases.watch(), "lease-watch"),
            self._lifetime.own(self._fitness.tend(), "fitness"),
            self._lifetime.own(self._fuse.tend(self._fitness, self._clock), "fuse"),
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
            # During the pull a parked delivery may have taken the slot, or the intake may have been stopped.
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
        age_seconds = max(0.0, (self._clock.now() - delivery.publish_time).total_seconds())
        log.info("delivery.received", age_seconds=age_seconds)
        began, outcome = self._clock.monotonic(), DeliveryOutcome.STOPPED
        try:
            with job_span(delivery.attributes, message_id=delivery.message_id):
                outcome = await self._see_through(delivery, slot, began)
        except asyncio.CancelledError:
            if self._lifetime.is_stopping:
                raise
            outcome = DeliveryOutcome.DEFERRED
            log.exception("delivery.cancelled", reason="cancelled although nothing stopped it")
            await self._settle(delivery, outcome)
        finally:
            slot.release()
            DELIVERIES.add(outcome=outcome.value)
            log.info("delivery.settled", outcome=outcome.value, seconds=self._clock.monotonic() - began)

    async def _see_through(self, delivery: Delivery, slot: Slot, began: float) -> DeliveryOutcome:
        """Do the job and settle its message. Raises `CancelledError` when the worker is stopping."""
        attempt = self._handler.attempt(delivery)
        with self._leases.hold(delivery) as lease:
            error = await self._handle(attempt, slot, lease, began)
            lease.is_cancellable = False
            step = next_step(error, lease_is_lost=lease.lost is not None)
            outcome = await self._follow(step, error, attempt, delivery, began)
        if outcome is not DeliveryOutcome.LOST:
            await self._settle(delivery, outcome)
        return outcome

    async def _handle(self, attempt: Attempt, slot: Slot, lease: Lease, began: float) -> Exception | None:
        """Run the handler; return its diagnosed error, or None."""
        try:
            error = await caught(attempt.handle(slot))
            if error is not None:
                error = await self._fitness.diagnose(error, since=began)
        except asyncio.CancelledError as cancelled:
            if self._lifetime.is_stopping:
                raise
            error = LeaseLost(lease.message_id, lease.lost) if lease.lost else HandlerCancelled().because_of(cancelled)
        if error is not None and self._lifetime.is_stopping:
            raise asyncio.CancelledError from error  # no verdict: the job was stopped
        return error

    async def _follow(
        self, step: Step, error: Exception | None, attempt: Attempt, delivery: Delivery, began: float
    ) -> DeliveryOutcome:
        """Carry out the step, all but settling the message; return the delivery's outcome."""
        if error is None:
            self._fuse.record_success()
            self._fitness.record_success()
            return DeliveryOutcome.ACK
        match step:
            case Step.LET_GO:
                return DeliveryOutcome.LOST
            case Step.HAND_BACK:
                log.info("delivery.deferred", reason=str(error), error=type(error).__name__)
                recorded = await caught(self._hand_back(error, attempt, delivery))
            case Step.ACK | Step.COUNT | Step.GIVE_UP:
                is_defect = not isinstance(error, WorkerError)
                given_up = step is Step.GIVE_UP
                log.warning(
                    "delivery.failed", reason=str(error), given_up=given_up, exc_info=error if is_defect else None
                )
                self._fuse.record_failure(error)
                recorded = await caught(self._record(step, error, attempt))
            case _:
                assert_never(step)
        if isinstance(recorded, DeliveryOutcome):
            return recorded
        unrecorded = await self._fitness.diagnose(recorded, since=began)
        log.error("delivery.verdict_unrecorded", reason=str(unrecorded), exc_info=recorded)
        self._note_fault(unrecorded, delivery)
        return DeliveryOutcome.DEFERRED

    async def _record(self, step: Step, error: Exception, attempt: Attempt) -> DeliveryOutcome:
        """Count the attempt; give the job up after the last one, or at once for a fault of the job."""
        attempts = await attempt.record_failure(error) if step is Step.COUNT else 1
        if step is Step.COUNT and attempts < self._max_attempts:
            return DeliveryOutcome.RETRY
        await attempt.give_up(error, attempts)
        return DeliveryOutcome.DEAD_LETTER

    async def _hand_back(self, error: Exception, attempt: Attempt, delivery: Delivery) -> DeliveryOutcome:
        """Count nothing, or a crash if the job met the same fault before."""
        if self._note_fault(error, delivery) and isinstance(error, WorkerError):
            log.warning("delivery.crashed_again", reason=str(error))
            await attempt.record_crash(error)
        return DeliveryOutcome.DEFERRED

    def _note_fault(self, error: Exception, delivery: Delivery) -> bool:
        """Stop the intake or the worker if the error's class says so; return True for a fault met again."""
        if isinstance(error, Fatal):
            self._lifetime.die(error, "handler")
        if isinstance(error, WorkerFault | ServiceDown):
            return self._fitness.report(error, delivery.message_id)
        return False

    async def _settle(self, delivery: Delivery, outcome: DeliveryOutcome) -> None:
        # From here on a shutdown does not cancel this task and does not nack the message.
        self._unsettled.pop(delivery.ack_id, None)
        match outcome:
            case DeliveryOutcome.ACK | DeliveryOutcome.DEAD_LETTER:
                await self._ack(delivery)
            case DeliveryOutcome.RETRY | DeliveryOutcome.DEFERRED:
                await self._nack([delivery.ack_id])
            case DeliveryOutcome.LOST | DeliveryOutcome.STOPPED:
                raise AssertionError("another worker's, or the wind-down's")
            case _:
                assert_never(outcome)

    async def _ack(self, delivery: Delivery) -> None:
        try:
            await self._subscription.ack(delivery.ack_id)
        except (QueueServiceError, SubscriptionNotFound) as exc:
            log.warning("delivery.ack_failed", reason=str(exc))

    async def _nack(self, ack_ids: Iterable[str]) -> None:
        try:
            await self._leases.release(ack_ids)
        except (QueueServiceError, SubscriptionNotFound) as exc:
            log.warning("delivery.nack_failed", reason=str(exc))

    async def _wind_down(self, background: Sequence[asyncio.Task[None]]) -> None:
        for task in self._unsettled.values():
            task.cancel()
        # A message nacked while a pull is in flight could come back by that same pull.
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


class HandlerCancelled(Retryable):
    """The job's own code cancelled the delivery's task: a defect, and one attempt."""

    def __init__(self) -> None:
        super().__init__("the job was cancelled although neither a stop nor a lost lease asked for it")


class Lifetime:
    """Stop signal of the consumer, and owner of its tasks: an error in a task triggers the stop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()
        self._cause_of_death: BaseException | None = None

    @property
    def is_stopping(self) -> bool:
        """True once the shutdown has begun."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Start a graceful shutdown; a second call makes it immediate."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    def die(self, error: BaseException, where: str) -> None:
        """Start the shutdown because of an error."""
        log.error("consumer.died", where=where, exc_info=error)
        self._cause_of_death = self._cause_of_death or error
        self._stopping.set()

    def own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run the work in a named task. If it fails, or is cancelled before the shutdown, the consumer stops."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    async def wait_for_stop(self) -> None:
        """Wait for the shutdown to begin; a cancelled wait starts it."""
        try:
            await self._stopping.wait()
        finally:
            self._stopping.set()

    async def grace(self, seconds: float) -> None:
        """Wait for `seconds`, or until the shutdown becomes immediate."""
        await first_of(self._clock.sleep(seconds), self._at_once.wait())

    def raise_cause_of_death(self) -> None:
        """Raise the first error that caused the shutdown, if any."""
        if self._cause_of_death is not None:
            raise self._cause_of_death

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self.is_stopping:
                self.die(RuntimeError(f"the task {task.get_name()} was cancelled although nothing stopped it"), "owner")
        elif (error := task.exception()) is not None:
            self.die(error, task.get_name())
