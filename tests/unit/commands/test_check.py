import json

from tests.support.workers.conditions import IDENTITY, condition, consumer_snapshot
from worker.app.preflight import Finding
from worker.app.status import Condition, health_answer
from worker.commands.check import running_worker
from worker.core.delivery.fuse import FuseState, FuseStatus


def found(seen: Condition) -> Finding:
    return running_worker(json.loads(health_answer(IDENTITY, seen, 0.0).body))


def test_check_shows_the_fuse_of_a_running_worker() -> None:
    assert found(condition()) == Finding(
        name="running worker w-1", ok=True, detail="healthy; fuse closed, 0 failures in a row"
    )


def test_an_open_fuse_fails_the_check_and_says_why() -> None:
    fuse = FuseStatus(state=FuseState.OPEN, reason="the self-test failed: no words", failures_in_a_row=5)

    finding = found(condition(consumer=consumer_snapshot(fuse=fuse, intake_stopped_because="the fuse is open")))

    assert not finding.ok
    assert finding.detail == (
        "unhealthy; fuse open, 5 failures in a row: the fuse is open: the self-test failed: no words"
    )


def test_check_shows_no_fuse_of_a_worker_that_still_starts() -> None:
    finding = found(Condition(uptime_seconds=2.0))

    assert finding.ok
    assert "still starting" in finding.detail
