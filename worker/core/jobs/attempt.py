"""The way of one job, top to bottom: from a delivered message to durable artefacts and published events.

    understand the message -> concluded before, and its artefacts exist? say it again -> expired before it was begun?
    claim (or park while another worker has it) -> locate and download the audio -> route -> transcribe, chunk by chunk
    still ours? -> artefacts -> result marker -> publish

A `JobAttempt` lives as long as one delivery is worked on. It knows neither acks nor leases.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Literal, TypeVar

import structlog

from schemas.codes import Method
from schemas.ids import message_identity, request_fingerprint
from schemas.job import JobEcho, TranscriptionJob
from schemas.state import ClaimRecord, ResultMarker, StoredMessage
from worker.core.jobs import reporting
from worker.core.jobs.audio_input import AudioInput
from worker.core.jobs.job_message import JobMessage, original_of, read_message
from worker.core.jobs.ladder import Ladder
from worker.core.jobs.obstacles import Obstacles
from worker.core.jobs.output import Author, keyterm_fields
from worker.core.jobs.phases import Arrival, Claimed, Ended, Received, Routed, Spent, Transcribing
from worker.core.jobs.progress import ProgressReporter
from worker.core.jobs.reporting import JobOutput, KeytermFields, Subject
from worker.core.jobs.routing import Situation, can_use_parakeet, feasible, may_fall_back, route
from worker.core.jobs.spending import charge, costs_to_keep, keep_waste, spent_in_all, wasted_in_all
from worker.core.jobs.state import Claim, checkpoint_key
from worker.core.jobs.tools import JobRules, JobTools
from worker.core.jobs.transcription import PLANNING_VERSION, Progress, Transcribed, Transcription, channels_apart
from worker.core.transcript.quality import GAPS_VERSION
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
from worker.ports import Delivery, JobSlot
from worker.telemetry.spans import stage, trace_attributes

PhaseT = TypeVar("PhaseT", bound=Received)

log = structlog.get_logger(__name__)


class Jobs:
    """Makes the attempt at the job of each delivery; the consumer's `JobHandler`."""

    def __init__(self, tools: JobTools, rules: JobRules) -> None:
        self.tools, self.rules = tools, rules

    def attempt(self, delivery: Delivery) -> "JobAttempt":
        """Begin; nothing is read or awaited yet."""
        return JobAttempt(delivery, self.tools, self.rules)


class JobAttempt:
    """One delivery of one job. `worker.core.delivery.handler.Attempt` documents the methods."""

    def __init__(self, delivery: Delivery, tools: JobTools, rules: JobRules) -> None:
        self._delivery, self._tools, self._rules = delivery, tools, rules
        self._given_up: dict[int, EngineError] = {}
        self._obstacles = Obstacles(tools.states, tools.paid, tools.clock, tools.resources, tools.output)
        now = tools.clock.now()
        queued_seconds = max(0.0, (now - delivery.publish_time).total_seconds())
        receipt = Arrival(
            worker=rules.worker, started_at=now, began=tools.clock.monotonic(), queued_seconds=queued_seconds
        )
        self._phase = Received(receipt=receipt)
        self._message: JobMessage | None = None
        self._subject = Subject(echo=JobEcho(), identity="", run=0)
        self._last_result: ResultMarker | None = None
        self._lost_result: ResultMarker | None = None
        """The result of an earlier run whose artefacts are gone: this attempt makes them again."""

    async def handle(self, slot: JobSlot) -> None:
        """Do the job, or say again how it ended."""
        job = await self._understand()
        with self._tools.board.showing(lambda: self._phase):
            await self._conclude(job, slot)

    async def record_failure(self, error: Exception) -> int:
        """Count a verdict in the job's state."""
        job = await self._understand()
        async with self._claim(job, deliveries=0) as claim:
            return await claim.record_failure(f"{reporting.code_of(error).value}: {error}")

    async def record_crash(self, error: WorkerError) -> None:
        """Count a crash in the job's state: it broke its worker again."""
        async with self._claim(await self._understand(), deliveries=0) as claim:
            await claim.record_crash(str(error))

    async def give_up(self, error: Exception, attempts: int) -> None:
        """Store the failure, then send dead letter, failed and cost events."""
        if (job := self._job_of(error)) is None:
            ended, messages = self._failure(error, attempts, None, self._phase.spent)
        else:
            async with self._claim(job, deliveries=0) as claim:
                spent = await spent_in_all(claim, self._phase.spent)
                ended, messages = self._failure(error, attempts, claim.record, spent)
                await claim.conclude(self._marker(job, messages, error))
        await self._publish(messages)
        self._tools.board.failed(self._subject.echo.job_id, ended, reporting.code_of(error), self._tools.clock.now())

    # the steps of `handle`, in order

    async def _understand(self) -> TranscriptionJob:
        if self._message is None:
            self._message = message = await read_message(
                self._delivery, self._tools.output.violations, self._tools.intake.check_bucket
            )
            self._subject = message.subject
            if message.job is not None:
                structlog.contextvars.bind_contextvars(job_id=message.job.job_id, video_id=message.job.video_id)
                self._phase = self._phase.understood(message.job)
                queued = round(self._phase.receipt.queued_seconds, 1)
                log.info("job.received", uri=message.job.audio_uri, run=self._subject.run, queued_seconds=queued)
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
        """Return the result to announce again, unless its artefacts are gone: then the job is done again.

        As its next run: its events then have other ids, so that subscribers which drop duplicates by id receive them.
        """
        if (marker := await self._result(job)) is None:
            return None
        if missing := await self._tools.output.missing(marker):
            log.warning("job.result_gone", run=marker.run, missing=missing)
        is_redone = not missing and not await self._tools.states.sweep(marker) and marker.outcome == "completed"
        if missing or is_redone:
            self._lost_result, self._subject = marker, replace(self._subject, run=marker.run + 1)
            return None
        log.info("job.concluded_before", outcome=marker.outcome, run=marker.run)
        return marker

    async def _conclude(self, job: TranscriptionJob, slot: JobSlot) -> None:
        publish_time, situation = self._delivery.publish_time, self._situation(job, job.duration_seconds)
        is_new = self._subject.run == 0 and self._obstacles.is_free_to_begin(job, publish_time, situation)
        stale_generation: int | None = None
        deliveries = 1
        while True:
            if not is_new:  # where it seems to be, claiming it finds out
                if marker := await self._concluded_before(job):
                    return await self._publish(marker.messages)
                await self._obstacles.refuse_expired(job, publish_time)
                situation = self._situation(job, job.duration_seconds)
            try:
                self._obstacles.refuse_if_down(situation)
                async with self._claim(job, stale_generation, deliveries=deliveries, is_new=is_new) as claim:
                    deliveries, is_new = 0, False  # this delivery is counted, if it claims the job again
                    return await self._work(job, claim)
            except (ClaimHeld, DeepgramDown, ResourceDown) as exc:
                obstacle = exc.without_frames()
            if is_new:
                is_new = False
            else:
                stale_generation = await self._obstacles.wait_out(obstacle, situation, slot)

    async def _work(self, job: TranscriptionJob, claim: Claim) -> None:
        record = claim.record
        self._phase = claimed = self._phase.understood(job).claimed(deliveries=record.deliveries, waste=record.waste)
        if record.crashes >= self._rules.max_crashes:
            raise AttemptsExhausted(record.crashes, self._rules.max_crashes, record.last_fault)
        async with AsyncExitStack() as until_published:  # delete the audio after publishing, off the critical path
            async with claim.while_owned():
                audio = await until_published.enter_async_context(self._tools.intake.fetch(job))
                situation, routed = await self._route(claimed, audio)
                phase, transcribed = await self._transcribe(routed, audio, claim, situation)
                await claim.verify()
                author = Author.of(phase.model_name(transcribed.chunks), phase.engine)
                outcomes = await self._tools.output.write(job, audio, transcribed, author)
                phase = replace(phase, waste=await wasted_in_all(claim))
                keyterms = await keyterm_fields(job.keyterms, transcribed, self._tools.recogniser)
                ended, messages = self._completion(phase, transcribed, outcomes, keyterms)
                marker = self._marker(job, messages, engines=tuple(chunk.engine for chunk in transcribed.chunks))
                with stage("conclude"):
                    await claim.conclude(marker)
            self._tools.board.completed(job.job_id, ended, self._tools.clock.now())
            await self._publish(marker.messages)
        await claim.checkpoints.clear()  # off the critical path, too

    async def _route(self, claimed: Claimed, audio: AudioInput) -> tuple[Situation, Routed]:
        job = claimed.job
        with stage("probe"):
            facts = await self._tools.decoder.probe(audio.path)
        situation = self._situation(job, job.duration_seconds or facts.duration_seconds)
        found, channels = route(situation), channels_apart(job.channels, facts)
        chunk_seconds, seconds = self._rules.chunk_seconds, facts.duration_seconds
        self._phase = routed = claimed.routed(
            found, expected_seconds=seconds, chunk_seconds=chunk_seconds, channels=channels
        )
        chunks = routed.chunks_expected
        log.info("job.routed", method=found.method, reason=found.reason, codec=facts.codec, chunks=chunks)
        usable = feasible(found, situation, paid_configured=self._tools.paid is not None)
        self._phase = routed = replace(routed, route=usable)
        return situation, routed

    def _situation(self, job: TranscriptionJob, duration_seconds: float | None) -> Situation:
        return Situation(
            job=job,
            policy=self._rules.routing,
            gpu_healthy=self._tools.health.is_healthy(),
            model_languages=self._tools.recogniser.facts.languages,
            duration_seconds=duration_seconds,
        )

    async def _transcribe(
        self, routed: Routed, audio: AudioInput, claim: Claim, situation: Situation
    ) -> tuple[Transcribing, Transcribed]:
        engine, paid = self._tools.recogniser.facts, self._tools.paid
        self._phase = phase = routed.transcribing(engine, paid_model=paid.recogniser.model_name if paid else None)
        decoder = await self._tools.decoder.identity()
        rules: dict[str, str | float] = {"chunk_seconds": self._rules.chunk_seconds, "planning": PLANNING_VERSION}
        if phase.channels > 1:
            rules["channels"] = "apart"
        model_fingerprint = f"{engine.model_fingerprint} gaps {GAPS_VERSION}"
        if phase.keyterms:
            rules["keyterms"] = "\n".join(phase.keyterms)
            model_fingerprint += f" {engine.keyterm_fingerprint}"
        key = partial(checkpoint_key, audio=audio.facts, settings={**rules, "decoder": decoder})
        ladder = self._ladder(routed, situation)
        async with self._reporting_progress(phase) as on_progress:
            transcription = Transcription(
                decoder=self._tools.decoder,
                transcribe=ladder.transcribe,
                store=claim.checkpoints,
                key=key(model_fingerprint=model_fingerprint),
                paid_key=key(model_fingerprint="deepgram"),
                chunk_seconds=self._rules.chunk_seconds,
                chunks_in_flight=self._rules.chunks_in_flight,
                on_progress=on_progress,
                interrupted=lambda: ladder.interrupted,
                channels=phase.channels,
            )
            try:
                with stage("transcribe"):
                    transcribed = await transcription.run(audio.path)
            finally:
                progress, finished, resumed = transcription.progress, transcription.done, transcription.resumed
                self._phase = phase = replace(phase, progress=progress, finished=finished, chunks_resumed=resumed)
                await keep_waste(claim, ladder.waste)  # of a cancelled job, too: Deepgram bills its failed requests
        return phase, transcribed

    def _ladder(self, routed: Routed, situation: Situation) -> Ladder:
        tools, job = self._tools, routed.job
        return Ladder(
            recogniser=tools.recogniser,
            paid=tools.paid,
            health=tools.health,
            clock=tools.clock,
            route=routed.route,
            may_fall_back=may_fall_back(situation),
            may_use_parakeet=job.force_method is not Method.DEEPGRAM and can_use_parakeet(situation),
            language=job.language,
            job_id=job.job_id,
            keyterms=routed.keyterms,
            team_id=job.team,
            given_up=self._given_up,
        )

    # messages and result markers

    def _job_of(self, error: Exception) -> TranscriptionJob | None:
        """Return the job whose state records the error; None if the message must not change any job's state."""
        if isinstance(error, InvalidJob | UnsupportedSchemaVersion):
            # Named for its bytes: the event must not pass for one of the job whose id the message holds.
            self._subject = replace(self._subject, identity=message_identity(self._delivery.data))
            return None
        message = self._message  # its fault was found before the job's state was looked at
        return None if message is None or message.fault or isinstance(error, JobIdConflict) else message.job

    def _completion(
        self, phase: Transcribing, transcribed: Transcribed, outcomes: JobOutput, keyterms: KeytermFields
    ) -> tuple[Ended[Transcribing], tuple[StoredMessage, ...]]:
        spent = Spent(chunks=transcribed.chunks, audio_seconds=transcribed.channel_seconds, waste=phase.waste)
        ended = self._ended(phase, spent)
        costs = {}
        if self._rules.log_costs:
            cost = ended.cost
            costs = {"usd": round(cost.usd, 6), "savings_percent": round(cost.savings_percent, 2)}
            log.info("job.cost", **costs)
        log.info("job.done", **reporting.log_fields(ended, outcomes), **costs)
        now = self._tools.clock.now()
        return ended, traced(reporting.completion(self._subject, ended, outcomes, keyterms, now))

    def _failure(
        self, error: Exception, attempts: int, record: ClaimRecord | None, spent: Spent
    ) -> tuple[Ended[Received], tuple[StoredMessage, ...]]:
        now, ended = self._tools.clock.now(), self._ended(self._phase, spent)
        letter = reporting.dead_letter(
            self._subject,
            error,
            original_of(self._delivery, self._rules.subscription),
            worker=self._rules.worker,
            attempts=attempts,
            crashes=record.crashes if record else 0,
            first_seen=record.first_seen if record else self._phase.receipt.started_at,
            now=now,
        )
        told = {"code": letter.code, "dead_letter_id": letter.dead_letter_id, "reason": letter.message}
        log.warning("job.failed", **told, suggested_action=letter.suggested_action)
        known = reporting.known_of(ended)
        return ended, traced(reporting.failure(self._subject, error, letter, known, ended.cost, now))

    def _ended(self, phase: PhaseT, spent: Spent) -> Ended[PhaseT]:
        seconds = self._tools.clock.monotonic() - phase.receipt.began
        cost = charge(self._subject, phase, spent, seconds, self._rules)
        return Ended(phase=phase, spent=spent, seconds=seconds, cost=cost)

    def _marker(
        self,
        job: TranscriptionJob,
        messages: tuple[StoredMessage, ...],
        error: Exception | None = None,
        engines: tuple[Literal["parakeet", "deepgram"], ...] = (),
    ) -> ResultMarker:
        return ResultMarker(
            job_id=job.job_id,
            fingerprint=request_fingerprint(job),
            run=self._subject.run,
            outcome="failed" if error else "completed",
            code=reporting.code_of(error) if error else None,
            messages=messages,
            engines=engines,
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
        self,
        job: TranscriptionJob,
        stale_generation: int | None = None,
        *,
        deliveries: int = 1,
        is_new: bool = False,
    ) -> AbstractAsyncContextManager[Claim]:
        return self._tools.states.claim(
            job.job_id,
            request_fingerprint(job),
            self._subject.run,
            stale_generation=stale_generation,
            deliveries=deliveries,
            over_result=self._lost_result,
            has_result=self._last_result is not None,
            is_new=is_new,
        )

    @asynccontextmanager
    async def _reporting_progress(self, phase: Transcribing) -> AsyncIterator[Callable[[Progress], object]]:
        def note(progress: Progress) -> Progress:
            self._phase = replace(phase, progress=progress)
            return progress

        if not self._rules.progress_events:
            yield note
            return
        reporter = ProgressReporter(self._tools.completions, self._subject, phase, self._tools.clock)
        async with reporter.running():
            yield lambda progress: reporter.update(note(progress))


def traced(messages: tuple[StoredMessage, ...]) -> tuple[StoredMessage, ...]:
    """Return them with the trace they were made in, which is stored with them: a repetition has the same bytes."""
    here = trace_attributes()
    return tuple(message.model_copy(update={"attributes": {**message.attributes, **here}}) for message in messages)
