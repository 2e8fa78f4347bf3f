import json
from datetime import UTC, datetime, timedelta

import pytest

from schemas.codes import ErrorCode
from schemas.state import AttemptFault, Checkpoint, ClaimRecord
from tests.support.jobs.ended_jobs import completed, cost_of
from tests.support.jobs.messages import TEN_O_CLOCK
from tests.support.workers.console import run
from tests.support.workers.pages import result_of
from worker.app.page.story import JobTraces, story_of
from worker.commands.job import SeenJob, document, show

CLAIM = ClaimRecord(
    job_id="j",
    fingerprint="f",
    run=0,
    owner="vm-1",
    claim_id="c",
    held=True,
    failures=1,
    crashes=2,
    last_fault="the GPU was lost",
    faults=(AttemptFault(at=TEN_O_CLOCK, reason="the GPU was lost [red]"),),
    deliveries=4,
    first_seen=TEN_O_CLOCK,
    heartbeat_at=TEN_O_CLOCK,
)


def chunk(index: int, *, fell_back: bool = False) -> tuple[Checkpoint, datetime]:
    found = Checkpoint(
        index=index,
        start_sample=0,
        end_sample=1,
        engine="deepgram" if fell_back else "parakeet",
        windows=(),
        engine_seconds=2.5,
        audio_seconds=600.0,
        fallback_reason=ErrorCode.GPU_MEMORY_ERROR if fell_back else None,
    )
    return found, TEN_O_CLOCK + timedelta(seconds=index)


def seen(traces: JobTraces) -> SeenJob:
    return SeenJob(traces=traces, story=story_of(traces, TEN_O_CLOCK + timedelta(minutes=1)))


@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_a_job_in_progress_shows_claim_chunks_and_faults_within_the_terminal(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    show(seen(JobTraces(job_id="j", claim=CLAIM, checkpoints=[chunk(0), chunk(2, fell_back=True)])))

    lines = capsys.readouterr().out.splitlines()
    told = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= int(columns)
    assert "Claimed by vm-1, whose last heartbeat is 1 min old." in told
    assert "3 chunks: 1 parakeet, 1 deepgram, 1 waiting" in told
    assert "10:00:00 Fault the GPU was lost [red]" in told
    assert "…" not in told


def test_a_completed_job_has_the_engine_of_each_chunk_after_its_checkpoints_are_gone() -> None:
    result = result_of(completed("a", fallback=1), cost_of("a", parakeet_hours=1))
    marker = result.marker.model_copy(update={"engines": ("parakeet", "deepgram")})
    traces = JobTraces(job_id="a", result=type(result)(marker=marker, events=result.events))

    told = json.loads(json.dumps(document(seen(traces))))

    assert told["chunks"] == ["parakeet", "deepgram"]
    assert [event["event_type"] for event in told["events"]] == ["transcription.cost", "transcription.completed"]
    assert (told["claim"], told["dead_letter"], told["replay"]) == (None, None, None)


def test_the_json_of_a_held_job_has_its_claim() -> None:
    told = document(seen(JobTraces(job_id="j", claim=CLAIM, checkpoints=[chunk(0)])))

    assert (told["status"], told["claim"]["deliveries"], told["claim"]["last_fault"]) == (
        "running",
        4,
        CLAIM.last_fault,
    )
    assert told["checkpoints"][0]["written_at"] == datetime(2026, 11, 22, 10, tzinfo=UTC).isoformat()


def test_the_log_query_as_json_is_one_document() -> None:
    told = run("job", "vod-1", "--log", "--json", environment={"PROJECT_ID": "my-project"})

    document = json.loads(told.stdout)
    assert document["query"] == 'labels.job_id="vod-1"'
    assert "--project=my-project" in document["command"]


def test_the_log_query_needs_no_bucket() -> None:
    told = run("job", "vod-1", "--log", environment={"PROJECT_ID": "my-project"})

    query, command = told.stdout.splitlines()
    assert (told.exit_code, query) == (0, 'labels.job_id="vod-1"')
    assert command.startswith("gcloud logging read 'labels.job_id=\"vod-1\"' --project=my-project --freshness=30d")


@pytest.mark.parametrize(("words", "reason"), [(["vod-1"], "STATE_BUCKET"), (["../x"], "no job has such an id")])
def test_what_cannot_be_looked_up_is_a_usage_error(words: list[str], reason: str) -> None:
    told = run("job", *words, environment={})

    assert told.exit_code == 2
    assert reason in told.stderr
