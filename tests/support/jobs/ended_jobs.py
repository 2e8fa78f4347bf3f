"""Events of jobs that have ended, with figures that a test can add up."""

from collections.abc import Sequence
from datetime import datetime

from schemas.codes import Method
from schemas.events import (
    Artefacts,
    Baseline,
    CompletedEvent,
    CostEvent,
    DeepgramCost,
    DeepgramRates,
    EngineCost,
    FailedEvent,
    Flags,
    ParakeetCost,
    ParakeetRates,
    StoredArtefact,
    TranscriptionMetadata,
)
from schemas.job import JobEcho
from tests.support.jobs.messages import TEN_O_CLOCK, failed_event

RATES = ParakeetRates(gpu_usd_per_second=0.0001867, vcpu_usd_per_second=0.000011244, gib_usd_per_second=0.000001235)
FILE = StoredArtefact(uri="gs://out/x", generation=1, crc32c="", bytes=1)


def cost_of(
    job_id: str | None = "job-1",
    *,
    at: datetime = TEN_O_CLOCK,
    run: int = 0,
    parakeet_hours: float = 0.0,
    deepgram_hours: float = 0.0,
    failed: bool = False,
) -> CostEvent:
    """Parakeet's hours at 0.02 USD each, Deepgram's at 0.27."""
    engines: list[EngineCost] = []
    if parakeet_hours:
        seconds = parakeet_hours * 3600
        engines.append(
            ParakeetCost(audio_seconds=seconds, gpu_seconds=seconds / 45, usd=0.02 * parakeet_hours, rates=RATES)
        )
    if deepgram_hours:
        engines.append(
            DeepgramCost(
                audio_seconds=deepgram_hours * 3600,
                requests=1,
                request_ids=("r1",),
                usd=0.27 * deepgram_hours,
                rates=DeepgramRates(usd_per_minute=0.0045),
            )
        )
    hours, usd = parakeet_hours + deepgram_hours, sum(engine.usd for engine in engines)
    return CostEvent(
        event_id=f"cost-{job_id}-{run}-{failed}",
        occurred_at=at,
        run=run,
        job=JobEcho(job_id=job_id, video_id="1"),
        outcome="failed" if failed else "completed",
        audio_seconds=hours * 3600,
        price_book="2026-11",
        usd_total=usd,
        engines=tuple(engines),
        baseline=Baseline(usd=0.27 * hours),
        savings_usd=0.27 * hours - usd,
        savings_percent=100 * (1 - usd / (0.27 * hours)) if hours else 0.0,
    )


def completed(job_id: str = "job-1", *, run: int = 0, chunks: int = 6, fallback: int = 0) -> CompletedEvent:
    return CompletedEvent(
        event_id=f"completed-{job_id}-{run}",
        occurred_at=TEN_O_CLOCK,
        run=run,
        job=JobEcho(job_id=job_id, video_id="1"),
        artefacts=Artefacts(words=FILE, paragraphs=FILE, transcript=FILE),
        flags=Flags(),
        transcription_metadata=_metadata(chunks, fallback),
    )


def _metadata(chunks: int, fallback: int) -> TranscriptionMetadata:
    return TranscriptionMetadata(
        method_requested=Method.AUTO,
        method_used=Method.HYBRID if fallback else Method.PARAKEET,
        routing_reason="cost_optimization",
        model_name="parakeet",
        gpu_used=True,
        device_used="NVIDIA L4",
        fallback_used=bool(fallback),
        fallback_reasons={"GPU_MEMORY_ERROR": fallback} if fallback else {},
        chunks_total=chunks,
        chunks_fallback=fallback,
        chunks_resumed=0,
        words_count=1,
        paragraphs_count=1,
        audio_duration_seconds=3600.0,
        processing_time_seconds=60.0,
        queue_time_seconds=1.0,
        processing_speed_ratio=60.0,
        cost_estimate_usd=0.02,
        deliveries=1,
        worker="w",
    )


def failed(job_id: str = "job-1") -> FailedEvent:
    return failed_event(f"failed-{job_id}", job_id=job_id)


def json_lines(events: Sequence[CompletedEvent | CostEvent | FailedEvent]) -> str:
    return "".join(event.model_dump_json() + "\n" for event in events)
