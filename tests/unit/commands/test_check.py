import json
import socket

import pytest

from tests.support.workers.conditions import IDENTITY, condition, consumer_snapshot
from worker.app.monitor import telemetry_findings
from worker.app.preflight import Finding
from worker.app.status import Condition, health_answer
from worker.commands.check import running_worker
from worker.core.delivery.fuse import FuseState, FuseStatus
from worker.settings import TelemetrySettings


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


def test_check_reports_an_exporter_and_a_port_that_run_would_refuse() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = TelemetrySettings(traces_exporter="file", health_port=port)

        exporter, health_port = telemetry_findings(settings, is_port_ours=False)

    assert (exporter.ok, exporter.detail) == (False, "TRACES_EXPORTER=file needs TRACES_FILE")
    assert (health_port.ok, health_port.name) == (False, "health port")
    assert f"HEALTH_PORT {port} on 127.0.0.1" in health_port.detail


def test_check_leaves_the_port_of_a_running_worker_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = TelemetrySettings(health_port=taken.getsockname()[1])

        assert list(telemetry_findings(settings, is_port_ours=True)) == []


@pytest.mark.parametrize("fuse", [None, "closed", {}, []])
def test_a_fuse_of_another_form_fails_no_check(fuse: object) -> None:
    document = json.loads(health_answer(IDENTITY, condition(), 0.0).body)

    finding = running_worker({**document, "fuse": fuse})

    assert finding.ok
    assert "0 failures" in finding.detail


def test_check_shows_no_fuse_of_a_worker_that_still_starts() -> None:
    finding = found(Condition(uptime_seconds=2.0))

    assert finding.ok
    assert "still starting" in finding.detail
