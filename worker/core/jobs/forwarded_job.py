"""End of a job that the subscription's policy gave up on: its dead letter and its missing events.

No worker reached a verdict, so little is known: Pub/Sub's times and count, the counters of the job's claim, and the
cost of its checkpoints. Everything else stays null; no figure is made up.
"""

from datetime import datetime

import structlog

from schemas.events import PartialMetadata
from schemas.state import ClaimRecord, StoredMessage
from worker.core.jobs import reporting
from worker.core.jobs.attempt import JobAttempt, Jobs, traced
from worker.core.jobs.job_message import original_of
from worker.core.jobs.phases import Ended, Received, Spent, Understood
from worker.core.jobs.spending import bill_of
from worker.core.jobs.tools import JobRules, JobTools
from worker.errors import DeliveriesExhausted, JobFault, JobIdConflict
from worker.ports import Delivery

log = structlog.get_logger(__name__)


async def adopt(jobs: Jobs, original: Delivery, *, deliveries: int, gave_up_at: datetime) -> None:
    """Make the message a dead letter of the worker's and publish the job's terminal events.

    Where the job had ended all the same, its events are published again. `original` is as its publisher made it,
    `deliveries` as Pub/Sub counted them (0: unknown). Doing it again publishes messages of the same ids. Raises
    `ClaimHeld` while a worker has the job, or had it less than a claim's time to live ago, and what storing and
    publishing raise: the message should be given back then.
    """
    await _ForwardedJob(original, jobs.tools, jobs.rules, deliveries, gave_up_at).adopt()


class _ForwardedJob(JobAttempt):
    def __init__(
        self, original: Delivery, tools: JobTools, rules: JobRules, deliveries: int, gave_up_at: datetime
    ) -> None:
        super().__init__(original, tools, rules)
        self._deliveries, self._gave_up_at = deliveries, gave_up_at

    async def adopt(self) -> None:
        try:
            job = await self._understand()
            if marker := await self._result(job):  # whatever became of its artefacts: it did end
                await self._tools.states.sweep(marker)
                await self._publish(marker.messages)
                return
            error: JobFault = DeliveriesExhausted(self._deliveries)
        except JobFault as exc:  # it is no job, or another job has its id
            error = exc
        try:
            await self.give_up(error, self._deliveries)
        except JobIdConflict as exc:
            await self.give_up(exc, self._deliveries)

    def _failure(
        self, error: Exception, attempts: int, record: ClaimRecord | None, spent: Spent
    ) -> tuple[Ended[Received], tuple[StoredMessage, ...]]:
        cost = bill_of(self._phase, spent, self._rules.prices)
        letter = reporting.dead_letter(
            self._subject,
            error,
            original_of(self._delivery, self._rules.subscription),
            worker=self._rules.worker,
            attempts=attempts,
            crashes=record.crashes if record else 0,
            first_seen=record.first_seen if record and record.deliveries else self._delivery.publish_time,
            now=self._gave_up_at,
        )
        ended = Ended(phase=self._phase, spent=spent, seconds=0.0, cost=cost)
        known = PartialMetadata(
            method_requested=self._phase.job.force_method if isinstance(self._phase, Understood) else None,
            method_used=self._phase.method_used(spent.chunks),
            fallback_reasons=spent.fallback_reasons,
            cost_estimate_usd=cost.usd if cost.engines else None,
            deliveries=self._deliveries or None,
        )
        return ended, traced(reporting.failure(self._subject, error, letter, known, cost, self._gave_up_at))
