from dataclasses import replace
from datetime import timedelta

from schemas.codes import ErrorCode
from schemas.events import Gaps
from schemas.state import ClaimRecord
from tests.support.jobs.ended_jobs import completed, cost_of, failed
from tests.support.jobs.messages import TEN_O_CLOCK
from tests.support.workers.pages import health, result_of
from worker.app.page.story import JobTraces, story_of

NOW = TEN_O_CLOCK + timedelta(minutes=1)


def test_a_completed_job_lists_its_steps_costs_and_artefacts() -> None:
    result = result_of(completed("a", fallback=1), cost_of("a", parakeet_hours=1, deepgram_hours=0.1))

    story = story_of(JobTraces(job_id="a", result=result), NOW)

    assert story.status == "completed"
    assert [step.title for step in story.steps] == [
        "Published",
        "Claimed",
        "6 chunks transcribed",
        "Artefacts written",
        "Completed",
    ]
    assert "1 because of GPU_MEMORY_ERROR" in story.steps[2].text
    assert [line.engine for line in story.costs] == ["parakeet", "deepgram"]
    assert [name for name, _, _ in story.artefacts] == ["words", "paragraphs", "transcript"]
    assert story.is_concluded


def test_a_completed_job_shows_its_keyterms_where_it_named_any() -> None:
    event = completed("a")
    metadata = event.transcription_metadata.model_copy(
        update={"keyterms_found": ("Harbor Nine", "Zed"), "keyterms_unspeakable": ("名前",)}
    )

    with_keyterms = story_of(
        JobTraces(job_id="a", result=result_of(event.model_copy(update={"transcription_metadata": metadata}))), NOW
    )
    without = story_of(JobTraces(job_id="a", result=result_of(event)), NOW)

    assert ("Keyterms found", "Harbor Nine, Zed") in with_keyterms.facts
    assert ("Keyterms the model cannot spell", "名前") in with_keyterms.facts
    assert not any("Keyterms" in name for name, _ in without.facts)


def test_a_completed_job_shows_its_gaps_where_it_had_any() -> None:
    event = completed("a")
    metadata = event.transcription_metadata.model_copy(update={"gaps": Gaps(found=3, mended=2, left=1)})

    with_gaps, without = (
        story_of(JobTraces(job_id="a", result=result_of(one)), NOW)
        for one in (event.model_copy(update={"transcription_metadata": metadata}), event)
    )

    assert ("Gaps in speech", "3 found, 2 mended, 1 left") in with_gaps.facts
    assert not any("Gaps" in name for name, _ in without.facts)


def test_a_failed_job_shows_reason_remedy_and_the_command_that_replays_it() -> None:
    story = story_of(JobTraces(job_id="a", result=result_of(failed("a"))), NOW)

    assert story.status == "failed"
    assert story.problem is not None
    assert story.problem.remedy == "upload the audio, then replay the job"
    assert story.problem.command == "klipstream-worker dlq replay d1 --execute"


def test_a_running_job_shows_its_chunks_and_its_worker() -> None:
    running = health().jobs.running[0]

    story = story_of(JobTraces(job_id="j1", running=running, worker="w-1"), NOW)

    assert story.status == "running"
    assert story.segments == ["parakeet", "deepgram", "working"]
    assert story.steps[-1].text == "by w-1"
    assert not story.is_concluded


def test_a_parked_job_waits_although_a_worker_has_its_message() -> None:
    claim = ClaimRecord.model_validate(
        {
            "job_id": "j1", "fingerprint": "f", "run": 0, "claim_id": "c", "owner": "w-1", "held": False, "beat": 1,
            "heartbeat_at": NOW, "first_seen": NOW, "deliveries": 1, "failures": 0, "crashes": 0,
        }
    )  # fmt: skip

    story = story_of(JobTraces(job_id="j1", running=health().jobs.running[0], worker="w-1", claim=claim), NOW)

    assert (story.status, story.lede) == ("waiting", "Parked by w-1: it waits for a service that is down.")


def test_an_expired_job_is_replayed_without_its_time() -> None:
    result = result_of(failed("a"))
    expired = replace(result, marker=result.marker.model_copy(update={"code": ErrorCode.EXPIRED}))

    problem = story_of(JobTraces(job_id="a", result=expired), NOW).problem

    assert problem is not None
    assert problem.command == "klipstream-worker dlq replay d1 --set expires_at=null --execute"


def test_a_job_that_runs_again_is_running_whatever_its_last_result_was() -> None:
    running = health().jobs.running[0]

    assert story_of(JobTraces(job_id="j1", running=running, result=result_of(failed("j1"))), NOW).status == "running"


def test_without_the_bucket_an_ended_job_has_what_its_worker_lists() -> None:
    ended = health().last_jobs[0].model_copy(update={"code": "AUDIO_NOT_FOUND", "cost_usd": 0.01})

    story = story_of(JobTraces(job_id="j0", ended=ended), NOW)

    assert (story.status, story.lede) == ("failed", "Ended after 9.0 s.")
    assert story.problem is not None
    assert story.problem.title == "Failed: AUDIO_NOT_FOUND."
    assert story.problem.command == ""


def test_nothing_is_known_of_a_job_without_traces() -> None:
    assert not JobTraces(job_id="a").is_known
