import json
from typing import Any

import pytest
import structlog

from tests.support.hostile_text import HOSTILE, is_visible, without_colours
from tests.support.telemetry import installed_spans
from worker.telemetry import configure_logging
from worker.telemetry.logs import LogFormat
from worker.telemetry.spans import job_span

HIDDEN = "s3cr3t"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _restore_logging() -> Any:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def logged(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(capsys.readouterr().err)
    return event


def test_a_line_has_the_field_names_of_cloud_logging(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", project_id="klipstream", worker="w-1")

    structlog.get_logger().warning("job.failed", job_id="j1", code="X")

    event = logged(capsys)
    assert (event["severity"], event["message"], event["code"]) == ("WARNING", "job.failed", "X")
    assert event["logging.googleapis.com/labels"] == {"worker": "w-1", "job_id": "j1"}
    location = event["logging.googleapis.com/sourceLocation"]
    assert location["function"] == test_a_line_has_the_field_names_of_cloud_logging.__name__
    assert location["line"].isdecimal()
    assert not {"pathname", "lineno", "func_name", "logging.googleapis.com/trace"} & event.keys()


def test_a_line_of_a_traced_job_leads_to_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    installed_spans()
    configure_logging("json", project_id="klipstream")

    with job_span({"traceparent": PARENT}):
        structlog.get_logger().info("job.done")

    event = logged(capsys)
    assert event["logging.googleapis.com/trace"] == f"projects/klipstream/traces/{PARENT.split('-')[1]}"
    assert len(event["logging.googleapis.com/spanId"]) == 16
    assert event["logging.googleapis.com/trace_sampled"] is True


def test_an_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")

    structlog.get_logger().error("consumer.died", exc_info=ValueError("why"))

    event = logged(capsys)
    assert event["severity"] == "ERROR"
    assert "ValueError: why" in event["exception"]


def test_a_console_shows_text_from_outside_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    class Foreign:
        def __repr__(self) -> str:
            return "\x1b[2J"

    configure_logging("console")

    for text in HOSTILE:
        structlog.get_logger().info("job.failed", reason=text, listed=[text], by={text: text}, foreign=Foreign())

    told = capsys.readouterr().err
    assert is_visible(without_colours(told))
    assert len(told.splitlines()) == len(HOSTILE)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_locals_and_its_message_as_text(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure_logging(log_format)

    def fail(secret: str) -> None:
        header = {"Authorization": f"Token {secret}"}
        raise ValueError(f"bad \x1b[2J\u202e answer of {len(header)} header")

    try:
        fail(HIDDEN)
    except ValueError as exc:
        structlog.get_logger().exception("delivery.failed")
        structlog.get_logger().error("consumer.died", exc_info=exc)

    told = capsys.readouterr().err
    assert HIDDEN not in told
    assert "Authorization" not in told
    assert told.count("answer of 1 header") == 2
    assert is_visible(without_colours(told))
