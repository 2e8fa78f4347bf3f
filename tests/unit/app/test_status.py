import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.support.workers.conditions import IDENTITY, L4, condition, consumer_snapshot, engine_health
from worker.adapters.parakeet.engine import EngineState
from worker.app.status import Condition, Disk, Status, health_answer, is_alive, judge, live_answer, ready_answer
from worker.core.delivery.fitness import PartTest

LOADING = Condition(uptime_seconds=5.0)


def test_a_worker_that_loads_is_alive_but_not_ready() -> None:
    assert ready_answer(LOADING, 0.1).status == 503
    assert json.loads(ready_answer(LOADING, 0.1).body)["status"] == "loading"
    assert live_answer(LOADING, 0.1).status == 200


def test_a_worker_at_work_is_ready_and_alive() -> None:
    assert judge(condition(), 0.1) == (Status.HEALTHY, "")
    assert ready_answer(condition(), 0.1).status == 200
    assert live_answer(condition(), 0.1).status == 200


@pytest.mark.parametrize("state", [EngineState.REPLACING, EngineState.FAILED, EngineState.LOADING])
def test_without_its_process_it_is_not_ready_and_says_why(state: EngineState) -> None:
    sick = condition(engine=engine_health(state, reason="no heartbeat"))

    status, reason = judge(sick, 0.1)

    assert status is Status.UNHEALTHY
    assert reason.startswith("the inference process ")
    assert reason.endswith(": no heartbeat")
    assert is_alive(sick, 0.1)[0]


@pytest.mark.parametrize("state", [EngineState.REPLACING, EngineState.FAILED])
@pytest.mark.parametrize(("seconds", "alive"), [(59, True), (61, False)])
def test_it_is_given_up_when_replacing_its_process_has_failed_for_a_minute(
    state: EngineState, seconds: float, alive: bool
) -> None:
    failing = condition(engine=engine_health(state, failing_seconds=seconds))

    assert is_alive(failing, 0.0)[0] is alive


def test_a_replacement_may_take_its_time_to_load_as_long_as_it_beats() -> None:
    slow = condition(engine=engine_health(EngineState.REPLACING, state_seconds=200))

    assert is_alive(slow, 0.0)[0]


@pytest.mark.parametrize(("seconds", "alive"), [(59, True), (61, False)])
def test_a_replacement_that_hangs_while_it_starts_is_given_up(seconds: float, alive: bool) -> None:
    hung = condition(engine=engine_health(EngineState.REPLACING, heartbeat_age_seconds=seconds))

    assert is_alive(hung, 0.0)[0] is alive


def test_a_process_at_work_is_the_engines_own_business() -> None:
    assert is_alive(condition(engine=engine_health(state_seconds=100_000, heartbeat_age_seconds=100)), 0.0)[0]


def test_a_worker_with_a_blocked_event_loop_is_neither_live_nor_ready() -> None:
    assert judge(condition(), 11.0)[0] is Status.STALLED
    assert live_answer(condition(), 11.0).status == 503


def test_one_that_takes_nothing_in_says_why() -> None:
    idle = condition(consumer=consumer_snapshot(intake_stopped_because="the self-test failed"))

    assert judge(idle, 0.0) == (Status.UNHEALTHY, "the self-test failed")
    assert is_alive(idle, 0.0)[0]


def test_a_subscription_that_cannot_be_pulled_from_makes_a_worker_unready_at_the_third_failure() -> None:
    reasons = [
        judge(condition(consumer=consumer_snapshot(pull_failures_in_a_row=failures, pull_failure="403")), 0.0)
        for failures in (2, 3)
    ]

    assert reasons == [(Status.HEALTHY, ""), (Status.UNHEALTHY, "no messages can be pulled: 403")]


def test_health_holds_the_last_self_test_of_each_part() -> None:
    tested_at = datetime(2026, 11, 22, 10, tzinfo=UTC)
    parts = (
        PartTest(part="TEMP_DIR", passed=False, reason="TEMP_DIR: full", tested_at=tested_at, seconds=0.1),
        PartTest(part="decoder"),
    )

    body = json.loads(health_answer(IDENTITY, condition(consumer=consumer_snapshot(parts=parts)), 0.0).body)

    assert body["self_test"] == {
        "TEMP_DIR": {
            "passed": False,
            "reason": "TEMP_DIR: full",
            "tested_at": "2026-11-22T10:00:00+00:00",
            "seconds": 0.1,
        },
        "decoder": {"passed": None, "reason": "", "tested_at": None, "seconds": 0.0},
    }


def test_one_that_stops_takes_no_more() -> None:
    assert judge(condition(consumer=consumer_snapshot(stopping=True)), 0.0)[0] is Status.STOPPING


def test_health_shows_the_reason_why_deepgram_is_down() -> None:
    seen = condition(deepgram_configured=True, deepgram_down_because="Deepgram refuses the API key (401): no such key")

    told = json.loads(health_answer(IDENTITY, seen, 0.0).body)

    assert told["deepgram"]["down_because"] == "Deepgram refuses the API key (401): no such key"
    assert told["status"] == "healthy"


def test_one_without_parakeet_is_ready_where_deepgram_does_everything() -> None:
    assert judge(condition(engine=None, deepgram_configured=True), 0.0)[0] is Status.HEALTHY


def test_health_keeps_all_its_fields_and_adds_new_ones() -> None:
    answer = health_answer(IDENTITY, condition(), 0.1)

    told = json.loads(answer.body)
    assert answer.status == 200
    assert told["status"] == "healthy"
    assert {name: told["gpu"][name] for name in ("available", "count", "name", "memory_gb")} == {
        "available": True,
        "count": 1,
        "name": "NVIDIA L4",
        "memory_gb": 24.0,
    }
    assert told["gpu"]["devices"][0]["throttled_by"] == sorted(L4.throttled_by)
    assert told["gpu_transcription_enabled"] is True
    assert told["jobs"]["running"][0]["job_id"] == "j1"
    assert told["last_job"]["job_id"] == "j0"
    assert told["versions"] == {"klipstream-worker": "0.1.0"}
    assert {"model", "uptime_seconds", "fuse", "totals", "engine", "deepgram"} <= told.keys()


def test_health_has_what_the_page_shows() -> None:
    disk = Disk(path="/audio", free_bytes=3, total_bytes=20)
    seen = condition(oldest_message_seconds=192, disk=disk)

    told = json.loads(health_answer(IDENTITY, seen, 0.1).body)

    assert told["oldest_message_seconds"] == 192
    assert told["disk"] == {"path": "/audio", "free_bytes": 3, "total_bytes": 20}
    assert [job["job_id"] for job in told["last_jobs"]] == ["j0"]
    assert told["jobs"]["running"][0]["chunks"] == ["parakeet", "deepgram", None]


def test_health_of_a_worker_that_loads_is_whole() -> None:
    answer = health_answer(IDENTITY, LOADING, 0.1)

    told = json.loads(answer.body)
    assert answer.status == 503
    assert told["gpu"] == {"available": False, "count": 0, "name": None, "memory_gb": None, "devices": []}
    assert told["model"] is None


def test_health_shows_the_urgent_subscription_where_there_is_one() -> None:
    seen = condition(
        consumer=consumer_snapshot(urgent_pull_failure="403"), urgent_backlog=2, oldest_urgent_seconds=31.0
    )

    told = [
        json.loads(health_answer(identity, seen, 0.0).body)["urgent"]
        for identity in (IDENTITY, replace(IDENTITY, urgent_subscription="jobs-urgent"))
    ]

    assert told == [
        None,
        {"subscription": "jobs-urgent", "backlog": 2, "oldest_message_seconds": 31.0, "pull_failure": "403"},
    ]
