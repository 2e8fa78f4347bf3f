"""The way of one job, top to bottom: from a delivered message to durable artefacts and published events.

    understand the message -> concluded before? say it again
    claim (or park while another worker has it) -> locate and download the audio -> route -> transcribe, chunk by chunk
    still ours? -> artefacts -> result marker -> publish

A `JobAttempt` lives as long as one delivery is worked on. It knows neither acks nor leases.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog

from schemas.codes import Method
from schemas.dead_letter import OriginalMessage
from schemas.ids import job_identity, message_identity, request_fingerprint
from schemas.job import NEWEST_SCHEMA_VERSION, JobEcho, JobRejected, TranscriptionJob, parse_job
from schemas.state import Checkpoint, ResultMarker, StoredMessage
from worker.core.jobs import reporting
from worker.core.jobs.audio_input import AudioInput, AudioIntake
from worker.core.jobs.board import Board, Entry
from worker.core.jobs.costing import Prices, bill
from worker.core.jobs.engine_health import EngineHealth
from worker.core.jobs.ladder import Deepgram, Ladder
from worker.core.jobs.output import Author, OutputWriter
from worker.core.jobs.progress import ProgressReporter
from worker.core.jobs.reporting import Account, Outcomes, Subject
from worker.core.jobs.routing import RoutingPolicy, Situation, can_use_parakeet, feasible, may_fall_back, route
from worker.core.jobs.state import Claim, JobStates, checkpoint_key
from worker.core.jobs.state.checkpoints import SettingValue
from worker.core.jobs.tasks import together
from worker.core.jobs.transcription import PLANNING_VERSION, Progress, Transcribed, Transcription
from worker.errors import (
    AttemptsExhausted,
    ClaimHeld,
    ClaimLost,
    InvalidJob,
    JobFault,
    JobIdConflict,
    UnsupportedSchemaVersion,
)
from worker.ports import AudioDecoder, Clock, Delivery, JobSlot, Topic, WindowRecogniser
from worker.telemetry.spans import stage, trace_attributes

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class JobRules:
    """What the settings say about every job."""

    worker: str
    subscription: str
    routing: RoutingPolicy
    prices: Prices
    chunk_seconds: float
    chunks_in_flight: int
    max_crashes: int
    progress_events: bool = False
    log_costs: bool = True


@dataclass(frozen=True, kw_only=True)
class JobTools:
    """What every job works with; shared by all of them, owned by the app."""

    states: JobStates
    intake: AudioIntake
    output: OutputWriter
    decoder: AudioDecoder
    recogniser: WindowRecogniser
    deepgram: Deepgram | None
    health: EngineHealth
    completions: Topic
    dead_letters: Topic
    clock: Clock
    board: Board = field(default_factory=Board)


class Jobs:
    """Makes the attempt at the job of each delivery; the consumer's `JobHandler`."""

    def __init__(self, tools: JobTools, rules: JobRules) -> None:
        self._tools, self._rules = tools, rules

    def attempt(self, delivery: Delivery) -> "JobAttempt":
        """Begin; nothing is read or awaited yet."""
        return JobAttempt(delivery, self._tools, self._rules)


class JobAttempt:
    """One delivery of one job. See `worker.core.delivery.handler.JobAttempt` for what each method owes."""

    def __init__(self, delivery: Delivery, tools: JobTools, rules: JobRules) -> None:
        self._delivery, self._tools, self._rules = delivery, tools, rules
        now = tools.clock.now()
        self._account = Account(
            worker=rules.worker, started_at=now, queued_seconds=max(0.0, (now - delivery.publish_time).total_seconds())
        )
        self._subject = Subject(echo=JobEcho(), identity=message_identity(delivery.data), run=0)
        self._job: TranscriptionJob | None = None

    async def handle(self, slot: JobSlot) -> None:
        """Do the job, or say again how it ended."""
        job = self._understand()
        with self._tools.board.showing(Entry(job_id=job.job_id, video_id=job.video_id, account=self._account)):
            if marker := await self._concluded_before(job):
                await self._publish(marker.messages)
            else:
                await self._conclude(job, slot)

    async def record_failure(self) -> int:
        """Count a verdict in the job's state."""
        job = self._understand()
        async with self._claim(job, deliveries=0) as claim:
            return await claim.record_failure()

    async def give_up(self, error: Exception, attempts: int) -> None:
        """Store the failure, then send dead letter, failed and cost events. A message that is no job has no state."""
        if self._job is None or isinstance(error, JobIdConflict):
            messages = self._failure(error, attempts, claim=None)
        else:
            async with self._claim(self._job, deliveries=0) as claim:
                messages = self._failure(error, attempts, claim)
                await claim.conclude(self._marker(self._job, messages, error))
        await self._publish(messages)
        job_id, code = self._subject.echo.job_id, reporting.code_of(error)
        self._tools.board.failed(job_id, self._account, code, self._tools.clock.now())

    async def adopt(self, deliveries: int) -> None:
        """For a message that the subscription's own policy gave up on: make it a dead letter of the worker's.

        Publishes the envelope and the terminal events; where the job had ended all the same, says that again. Raises
        `ClaimHeld` while a worker has the job.
        """
        try:
            job = self._understand()
        except JobFault as error:
            await self.give_up(error, deliveries)
            return
        if marker := await self._concluded_before(job):
            await self._publish(marker.messages)
        else:
            await self.give_up(AttemptsExhausted(deliveries, deliveries), deliveries)

    # the steps of `handle`, in order

    def _understand(self) -> TranscriptionJob:
        try:
            job, ignored = parse_job(self._delivery.data)
        except JobRejected as exc:
            self._subject = Subject(echo=exc.job, identity=self._subject.identity, run=_run_or_zero(self._delivery))
            if exc.unsupported_version is not None:
                raise UnsupportedSchemaVersion(exc.unsupported_version, NEWEST_SCHEMA_VERSION) from exc
            raise InvalidJob(exc.violations) from exc
        self._subject = Subject(echo=job.echo(), identity=job_identity(job), run=_run_or_zero(self._delivery))
        structlog.contextvars.bind_contextvars(job_id=job.job_id, video_id=job.video_id)
        if ignored and self._job is None:
            log.info("job.unknown_fields", fields=sorted(ignored))
        self._check(job)
        self._job = job
        self._account.method_requested = job.force_method
        return job

    def _check(self, job: TranscriptionJob) -> None:
        """What the message alone can break: the run attribute, and the buckets the settings allow."""
        raw = self._delivery.attributes.get("run", "0")
        violations: tuple[str, ...] = (
            () if _is_run(raw) else (f"attribute run: must be a whole number from 0 on (got {raw!r})",)
        )
        violations += self._tools.output.violations(job)
        if violations:
            raise InvalidJob(violations)
        self._tools.intake.check_bucket(job)

    async def _concluded_before(self, job: TranscriptionJob) -> ResultMarker | None:
        marker = await self._tools.states.result(job.job_id, request_fingerprint(job))
        if marker is None or not marker.settles(self._subject.run):
            return None
        log.info("job.concluded_before", outcome=marker.outcome, run=marker.run)
        await self._tools.states.sweep(marker)
        return marker

    async def _conclude(self, job: TranscriptionJob, slot: JobSlot) -> None:
        stale_generation = None
        while True:
            try:
                async with self._claim(job, stale_generation) as claim:
                    return await self._work(job, claim)
            except ClaimHeld as held:
                log.info("job.parked", reason=str(held))
            async with slot.parked():
                stale_generation = await self._tools.states.park(job.job_id)
            if marker := await self._concluded_before(job):
                return await self._publish(marker.messages)

    async def _work(self, job: TranscriptionJob, claim: Claim) -> None:
        self._account.deliveries = claim.record.deliveries
        if claim.record.crashes >= self._rules.max_crashes:
            raise AttemptsExhausted(claim.record.crashes, self._rules.max_crashes)
        async with AsyncExitStack() as until_published:  # nobody shall wait for the audio to be removed
            async with while_owned(claim):
                audio = await until_published.enter_async_context(self._tools.intake.fetch(job))
                situation = await self._route(job, audio)
                transcribed = await self._transcribe(job, audio, claim, situation)
                await claim.verify()
                outcomes = await self._tools.output.write(job, audio, transcribed, self._author())
                messages = self._completion(transcribed, outcomes)
                marker = self._marker(job, messages)
                with stage("conclude"):
                    await claim.conclude(marker)
            self._tools.board.completed(job.job_id, self._account, self._tools.clock.now())
            await self._publish(marker.messages)
        await claim.checkpoints.clear()  # nobody waits for that either

    async def _route(self, job: TranscriptionJob, audio: AudioInput) -> Situation:
        with stage("probe"):
            facts = await self._tools.decoder.probe(audio.path)
        situation = Situation(
            job=job,
            policy=self._rules.routing,
            gpu_healthy=self._tools.health.is_healthy(),
            model_languages=self._tools.recogniser.facts.languages,
            duration_seconds=job.duration_seconds or facts.duration_seconds,
        )
        self._account.expected_seconds = facts.duration_seconds
        self._account.route = found = route(situation)
        log.info("job.routed", method=found.method, reason=found.reason, codec=facts.codec)
        self._account.route = feasible(found, situation, deepgram_configured=self._tools.deepgram is not None)
        return situation

    async def _transcribe(
        self, job: TranscriptionJob, audio: AudioInput, claim: Claim, situation: Situation
    ) -> Transcribed:
        self._account.engine = engine = self._tools.recogniser.facts
        settings: dict[str, SettingValue] = {
            "chunk_seconds": self._rules.chunk_seconds,
            "planning": PLANNING_VERSION,
            "decoder": await self._tools.decoder.identity(),
        }
        key = partial(checkpoint_key, audio=audio.facts, settings=settings)
        async with self._reporting_progress() as on_progress:
            transcription = Transcription(
                decoder=self._tools.decoder,
                hear=self._ladder(job, situation).hear,
                store=claim.checkpoints,
                key=key(model_fingerprint=engine.model_fingerprint),
                paid_key=key(model_fingerprint="deepgram"),
                chunk_seconds=self._rules.chunk_seconds,
                chunks_in_flight=self._rules.chunks_in_flight,
                on_progress=on_progress,
            )
            try:
                with stage("transcribe"):
                    transcribed = await transcription.run(audio.path)
            finally:
                self._take_stock(transcription.done, transcription.resumed)
        self._account.audio_seconds = transcribed.duration_seconds
        return transcribed

    def _ladder(self, job: TranscriptionJob, situation: Situation) -> Ladder:
        tools = self._tools
        if tools.deepgram is not None:
            self._account.deepgram_model = tools.deepgram.recogniser.model_name
        if self._account.route is None:
            raise AssertionError("a job is routed before it is heard")
        return Ladder(
            recogniser=tools.recogniser,
            deepgram=tools.deepgram,
            health=tools.health,
            clock=tools.clock,
            route=self._account.route,
            may_fall_back=may_fall_back(situation),
            may_use_parakeet=job.force_method is not Method.DEEPGRAM and can_use_parakeet(situation),
            language=job.language,
            job_id=job.job_id,
        )

    def _author(self) -> Author:
        """Whom the transcript names: the model and its version. Deepgram tells no version of its models."""
        name, engine = self._account.model_name or "", self._tools.recogniser.facts
        return Author(name=name, version=engine.model_fingerprint if name == engine.model_name else name)

    def _take_stock(self, chunks: tuple[Checkpoint, ...], resumed: int) -> None:
        self._account.chunks, self._account.chunks_resumed = chunks, resumed
        self._account.audio_seconds = sum(chunk.audio_seconds for chunk in chunks)

    # what is said about it

    def _completion(self, transcribed: Transcribed, outcomes: Outcomes) -> tuple[StoredMessage, ...]:
        self._account.cost = cost = bill(transcribed.chunks, transcribed.duration_seconds, self._rules.prices)
        if self._rules.log_costs:
            log.info("job.cost", usd=round(cost.usd, 6), savings_percent=round(cost.savings_percent, 2))
        log.info("job.done", words=outcomes.words_count, audio_seconds=round(transcribed.duration_seconds, 3))
        return _traced(reporting.completion(self._subject, self._account, outcomes, cost, self._tools.clock.now()))

    def _failure(self, error: Exception, attempts: int, claim: Claim | None) -> tuple[StoredMessage, ...]:
        now = self._tools.clock.now()
        seconds = self._account.audio_seconds or 0.0
        self._account.cost = cost = bill(self._account.chunks, seconds, self._rules.prices)
        letter = reporting.dead_letter(
            self._subject,
            self._account,
            error,
            self._original(),
            attempts=attempts,
            crashes=claim.record.crashes if claim else 0,
            first_seen=claim.record.first_seen if claim else self._account.started_at,
            now=now,
        )
        log.warning("job.failed", code=letter.code, dead_letter_id=letter.dead_letter_id, reason=letter.message)
        return _traced(reporting.failure(self._subject, self._account, error, letter, cost, now))

    def _marker(
        self, job: TranscriptionJob, messages: tuple[StoredMessage, ...], error: Exception | None = None
    ) -> ResultMarker:
        return ResultMarker(
            job_id=job.job_id,
            fingerprint=request_fingerprint(job),
            run=self._subject.run,
            outcome="failed" if error else "completed",
            code=reporting.code_of(error) if error else None,
            messages=messages,
            concluded_at=self._tools.clock.now(),
        )

    async def _publish(self, messages: tuple[StoredMessage, ...]) -> None:
        with stage("publish"):
            for message in messages:
                topic = self._tools.dead_letters if message.topic == "dead_letter" else self._tools.completions
                await topic.publish(message.data.encode(), message.attributes)

    # small things

    def _claim(
        self, job: TranscriptionJob, stale_generation: int | None = None, *, deliveries: int = 1
    ) -> AbstractAsyncContextManager[Claim]:
        return self._tools.states.claim(
            job.job_id,
            request_fingerprint(job),
            self._subject.run,
            stale_generation=stale_generation,
            deliveries=deliveries,
        )

    def _original(self) -> OriginalMessage:
        delivery = self._delivery
        return OriginalMessage.of(
            delivery.data,
            delivery.attributes,
            message_id=delivery.message_id,
            publish_time=delivery.publish_time,
            subscription=self._rules.subscription,
        )

    @asynccontextmanager
    async def _reporting_progress(self) -> AsyncIterator[Callable[[Progress], object]]:
        if not self._rules.progress_events:
            yield self._note
            return
        reporter = ProgressReporter(self._tools.completions, self._subject, self._account, self._tools.clock)
        async with reporter.running():
            yield lambda progress: reporter.update(self._note(progress))

    def _note(self, progress: Progress) -> Progress:
        self._account.progress = progress
        return progress


@asynccontextmanager
async def while_owned(claim: Claim) -> AsyncIterator[None]:
    """Cancel the block and raise `ClaimLost` as soon as the claim is lost."""
    async with together() as group:
        watch = group.create_task(_raise_when_lost(claim))
        yield
        watch.cancel()


async def _raise_when_lost(claim: Claim) -> None:
    await claim.lost.wait()
    raise ClaimLost(claim.record.job_id)


def _traced(messages: tuple[StoredMessage, ...]) -> tuple[StoredMessage, ...]:
    """With the trace they were made in; they are stored with it, so that a repetition still has the same bytes."""
    here = trace_attributes()
    return tuple(message.model_copy(update={"attributes": {**message.attributes, **here}}) for message in messages)


def _is_run(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _run_or_zero(delivery: Delivery) -> int:
    text = delivery.attributes.get("run", "0")
    return int(text) if _is_run(text) else 0
