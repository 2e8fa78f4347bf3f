"""Messages to test with: one of each kind, and hypothesis strategies for any."""

import string
from datetime import datetime, timezone
from typing import Any

from hypothesis import strategies as st

from schemas.codes import CaptionFormat, ErrorCode, ErrorType, Method
from schemas.dead_letter import DeadLetter, OriginalMessage
from schemas.events import (
    Artefacts,
    Baseline,
    CompletedEvent,
    CostEvent,
    DeepgramCost,
    DeepgramRates,
    FailedEvent,
    Failure,
    Flags,
    ParakeetCost,
    ParakeetRates,
    PartialMetadata,
    ProgressEvent,
    StoredArtefact,
    TranscriptionMetadata,
)
from schemas.job import JobEcho, TranscriptionConfig, TranscriptionJob

TEN_O_CLOCK = datetime(2026, 11, 22, 10, tzinfo=timezone.utc)


def job_document(**changes: Any) -> dict[str, Any]:
    """The smallest job there is, as a publisher writes it, with changes."""
    return {"job_id": "vod-1", "video_id": "1", "audio_uri": "gs://audio-bucket/1.mp3", **changes}


def failed_event(event_id: str = "e1", *, job_id: str | None = "vod-1", **changes: Any) -> FailedEvent:
    return FailedEvent(
        event_id=event_id,
        occurred_at=TEN_O_CLOCK,
        run=0,
        job=JobEcho(job_id=job_id, video_id="1", **changes),
        error=Failure(
            error_type=ErrorType.PERMANENT,
            error_code=ErrorCode.AUDIO_NOT_FOUND,
            error_message="no object at gs://audio-bucket/1.mp3",
            is_retryable=False,
            suggested_action="upload the audio, then replay the job",
            support_reference="d1",
        ),
    )


def progress_event(event_id: str = "p1", *, job_id: str = "vod-1") -> ProgressEvent:
    return ProgressEvent(
        event_id=event_id,
        occurred_at=TEN_O_CLOCK,
        run=0,
        job=JobEcho(job_id=job_id, video_id="1"),
        chunks_done=1,
        chunks_total=None,
        audio_seconds_done=600,
        method=Method.PARAKEET,
        eta_seconds=None,
    )


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_ALPHANUMERIC = string.ascii_letters + string.digits
ids = st.builds(
    str.__add__, st.sampled_from(_ALPHANUMERIC), st.text(st.sampled_from(_ALPHANUMERIC + "._-"), max_size=127)
)
counts = st.integers(0, 2**53)
amounts = st.floats(0, 1e9)
money = st.floats(-1e6, 1e6)
moments = st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=st.just(timezone.utc))  # noqa: DTZ001 - bounds are naive
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=4,
)
echoed = {
    "created_at": json_values,
    "priority": json_values,
    "convex_video_id": json_values,
    "team_id": json_values,
    "callback_url": json_values,
    "metadata": st.dictionaries(text, json_values, max_size=3),
}
echoes = st.builds(JobEcho, job_id=st.none() | ids, video_id=st.none() | ids, **echoed)
segments = st.text(st.sampled_from(_ALPHANUMERIC + " _äß#?%-"), min_size=1, max_size=12)
object_uris = st.lists(segments, min_size=1, max_size=4).map(lambda parts: "gs://bucket-1/" + "/".join(parts))
prefix_uris = st.lists(segments, max_size=4).map(lambda parts: "gs://bucket-2/" + "".join(f"{part}/" for part in parts))
methods = st.sampled_from(Method)

jobs = st.builds(
    TranscriptionJob,
    job_id=ids,
    video_id=ids,
    audio_uri=object_uris,
    audio_generation=st.none() | st.integers(1, 2**63 - 1),
    output_uri_prefix=st.none() | prefix_uris,
    language=st.sampled_from(["en", "en-US", "pt-BR", "zh-Hant-TW", "de-CH-1996", "yue"]),
    force_method=methods,
    transcription_config=st.builds(
        TranscriptionConfig, enable_gpu=st.booleans(), enable_fallback=st.booleans(), cost_optimization=st.booleans()
    ),
    outputs=st.lists(st.sampled_from(CaptionFormat)),
    keyterms=st.lists(segments, max_size=3).map(lambda terms: [term for term in terms if term.strip()]),
    duration_seconds=st.none() | amounts,
    **echoed,
)

_heads = {"event_id": text, "occurred_at": moments, "run": counts, "job": echoes}
_stored = st.builds(StoredArtefact, bytes=counts)
completed_events = st.builds(
    CompletedEvent,
    **_heads,
    artefacts=st.builds(
        Artefacts,
        words=_stored,
        paragraphs=_stored,
        transcript=_stored,
        srt=st.none() | _stored,
        vtt=st.none() | _stored,
    ),
    flags=st.builds(Flags),
    transcription_metadata=st.builds(
        TranscriptionMetadata,
        method_requested=methods,
        method_used=methods,
        fallback_reasons=st.dictionaries(text, counts, max_size=3),
        audio_duration_seconds=amounts,
        processing_time_seconds=amounts,
        queue_time_seconds=amounts,
        processing_speed_ratio=amounts,
        cost_estimate_usd=money,
    ),
)
failed_events = st.builds(
    FailedEvent,
    **_heads,
    error=st.builds(Failure, error_code=st.sampled_from(ErrorCode) | text, error_type=st.sampled_from(ErrorType)),
    transcription_metadata=st.builds(PartialMetadata, method_requested=st.none() | methods, worker=st.none() | text),
)
_engine = {"audio_seconds": amounts, "usd": money}
_parakeet_rates = st.builds(
    ParakeetRates, gpu_usd_per_second=amounts, vcpu_usd_per_second=amounts, gib_usd_per_second=amounts
)
_deepgram_rates = st.builds(DeepgramRates, usd_per_minute=amounts)
_engines = st.builds(ParakeetCost, **_engine, gpu_seconds=amounts, rates=_parakeet_rates) | st.builds(
    DeepgramCost, **_engine, rates=_deepgram_rates
)
cost_events = st.builds(
    CostEvent,
    **_heads,
    audio_seconds=amounts,
    usd_total=money,
    engines=st.lists(_engines, max_size=2).map(tuple),
    baseline=st.builds(Baseline, usd=money),
    savings_usd=money,
    savings_percent=money,
)
progress_events = st.builds(
    ProgressEvent,
    **_heads,
    chunks_total=st.none() | counts,
    audio_seconds_done=amounts,
    method=methods,
    eta_seconds=st.none() | amounts,
)
events = completed_events | failed_events | cost_events | progress_events

dead_letters = st.builds(
    DeadLetter,
    code=st.sampled_from(ErrorCode),
    original=st.builds(
        OriginalMessage.of,
        st.binary(max_size=50),
        st.dictionaries(text, text, max_size=3),
        message_id=text,
        publish_time=moments,
        subscription=text,
    ),
    first_seen=moments,
    failed_at=moments,
)
