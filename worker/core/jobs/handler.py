"""The way of one job, top to bottom: from a delivered message to durable artefacts and published events.

    understand the message -> concluded before, and its artefacts exist? say it again -> expired before it was begun?
    claim (or park while another worker has it) -> locate and download the audio -> route -> transcribe, chunk by chunk
    still ours? -> artefacts -> result marker -> publish

A `JobAttempt` lives as long as one delivery is worked on. It knows neither acks nor leases.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from schemas.codes import Method
from schemas.ids import message_identity, request_fingerprint
from schemas.job import JobEcho, TranscriptionJob
from schemas.state import Checkpoint, ResultMarker, StoredMessage
from worker.core.costs.bill import Prices
from worker.core.jobs import reporting
from worker.core.jobs.attribution import charge
from worker.core.jobs.audio_input import AudioInput, AudioIntake
from worker.core.jobs.board import Board, Entry
from worker.core.jobs.engine_health import EngineHealth
from worker.core.jobs.expiry import refuse_expired
from worker.core.jobs.frames import without_frames
from worker.core.jobs.job_message import JobMessage, original_of, read_message
from worker.core.jobs.ladder import Deepgram, Ladder
from worker.core.jobs.obstacles import Obstacles, expect_deepgram
from worker.core.jobs.output import Author, OutputWriter
from worker.core.jobs.ownership import while_owned
from worker.core.jobs.progress import ProgressReporter
from worker.core.jobs.repetition import costs_to_keep, missing_artefacts
from worker.core.jobs.reporting import Account, Outcomes, Subject
from worker.core.jobs.routing import RoutingPolicy, Situation, can_use_parakeet, feasible, may_fall_back, route
from worker.core.jobs.spending import keep_waste, spent_before
from worker.core.jobs.state import Claim, JobStates, checkpoint_key
from worker.core.jobs.transcription import PLANNING_VERSION, Progress, Transcribed, Transcription
from worker.errors import (
    AttemptsExhausted,
    ClaimHeld,
    DeepgramDown,
    EngineError,
    InvalidJob,
    JobIdConflict,
    ResourceDown,
    UnsupportedSchemaVersion,
    WorkerError,
)
from worker.ports import AudioDecoder, Clock, Delivery, JobSlot, Topic, WindowRecogniser
from worker.telemetry.spans import stage, trace_attributes

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class JobRules:
    """What the settings say about every job."""

    worker: str
    revision: str = ""
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
        self.tools, self.rules = tools, rules

    def attempt(self, delivery: Delivery) -> "JobAttempt":
        """Begin; nothing is read or awaited yet."""
        return JobAttempt(delivery, self.tools, self.rules)


class JobAttempt:
    """One delivery of one job. See `worker.core.delivery.handler.JobAttempt` for what each method owes."""

    def __init__(self, delivery: Delivery, tools: JobTools, rules: JobRules) -> None:
        self._delivery, self._tools, self._rules = delivery, tools, rules
        self._given_up: dict[int, EngineError] = {}
        self._obstacles = Obstacles(tools.states, tools.deepgram, tools.clock, tools.intake)
        now = tools.clock.now()
        self._account = Account(
            worker=rules.worker,
            started_at=now,
            began=tools.clock.monotonic(),
            queued_seconds=max(0.0, (now - delivery.publish_time).total_seconds()),
            chunk_seconds=rules.chunk_seconds,
        )
        self._message: JobMessage | None = None
        self._subject = Subject(echo=JobEcho(), identity="", run=0)
        self._last_result: ResultMarker | None = None
        self._lost_result: ResultMarker | None = None
        """The result of an earlier run whose artefacts are gone: this attempt makes them again."""

    async def handle(self, slot: JobSlot) -> None:
        """Do the job, or say again how it ended."""
        job = await self._understand()
        with self._tools.board.showing(Entry(job_id=job.job_id, video_id=job.video_id, account=self._account)):
            if marker := await self._concluded_before(job):
                await self._publish(marker.messages)
            else:
                await self._conclude(job, slot)

    async def record_failure(self) -> int:
        """Count a verdict in the job's state."""
        job = await self._understand()
        async with self._claim(job, deliveries=0) as claim:
            return await claim.record_failure()

    async def record_crash(self, error: WorkerError) -> None:
        """Count a crash in the job's state: it broke its worker again."""
        async with self._claim(await self._understand(), deliveries=0) as claim:
            await claim.record_crash(str(error))

    async def give_up(self, error: Exception, attempts: int) -> None:
        """Store the failure, then send dead letter, failed and cost events."""
        if (job := self._job_of(error)) is None:
            messages = self._failure(error, attempts, claim=None)
        else:
            async with self._claim(job, deliveries=0) as claim:
                await spent_before(claim, self._account)
                messages = self._failure(error, attempts, claim)
                await claim.conclude(self._marker(job, messages, error))
        await self._publish(messages)
        job_id, code = self._subject.echo.job_id, reporting.code_of(error)
        self._tools.board.failed(job_id, self._account, code, self._tools.clock.now())

    # the steps of `handle`, in order

    async def _understand(self) -> TranscriptionJob:
        if self._message is None:
            self._message = message = await read_message(
                self._delivery, self._tools.output.violations, self._tools.intake.check_bucket
            )
            self._subject = message.subject
            if message.job is not None:
                structlog.contextvars.bind_contextvars(job_id=message.job.job_id, video_id=message.job.video_id)
                self._account.method_requested = message.job.force_method
            if message.unknown_fields:
                log.info("job.unknown_fields", count=message.unknown_fields, fields=message.unknown_names)
        if self._message.fault is not None:
            raise self._message.fault
        if self._message.job is None:
            raise AssertionError("a message without a fault is a job")
        return self._message.job

    async def _result(self, job: TranscriptionJob) -> ResultMarker | None:
        """Return the result that answers this run. Raises `JobIdConflict`, and `InvalidJob` for a run too high."""
        self._last_result = marker = await self._tools.states.result(job.job_id, request_fingerprint(job))
        if self._message is not None:
            self._message.check_run(marker)
        return marker if marker is not None and marker.settles(self._subject.run) else None

    async def _concluded_before(self, job: TranscriptionJob) -> ResultMarker | None:
        """Return the result to announce again, unless its artefacts are gone: then the job is done again."""
        if (marker := await self._result(job)) is None:
            return None
        if missing := await missing_artefacts(marker, self._tools.output):
            log.warning("job.result_gone", run=marker.run, missing=missing)
        is_redone = not missing and not await self._tools.states.sweep(marker) and marker.outcome == "completed"
        if missing or is_redone:
            self._lost_result, self._subject = marker, replace(self._subject, run=marker.run + 1)
            return None
        log.info("job.concluded_before", outcome=marker.outcome, run=marker.run)
        return marker

    async def _conclude(self, job: TranscriptionJob, slot: JobSlot) -> None:
        stale_generation: int | None = None
        deliveries = 1
        while True:
            await refuse_expired(job, self._delivery, self._tools.states, self._tools.clock.now())
            situation = self._situation(job, job.duration_seconds)
            try:
                self._tools.intake.expect(job)
                expect_deepgram(self._tools.deepgram, situation)
                async with self._claim(job, stale_generation, deliveries=deliveries) as claim:
                    deliveries = 0  # this one is counted, if it claims the job again
                    return await self._work(job, claim)
            except (ClaimHeld, DeepgramDown, ResourceDown) as exc:
                obstacle = without_frames(exc)
            stale_generation = await self._obstacles.wait_out(obstacle, situation, slot)
            if marker := await self._concluded_before(job):
                return await self._publish(marker.messages)

    async def _work(self, job: TranscriptionJob, claim: Claim) -> None:
        self._account.deliveries, self._account.waste = claim.record.deliveries, claim.record.waste
        if claim.record.crashes >= self._rules.max_crashes:
            raise AttemptsExhausted(claim.record.crashes, self._rules.max_crashes, claim.record.last_fault)
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
        situation = self._situation(job, job.duration_seconds or facts.duration_seconds)
        self._account.expected_seconds = facts.duration_seconds
        self._account.route = found = route(situation)
        log.info("job.routed", method=found.method, reason=found.reason, codec=facts.codec)
        self._account.route = feasible(found, situation, deepgram_configured=self._tools.deepgram is not None)
        return situation

    def _situation(self, job: TranscriptionJob, duration_seconds: float | None) -> Situation:
        return Situation(
            job=job,
            policy=self._rules.routing,
            gpu_healthy=self._tools.health.is_healthy(),
            model_languages=self._tools.recogniser.facts.languages,
            duration_seconds=duration_seconds,
        )

    async def _transcribe(
        self, job: TranscriptionJob, audio: AudioInput, claim: Claim, situation: Situation
    ) -> Transcribed:
        self._account.engine = engine = self._tools.recogniser.facts
        decoder = await self._tools.decoder.identity()
        rules: dict[str, str | float] = {"chunk_seconds": self._rules.chunk_seconds, "planning": PLANNING_VERSION}
        settings = {**rules, "decoder": decoder}
        key = partial(checkpoint_key, audio=audio.facts, settings=settings)
        ladder = self._ladder(job, situation)
        async with self._reporting_progress() as on_progress:
            transcription = Transcription(
                decoder=self._tools.decoder,
                hear=ladder.hear,
                store=claim.checkpoints,
                key=key(model_fingerprint=engine.model_fingerprint),
                paid_key=key(model_fingerprint="deepgram"),
                chunk_seconds=self._rules.chunk_seconds,
                chunks_in_flight=self._rules.chunks_in_flight,
                on_progress=on_progress,
                interrupted=lambda: ladder.interrupted,
            )
            try:
                with stage("transcribe"):
                    transcribed = await transcription.run(audio.path)
            except WorkerError:
                await keep_waste(claim, ladder.waste)
                raise
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
            given_up=self._given_up,
        )

    def _author(self) -> Author:
        """Whom the transcript names: the model and its version. Deepgram tells no version of its models."""
        name, engine = self._account.model_name or "", self._tools.recogniser.facts
        return Author(name=name, version=engine.model_fingerprint if name == engine.model_name else name)

    def _take_stock(self, chunks: tuple[Checkpoint, ...], resumed: int) -> None:
        self._account.chunks, self._account.chunks_resumed = chunks, resumed
        self._account.audio_seconds = sum(chunk.audio_seconds for chunk in chunks)

    # what is said about it

    def _job_of(self, error: Exception) -> TranscriptionJob | None:
        """Return the job whose state shall tell of the error; None where the message must touch no job's state."""
        if isinstance(error, InvalidJob | UnsupportedSchemaVersion):
            # Named for its bytes: the event must not pass for one of the job whose id the message holds.
            self._subject = replace(self._subject, identity=message_identity(self._delivery.data))
            return None
        message = self._message  # its fault was found before the job's state was looked at
        return None if message is None or message.fault or isinstance(error, JobIdConflict) else message.job

    def _completion(self, transcribed: Transcribed, outcomes: Outcomes) -> tuple[StoredMessage, ...]:
        self._account.seconds = self._tools.clock.monotonic() - self._account.began
        cost = charge(self._account, self._subject, transcribed.chunks, transcribed.duration_seconds, self._rules)
        if self._rules.log_costs:
            log.info("job.cost", usd=round(cost.usd, 6), savings_percent=round(cost.savings_percent, 2))
        log.info("job.done", words=outcomes.words_count, audio_seconds=round(transcribed.duration_seconds, 3))
        return traced(reporting.completion(self._subject, self._account, outcomes, cost, self._tools.clock.now()))

    def _failure(self, error: Exception, attempts: int, claim: Claim | None) -> tuple[StoredMessage, ...]:
        now = self._tools.clock.now()
        self._account.seconds = self._tools.clock.monotonic() - self._account.began
        seconds = self._account.audio_seconds or 0.0
        cost = charge(self._account, self._subject, self._account.chunks, seconds, self._rules)
        letter = reporting.dead_letter(
            self._subject,
            self._account,
            error,
            original_of(self._delivery, self._rules.subscription),
            attempts=attempts,
            crashes=claim.record.crashes if claim else 0,
            first_seen=claim.record.first_seen if claim else self._account.started_at,
            now=now,
        )
        log.warning("job.failed", code=letter.code, dead_letter_id=letter.dead_letter_id, reason=letter.message)
        return traced(reporting.failure(self._subject, self._account, error, letter, cost, now))

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
            earlier_costs=costs_to_keep(self._last_result),
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
            over_result=self._lost_result,
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


def traced(messages: tuple[StoredMessage, ...]) -> tuple[StoredMessage, ...]:
    """Return them with the trace they were made in, which is stored with them: a repetition has the same bytes."""
    here = trace_attributes()
    return tuple(message.model_copy(update={"attributes": {**message.attributes, **here}}) for message in messages)
