"""A failure reports what the last phase of the attempt knew."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.codes import ErrorCode, Method
from schemas.job import TranscriptionJob
from schemas.state import Checkpoint, Waste
from tests.support.jobs.harness import PRICES
from worker.core.costs.bill import bill
from worker.core.jobs.phases import Arrival, Ended, Received, Spent
from worker.core.jobs.reporting import known_of
from worker.core.jobs.routing import Route
from worker.ports import EngineFacts

JOB = TranscriptionJob(job_id="j", video_id="v", audio_uri="gs://audio/a.mp3", force_method=Method.HYBRID)
WASTE = Waste(engine_seconds=2.0)
RECEIPT = Arrival(worker="w-1", started_at=datetime(2026, 11, 28, tzinfo=UTC), began=1.0, queued_seconds=0.5)
GPU = EngineFacts(model_name="m", model_fingerprint="f", device_name="L4", uses_gpu=True, languages=frozenset())

RECEIVED = Received(receipt=RECEIPT)
UNDERSTOOD = RECEIVED.understood(JOB)
CLAIMED = UNDERSTOOD.claimed(deliveries=3, waste=WASTE)
ROUTED = CLAIMED.routed(Route(method="hybrid", reason="force_method"), expected_seconds=1250.0, chunk_seconds=600.0)
TRANSCRIBING = ROUTED.transcribing(GPU, paid_model="nova-3")


def chunk(index: int, engine: str, **fields: Any) -> Checkpoint:
    place = {"index": index, "start_sample": 0, "end_sample": 16_000, "audio_seconds": 600.0}
    return Checkpoint(**place, engine=engine, windows=(), engine_seconds=0.0, **fields)


BOTH = (chunk(0, "parakeet"), chunk(1, "deepgram", fallback_reason=ErrorCode.GPU_MEMORY_ERROR))


def known(phase: Received) -> dict[str, Any]:
    cost = bill(phase.spent.chunks, phase.spent.audio_seconds or 0.0, PRICES)
    return known_of(Ended(phase=phase, spent=phase.spent, seconds=4.0, cost=cost)).model_dump(mode="json")


NOTHING = {
    "method_requested": None,
    "method_used": None,
    "routing_reason": None,
    "model_name": None,
    "gpu_used": False,
    "device_used": None,
    "fallback_used": False,
    "fallback_reasons": {},
    "chunks_total": None,
    "chunks_fallback": 0,
    "chunks_resumed": 0,
    "audio_duration_seconds": None,
    "processing_time_seconds": 4.0,
    "queue_time_seconds": 0.5,
    "cost_estimate_usd": 0.0,
    "deliveries": None,
    "worker": "w-1",
}


@pytest.mark.parametrize(
    ("phase", "more"),
    [
        (RECEIVED, {}),
        (UNDERSTOOD, {"method_requested": "hybrid"}),
        (CLAIMED, {"method_requested": "hybrid", "deliveries": 3}),
        (
            ROUTED,
            {"method_requested": "hybrid", "deliveries": 3, "routing_reason": "force_method", "method_used": "hybrid"},
        ),
    ],
)
def test_a_failure_reports_what_its_last_phase_knew(phase: Received, more: dict[str, Any]) -> None:
    assert known(phase) == {**NOTHING, **more}


def test_a_failure_after_the_first_chunks_reports_them() -> None:
    phase = replace(TRANSCRIBING, finished=BOTH, chunks_resumed=1)

    told = known(phase)

    assert told["model_name"] == "m"
    assert (told["gpu_used"], told["device_used"]) == (True, "L4")
    assert (told["fallback_used"], told["fallback_reasons"]) == (True, {"GPU_MEMORY_ERROR": 1})
    assert (told["chunks_fallback"], told["chunks_resumed"], told["audio_duration_seconds"]) == (1, 1, 1200.0)
    assert phase.spent == Spent(chunks=BOTH, audio_seconds=1200.0, waste=WASTE)


def test_the_method_is_that_of_the_chunks_where_there_are_any() -> None:
    assert TRANSCRIBING.method_used(()) is Method.HYBRID
    assert TRANSCRIBING.method_used(BOTH[:1]) is Method.PARAKEET
    assert RECEIVED.method_used(BOTH[1:]) is Method.DEEPGRAM


def test_chunks_that_another_worker_paid_for_are_deepgrams_on_a_worker_without_a_key() -> None:
    keyless = replace(TRANSCRIBING, paid_model=None)

    assert keyless.model_name(BOTH[1:]) == "deepgram"
    assert TRANSCRIBING.model_name(BOTH[1:]) == "nova-3"


def test_a_job_that_is_claimed_again_begins_without_its_route() -> None:
    again = TRANSCRIBING.claimed(deliveries=4, waste=WASTE)

    assert again == UNDERSTOOD.claimed(deliveries=4, waste=WASTE)


def test_the_count_of_chunks_is_estimated_from_the_duration_of_the_container() -> None:
    assert ROUTED.chunks_expected == 3
    assert replace(ROUTED, expected_seconds=None).chunks_expected is None
    assert replace(ROUTED, expected_seconds=2 * (ROUTED.expected_seconds or 0), channels=2).chunks_expected == 6
