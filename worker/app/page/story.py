"""One job's page, from its result, its claim, its checkpoints and the worker that runs it. Pure."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from schemas.events import Artefacts, CompletedEvent, CostEvent, DeepgramCost, FailedEvent, ParakeetCost
from schemas.state import AttemptFault, Checkpoint, ClaimRecord
from worker.adapters.web.health_document import EndedFacts, RunningFacts, Segment, segment_of
from worker.adapters.web.rendering import counted, less, span, usd
from worker.adapters.web.views import CostLine, JobStory, Problem, StoryStep, Transcript
from worker.app.page.bucket import JobResult
from worker.app.page.overview import flags_of, replay_command


@dataclass(frozen=True, kw_only=True)
class JobTraces:
    """Everything that is known of one job."""

    job_id: str
    result: JobResult | None = None
    claim: ClaimRecord | None = None
    checkpoints: Sequence[tuple[Checkpoint, datetime]] = ()
    """Each with the time that the bucket wrote it; a completed job has none."""
    running: RunningFacts | None = None
    worker: str = ""
    """The worker that runs it."""
    ended: EndedFacts | None = None
    """The job in the list of its worker, which has the newest ones."""
    transcript: Transcript | None = None
    beginning: str = ""
    """The first words of the transcript, where they were asked for."""

    @property
    def is_known(self) -> bool:
        """The job has left a trace."""
        return bool(self.result or self.claim or self.checkpoints or self.running or self.ended)


def story_of(traces: JobTraces, now: datetime) -> JobStory:
    """Return the page of a job."""
    result = traces.result
    if result is not None and traces.running is None:
        return _concluded(traces, result)
    if traces.ended is not None and traces.running is None:
        return _listed(traces.job_id, traces.ended)
    return _unfinished(traces, now)


def _listed(job_id: str, ended: EndedFacts) -> JobStory:
    """Return all that the health document has of an ended job."""
    length = f"{_length(ended.audio_seconds)} of audio in " if ended.audio_seconds else "Ended after "
    return JobStory(
        job_id=job_id,
        video_id=ended.video_id or job_id,
        status="failed" if ended.code else "completed",
        lede=f"{length}{_length(ended.seconds)}.",
        problem=Problem(title=f"Failed: {ended.code}.") if ended.code else None,
        segments=ended.segments,
        steps=[StoryStep(at=ended.ended_at, title="Failed" if ended.code else "Completed")],
        usd=ended.cost_usd,
        baseline_usd=ended.baseline_usd,
        facts=[("Cost", str(usd(ended.cost_usd)))] if ended.cost_usd is not None else (),
    )


def _concluded(traces: JobTraces, result: JobResult) -> JobStory:
    ended, cost = result.ended, result.cost
    engines = result.marker.engines or (traces.ended.chunks if traces.ended else ())
    segments = [segment_of(engine) for engine in engines] or _checkpoint_segments(traces.checkpoints)
    return JobStory(
        job_id=traces.job_id,
        video_id=(ended.job.video_id if ended else None) or traces.job_id,
        status=result.marker.outcome,
        lede=_lede(ended, cost),
        problem=_problem(ended, result) if isinstance(ended, FailedEvent) else None,
        chips=[*flags_of(result)],
        segments=segments,
        steps=_steps(ended, result),
        costs=_cost_lines(cost),
        usd=cost.usd_total if cost else None,
        baseline_usd=cost.baseline.usd if cost else None,
        facts=_facts(ended, result),
        artefacts=_artefacts(ended),
        transcript=replace(traces.transcript, segments=segments) if traces.transcript else None,
        beginning=traces.beginning,
    )


def _lede(ended: CompletedEvent | FailedEvent | None, cost: CostEvent | None) -> str:
    if isinstance(ended, FailedEvent):
        return ended.error.error_message
    if ended is None:
        return "Its events are of a version that this page cannot read."
    metadata = ended.transcription_metadata
    money = f", for {usd(cost.usd_total)}: {less(cost.savings_percent)} than Deepgram alone" if cost else ""
    return (
        f"{_length(metadata.audio_duration_seconds)} of audio in {_length(metadata.processing_time_seconds)}, "
        f"{metadata.processing_speed_ratio:.0f}x real time{money}."
    )


def _problem(ended: FailedEvent, result: JobResult) -> Problem:
    code = result.marker.code.value if result.marker.code else "unknown"
    return Problem(
        title=f"Failed: {code}.",
        text="; ".join(ended.error.violations),
        remedy=ended.error.suggested_action,
        command=replay_command(shlex.quote(ended.error.support_reference), code),
    )


def _steps(ended: CompletedEvent | FailedEvent | None, result: JobResult) -> Sequence[StoryStep]:
    concluded = result.marker.concluded_at
    if ended is None:
        return [StoryStep(at=concluded, title=result.marker.outcome.capitalize())]
    metadata = ended.transcription_metadata
    took, queued = metadata.processing_time_seconds, metadata.queue_time_seconds
    claimed = ended.occurred_at - timedelta(seconds=took) if took is not None else None
    steps = []
    if claimed is not None and queued is not None:
        steps.append(StoryStep(at=claimed - timedelta(seconds=queued), title="Published", seconds=queued))
    if claimed is not None:
        by = f"by {metadata.worker}" if metadata.worker else ""
        text = f"{by}{_repeated(metadata.deliveries)}{_routing(ended)}"
        steps.append(StoryStep(at=claimed, title="Claimed", text=text, seconds=took))
    if metadata.chunks_total is not None:
        steps.append(
            StoryStep(at=None, title=f"{counted(metadata.chunks_total, 'chunk')} transcribed", text=_chunks_text(ended))
        )
    if isinstance(ended, CompletedEvent):
        steps.append(StoryStep(at=ended.occurred_at, title="Artefacts written", text=_written(ended)))
    steps += _faults(result.marker.faults)
    steps.append(StoryStep(at=concluded, title=result.marker.outcome.capitalize(), text="events published"))
    if isinstance(ended, FailedEvent):
        steps[-1] = StoryStep(
            at=concluded, title="Failed", text=f"dead letter {ended.error.support_reference}", is_trouble=True
        )
    return steps


def _repeated(deliveries: int | None) -> str:
    return f", delivery {deliveries}" if deliveries and deliveries > 1 else ""


def _routing(ended: CompletedEvent | FailedEvent) -> str:
    metadata = ended.transcription_metadata
    return f"; method {_word(metadata.method_used)} ({metadata.routing_reason})" if metadata.routing_reason else ""


def _chunks_text(ended: CompletedEvent | FailedEvent) -> str:
    metadata = ended.transcription_metadata
    reasons = ", ".join(f"{count} because of {code}" for code, count in metadata.fallback_reasons.items())
    parts = [f"{metadata.chunks_fallback or 0} fell back to Deepgram" + (f": {reasons}" if reasons else "")]
    if metadata.chunks_resumed:
        parts.append(f"{metadata.chunks_resumed} resumed from checkpoints")
    return "; ".join(parts)


def _written(ended: CompletedEvent) -> str:
    metadata = ended.transcription_metadata
    return f"{counted(metadata.words_count, 'word')} in {counted(metadata.paragraphs_count, 'paragraph')}"


def _cost_lines(cost: CostEvent | None) -> Sequence[CostLine]:
    lines = []
    for engine in cost.engines if cost else ():
        match engine:
            case ParakeetCost():
                text = f"{engine.gpu_seconds:.1f} engine s for {_length(engine.audio_seconds)} of audio"
            case DeepgramCost():
                text = f"{_length(engine.audio_seconds)} of audio, {counted(engine.requests, 'request')}"
            case _:
                text = ""
        lines.append(CostLine(engine=str(engine.engine), usd=engine.usd, text=text))
    return lines


def _facts(ended: CompletedEvent | FailedEvent | None, result: JobResult) -> Sequence[tuple[str, str]]:
    facts = [("Run", f"{result.marker.run}" + (", the first" if result.marker.run == 0 else ""))]
    if ended is not None:
        metadata = ended.transcription_metadata
        facts += [
            ("Method", f"{_word(metadata.method_used)}, asked for {_word(metadata.method_requested)}"),
            ("Model", metadata.model_name or "none"),
            ("Device", metadata.device_used or "none"),
            ("Worker", metadata.worker or "not known"),
        ]
    if isinstance(ended, CompletedEvent):
        keyterms = {
            "Keyterms found": ended.transcription_metadata.keyterms_found,
            "Keyterms the model cannot spell": ended.transcription_metadata.keyterms_unspeakable,
        }
        facts += [(name, ", ".join(terms)) for name, terms in keyterms.items() if terms]
        if (gaps := ended.transcription_metadata.gaps) and gaps.found:
            facts.append(("Gaps in speech", f"{gaps.found} found, {gaps.mended} mended, {gaps.left} left"))
    if (letter := result.dead_letter) is not None:
        facts += [("Attempts", str(letter.attempts)), ("Crashes", str(letter.crashes))]
    facts += [(f"Event {event.event_type.value.rpartition('.')[2]}", event.event_id) for event in result.events]
    return facts


def _artefacts(ended: CompletedEvent | FailedEvent | None) -> Sequence[tuple[str, str, int]]:
    if not isinstance(ended, CompletedEvent):
        return ()
    named = ((name, getattr(ended.artefacts, name)) for name in Artefacts.model_fields)
    return [(name, artefact.uri, artefact.bytes) for name, artefact in named if artefact is not None]


# a job without a result


def _unfinished(traces: JobTraces, now: datetime) -> JobStory:
    running, claim = traces.running, traces.claim
    is_held = claim.held if claim is not None else running is not None
    return JobStory(
        job_id=traces.job_id,
        video_id=running.video_id if running else traces.job_id,
        status="running" if is_held else "waiting",
        lede=_progress(running) if running and is_held else _standstill(traces, now),
        segments=running.segments if running else _checkpoint_segments(traces.checkpoints),
        steps=_unfinished_steps(traces, now),
        facts=_claim_facts(claim),
    )


def _progress(running: RunningFacts) -> str:
    if not running.audio_seconds:
        return f"In progress for {_length(running.seconds)}."
    return f"{running.percent} % of {_length(running.audio_seconds)} of audio in {_length(running.seconds)}."


def _standstill(traces: JobTraces, now: datetime) -> str:
    claim = traces.claim
    if traces.running is not None:
        return f"Parked by {traces.worker}: it waits for a service that is down."
    if claim is None:
        return "No worker has claimed it; checkpoints of an earlier attempt are there."
    if claim.held:
        age = _length((now - claim.heartbeat_at).total_seconds())
        return f"Claimed by {claim.owner}, whose last heartbeat is {age} old."
    return "Given back by its last worker; it waits for its next delivery."


def _checkpoint_segments(checkpoints: Sequence[tuple[Checkpoint, datetime]]) -> Sequence[Segment]:
    engines = {chunk.index: chunk.engine for chunk, _ in checkpoints}
    return [
        segment_of(engines[index]) if index in engines else "waiting" for index in range(max(engines, default=-1) + 1)
    ]


def _unfinished_steps(traces: JobTraces, now: datetime) -> Sequence[StoryStep]:
    steps = []
    running, claim = traces.running, traces.claim
    if running is not None:
        claimed = now - timedelta(seconds=running.seconds)
        published = claimed - timedelta(seconds=running.queued_seconds)
        steps.append(StoryStep(at=published, title="Published", seconds=running.queued_seconds))
        by = f"by {traces.worker}{_repeated(running.deliveries)}"
        steps.append(StoryStep(at=claimed, title="Claimed", text=by))
    elif claim is not None:
        steps.append(StoryStep(at=claim.first_seen, title="Claimed", text=f"by {claim.owner}"))
    for chunk, at in traces.checkpoints:
        why = f" because of {chunk.fallback_reason.value}" if chunk.fallback_reason else ""
        steps.append(
            StoryStep(
                at=at, title=f"Chunk {chunk.index + 1}", text=f"by {chunk.engine}{why}", seconds=chunk.engine_seconds
            )
        )
    return [*steps, *_faults(claim.faults if claim is not None else ())]


def _faults(faults: Sequence[AttemptFault]) -> Sequence[StoryStep]:
    return [StoryStep(at=fault.at, title="Fault", text=fault.reason, is_trouble=True) for fault in faults]


def _claim_facts(claim: ClaimRecord | None) -> Sequence[tuple[str, str]]:
    if claim is None:
        return ()
    return [
        ("Run", str(claim.run)),
        ("Deliveries", str(claim.deliveries)),
        ("Failed attempts", str(claim.failures)),
        ("Crashes", str(claim.crashes)),
        ("Owner", claim.owner if claim.held else "none"),
    ]


def _word(member: object) -> str:
    return str(getattr(member, "value", member) or "none")


def _length(seconds: float) -> str:
    return str(span(seconds))
