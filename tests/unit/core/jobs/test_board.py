from dataclasses import replace
from datetime import UTC, datetime, timedelta

from schemas.codes import ErrorCode
from schemas.job import TranscriptionJob
from schemas.state import NO_WASTE
from tests.support.jobs.harness import PRICES
from worker.core.costs.bill import bill
from worker.core.jobs.board import KEPT_JOBS, Board
from worker.core.jobs.phases import Arrival, Ended, Received, Routed, Spent, Understood
from worker.core.jobs.routing import Route
from worker.core.jobs.transcription import Progress
from worker.ports import EngineFacts

NOW = datetime(2026, 11, 28, 14, 0, tzinfo=UTC)
RECEIVED = Received(receipt=Arrival(worker="w-1", started_at=NOW, began=100.0, queued_seconds=0.5))
ENGINE = EngineFacts(model_name="m", model_fingerprint="f", device_name="cpu", uses_gpu=False, languages=frozenset())


def understood() -> Understood:
    return RECEIVED.understood(TranscriptionJob(job_id="j", video_id="v", audio_uri="gs://audio/a.mp3"))


def routed() -> Routed:
    claimed = understood().claimed(deliveries=2, waste=NO_WASTE)
    return claimed.routed(Route(method="hybrid", reason="test"), expected_seconds=1900.0, chunk_seconds=600)


def test_a_running_job_lists_the_engine_of_each_chunk_in_the_order_of_the_audio() -> None:
    progress = Progress(
        chunks_done=2,
        chunks_total=None,
        audio_seconds_done=1200.0,
        engines={2: "deepgram", 0: "parakeet"},
        in_work=frozenset({1}),
    )
    board = Board()

    transcribing = replace(routed().transcribing(ENGINE, paid_model="nova-3"), progress=progress)

    with board.showing(lambda: transcribing):
        (job,) = board.running(now=110.0)

    assert (job.job_id, job.video_id, job.method, job.deliveries, job.seconds) == ("j", "v", "hybrid", 2, 10.0)
    assert job.chunks == ("parakeet", None, "deepgram", None)
    assert job.chunks_in_work == (1,)
    assert job.chunks_total == 4


def test_a_job_that_has_not_begun_has_as_many_chunks_as_its_container_promises() -> None:
    board = Board()

    with board.showing(routed):
        (job,) = board.running(now=110.0)

    assert job.chunks == (None, None, None, None)


def test_a_job_that_is_not_routed_yet_shows_the_method_of_its_message() -> None:
    board = Board()

    with board.showing(understood):
        (job,) = board.running(now=110.0)

    assert (job.job_id, job.method, job.audio_seconds, job.chunks, job.deliveries) == ("j", None, None, (), None)


def test_the_newest_ended_jobs_are_kept_and_the_oldest_dropped() -> None:
    board = Board()
    ended = Ended(phase=RECEIVED, spent=Spent(), seconds=1.0, cost=bill((), 0.0, PRICES))

    for number in range(KEPT_JOBS + 1):
        board.failed(f"j{number}", ended, ErrorCode.AUDIO_NOT_FOUND, NOW + timedelta(seconds=number))

    assert [job.job_id for job in board.ended] == [f"j{number}" for number in range(1, KEPT_JOBS + 1)]
    assert board.ended[-1].code == "AUDIO_NOT_FOUND"
