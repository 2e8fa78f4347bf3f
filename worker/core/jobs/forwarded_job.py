"""The end of a job that the subscription's policy gave up on: its dead letter and the events it still owes.

No worker came to a verdict, so little is known: the times and the count of Pub/Sub, what the job's claim counted and
what its checkpoints cost. Everything else stays null; no figure is made up.
"""

from datetime import datetime

import structlog

from schemas.events import PartialMetadata
from schemas.state import StoredMessage
from worker.core.costs.bill import Cost, bill
from worker.core.jobs import reporting
from worker.core.jobs.handler import JobAttempt, JobRules, Jobs, JobTools, traced
from worker.core.jobs.job_message import original_of
from worker.core.jobs.spending import spent_before
from worker.core.jobs.state import Claim
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
            await self._bury(error)
        except JobIdConflict as exc:
            await self._bury(exc)

    async def _bury(self, error: JobFault) -> None:
        """Store the failure where the message is a job, then publish dead letter, failed and cost events."""
        if (job := self._job_of(error)) is None:
            messages = self._messages(error, claim=None)
        else:
            async with self._claim(job, deliveries=0) as claim:
                await spent_before(claim, self._account)
                messages = self._messages(error, claim)
                await claim.conclude(self._marker(job, messages, error))
        await self._publish(messages)
        job_id, code = self._subject.echo.job_id, reporting.code_of(error)
        self._tools.board.failed(job_id, self._account, code, self._tools.clock.now())

    def _messages(self, error: JobFault, claim: Claim | None) -> tuple[StoredMessage, ...]:
        account = self._account
        cost = bill(account.chunks, account.audio_seconds or 0.0, self._rules.prices, account.waste)
        account.cost = cost
        was_claimed = claim is not None and claim.record.deliveries > 0
        letter = reporting.dead_letter(
            self._subject,
            self._account,
            error,
            original_of(self._delivery, self._rules.subscription),
            attempts=self._deliveries,
            crashes=claim.record.crashes if claim else 0,
            first_seen=claim.record.first_seen if claim and was_claimed else self._delivery.publish_time,
            now=self._gave_up_at,
        )
        return traced(reporting.failed(self._subject, error, letter, self._known(cost), cost, self._gave_up_at))

    def _known(self, cost: Cost) -> PartialMetadata:
        return PartialMetadata(
            method_requested=self._account.method_requested,
            method_used=self._account.method_used,
            fallback_reasons=self._account.fallback_reasons,
            cost_estimate_usd=cost.usd if cost.engines else None,
            deliveries=self._deliveries or None,
        )
