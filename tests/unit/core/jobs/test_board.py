from datetime import UTC, datetime, timedelta

from schemas.codes import ErrorCode
from worker.core.jobs.board import KEPT_JOBS, Board, Entry
from worker.core.jobs.reporting import Account
from worker.core.jobs.transcription import Progress

NOW = datetime(2026, 11, 28, 14, 0, tzinfo=UTC)


def account(progress: Progress | None = None) -> Account:
    return Account(
        worker="w-1",
        started_at=NOW,
        began=100.0,
        queued_seconds=0.5,
        chunk_seconds=600,
        expected_seconds=1900.0,
        progress=progress,
    )


def test_a_running_job_tells_the_engine_of_each_chunk_in_the_order_of_the_audio() -> None:
    progress = Progress(
        chunks_done=2,
        chunks_total=None,
        audio_seconds_done=1200.0,
        engines={2: "deepgram", 0: "parakeet"},
        in_work=frozenset({1}),
    )
    board = Board()

    with board.showing(Entry(job_id="j", video_id="v", account=account(progress))):
        (job,) = board.running(now=110.0)

    assert job.chunks == ("parakeet", None, "deepgram", None)
    assert job.chunks_in_work == (1,)
    assert job.chunks_total == 4


def test_a_job_that_has_not_begun_has_as_many_chunks_as_its_container_promises() -> None:
    board = Board()

    with board.showing(Entry(job_id="j", video_id="v", account=account())):
        (job,) = board.running(now=110.0)

    assert job.chunks == (None, None, None, None)


def test_the_newest_ended_jobs_are_kept_and_the_oldest_dropped() -> None:
    board = Board()

    for number in range(KEPT_JOBS + 1):
        board.failed(f"j{number}", account(), ErrorCode.AUDIO_NOT_FOUND, NOW + timedelta(seconds=number))

    assert [job.job_id for job in board.ended] == [f"j{number}" for number in range(1, KEPT_JOBS + 1)]
    assert board.last is not None
    assert board.last.code == "AUDIO_NOT_FOUND"
