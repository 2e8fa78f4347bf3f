from datetime import UTC, datetime, timedelta

import pytest

from tests.support.jobs.ended_jobs import completed, cost_of, failed
from tests.support.jobs.messages import TEN_O_CLOCK
from tests.support.workers.pages import health, result_of, seen_worker
from worker.adapters.web.health_document import RunningFacts, SeenWorker, read_health
from worker.app.page.overview import overview_of

NOW = TEN_O_CLOCK + timedelta(hours=1)
SILENT = SeenWorker(url="http://w-2:8080", health=None, problem="no answer")


def test_the_headline_says_how_many_workers_are_ready() -> None:
    sick = seen_worker(status="unhealthy", reason="TEMP_DIR is full")

    assert overview_of([seen_worker()], None, NOW).headline == "The worker is ready"
    assert overview_of([seen_worker(status="loading")], None, NOW).headline == "The worker is loading its model"
    assert overview_of([], None, NOW).headline == "No worker is named"
    assert overview_of([SILENT], None, NOW).headline == "The worker does not answer"
    assert overview_of([seen_worker(), sick, SILENT], None, NOW).headline == "1 of 3 workers are ready"


def test_what_is_wrong_comes_with_its_reason_and_a_command() -> None:
    sick = seen_worker(status="unhealthy", reason="TEMP_DIR is full")

    problems = overview_of([sick, SILENT], None, NOW).problems

    assert [problem.title for problem in problems] == [
        "w-1 takes no jobs: TEMP_DIR is full.",
        "http://w-2:8080: no answer.",
    ]
    assert all(problem.remedy and problem.command for problem in problems)


def test_a_reason_that_ends_in_a_full_stop_gets_no_second_one() -> None:
    sick = seen_worker(status="unhealthy", reason="the server answered: Not found.")

    (problem,) = overview_of([sick], None, NOW).problems

    assert problem.title == "w-1 takes no jobs: the server answered: Not found."


@pytest.mark.parametrize(
    ("backlog", "told"),
    [
        (0, "No message waits."),
        (1, "1 message waits, the oldest for 42 s."),
        (2, "2 messages wait, the oldest for 42 s."),
    ],
)
def test_the_backlog_is_put_into_words(backlog: int, told: str) -> None:
    assert overview_of([seen_worker(backlog=backlog, oldest_message_seconds=42)], None, NOW).lede.endswith(f" {told}")


def test_a_spent_budget_is_one_problem_of_all_workers() -> None:
    spent = {"configured": True, "budget_spent": True, "down_because": ""}

    (problem,) = overview_of(
        [seen_worker(worker="w-1", deepgram=spent), seen_worker(worker="w-2", deepgram=spent)], None, NOW
    ).problems

    assert problem.title == "The day's Deepgram budget is spent."
    assert "FALLBACK_BUDGET_USD_PER_DAY" in problem.remedy


def test_a_worker_that_was_just_started_is_no_problem_before_it_answers() -> None:
    seen = overview_of([SeenWorker(url="http://w-1:8080", health=None, problem="refused", is_starting=True)], None, NOW)

    assert (seen.headline, seen.problems) == ("The worker is starting", [])


def test_a_worker_that_loads_or_stops_is_no_problem() -> None:
    workers = [seen_worker(status="loading"), seen_worker(status="stopping")]

    assert overview_of(workers, None, NOW).problems == []


def test_the_backlog_of_workers_of_one_subscription_is_counted_once() -> None:
    figures = overview_of([seen_worker(backlog=14), seen_worker(backlog=14)], None, NOW).figures

    assert figures.backlog == 14
    assert figures.running == 2


def test_without_the_bucket_the_figures_are_those_since_the_start_and_failures_are_not_shown() -> None:
    seen = overview_of([seen_worker()], None, NOW)

    assert (seen.figures.jobs, seen.figures.failed, seen.figures.period) == (9, 1, "since the start")
    assert seen.failures is None
    assert seen.costs is None


def test_the_figures_of_today_and_the_costs_of_each_day_come_from_the_results() -> None:
    yesterday = TEN_O_CLOCK - timedelta(days=1)
    results = [
        result_of(completed("new"), cost_of("new", parakeet_hours=2), concluded_at=TEN_O_CLOCK),
        result_of(completed("old"), cost_of("old", parakeet_hours=1, at=yesterday), concluded_at=yesterday),
    ]

    seen = overview_of([seen_worker()], results, NOW)

    assert (seen.figures.jobs, round(seen.figures.usd, 4), seen.figures.period) == (1, 0.04, "today")
    assert seen.costs is not None
    assert [(day.day, round(day.parakeet_usd, 4)) for day in seen.costs] == [
        (yesterday.date(), 0.02),
        (TEN_O_CLOCK.date(), 0.04),
    ]


def test_failed_jobs_are_grouped_by_code_with_the_remedy_and_the_command_that_replays_them() -> None:
    results = [result_of(failed("a"), cost_of("a", failed=True)), result_of(failed("b")), result_of(completed("c"))]

    failures = overview_of([], results, NOW).failures

    assert failures is not None
    (group,) = failures
    assert group.code == "AUDIO_NOT_FOUND"
    assert [job_id for job_id, _ in group.jobs] == ["a", "b"]
    assert group.remedy == "upload the audio, then replay the job"
    assert group.command == "klipstream-worker dlq replay --code AUDIO_NOT_FOUND --execute"


def test_a_recent_job_shows_its_engines_where_its_worker_still_lists_them() -> None:
    ended = (
        health()
        .last_jobs[0]
        .model_copy(update={"job_id": "a", "chunks": ("parakeet", "deepgram"), "ended_at": TEN_O_CLOCK})
    )
    workers = [seen_worker(last_jobs=[ended.model_dump(mode="json")])]
    results = [result_of(completed("a"), cost_of("a", parakeet_hours=1), concluded_at=TEN_O_CLOCK)]

    (row,) = overview_of(workers, results, NOW).recent

    assert list(row.segments) == ["parakeet", "deepgram"]
    assert row.audio_seconds == 3600.0
    assert row.saved_percent is not None


def test_a_chunk_is_done_in_work_or_to_come() -> None:
    job = RunningFacts(
        job_id="j",
        video_id="v",
        seconds=1,
        audio_seconds=10,
        audio_seconds_done=1,
        chunks_done=2,
        chunks=("parakeet", None, "deepgram", None),
        chunks_in_work=(1,),
    )

    assert job.segments == ["parakeet", "working", "deepgram", "waiting"]


def test_documents_that_are_not_a_workers_are_not_read() -> None:
    assert read_health({"status": "ok"}) is None
    assert read_health([]) is None
    assert read_health(None) is None


def test_the_time_of_a_look_is_kept() -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)

    assert overview_of([], None, now).seen_at == now
