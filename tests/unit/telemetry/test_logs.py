import io
import json
from typing import Any

import pytest
import structlog

from tests.support.hostile_text import HOSTILE, is_visible, without_colours
from tests.support.telemetry import installed_spans
from worker.telemetry import configure_logging
from worker.telemetry.logs import LogFormat, LogLevel
from worker.telemetry.spans import job_span

HIDDEN = "s3cr3t"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _restore_logging() -> Any:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(capsys.readouterr().err)
    return event


def test_a_line_has_the_field_names_of_cloud_logging(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", project_id="klipstream", worker="w-1")

    structlog.get_logger().warning("chunk.fallback", job_id="j1", chunk=3, code="X", reason="it hung")

    event = logged(capsys)
    assert (event["severity"], event["event"], event["code"]) == ("WARNING", "chunk.fallback", "X")
    assert event["message"] == "j1: Parakeet could not do chunk 3, X: it hung"
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


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_console_shows_text_from_outside_as_text(level: LogLevel, capsys: pytest.CaptureFixture[str]) -> None:
    class Foreign:
        def __repr__(self) -> str:
            return "\x1b[2J"

    configure_logging("console", level)

    for text in HOSTILE:
        structlog.get_logger().warning("pull.failed", reason=text, listed=[text], by={text: text}, foreign=Foreign())

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


def test_events_below_the_level_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logger = structlog.get_logger()

    configure_logging("json")
    logger.debug("chunk.started", chunk=1)
    configure_logging("json", "warning")
    logger.info("chunk.done", chunk=1)
    configure_logging("json", "off")
    logger.error("consumer.died", where="intake")
    told_so_far = capsys.readouterr().err
    configure_logging("json", "debug")
    logger.debug("chunk.started", chunk=2)

    assert told_so_far == ""
    assert logged(capsys)["chunk"] == 2


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_console_that_is_no_terminal_has_no_colours(level: LogLevel, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console", level)

    structlog.get_logger().warning("pull.failed", reason="it is away")

    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_a_terminal_has_colours_unless_they_are_not_wanted(
    no_color: str, is_coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    terminal = Terminal()
    configure_logging("auto", stream=terminal)

    structlog.get_logger().warning("pull.failed", reason="it is away")

    assert ("\x1b" in terminal.getvalue()) is is_coloured
    assert without_colours(terminal.getvalue()).endswith(" warning Pulling failed: it is away")


def test_a_console_has_one_row_for_a_job_and_none_for_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console")
    logger = structlog.get_logger().bind(job_id="vod-1")
    figures = {"audio_seconds": 181.2, "speed": 38.4, "usd": 0.00021, "method": "parakeet", "flags": ["no_speech"]}

    logger.info("delivery.received", age_seconds=1.0)
    logger.info("job.routed", method="parakeet", reason="cost_optimization")
    logger.info("job.done", **figures)

    (row,) = capsys.readouterr().err.splitlines()
    assert row[8:] == " ok      vod-1  181 s audio  38x  $0.0002  parakeet  no speech"


def test_a_failed_job_is_one_row_with_its_code_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console")
    logger = structlog.get_logger().bind(job_id="vod-1")

    logger.warning("delivery.failed", reason="no object", given_up=True)
    logger.warning("job.failed", code="AUDIO_NOT_FOUND", reason="no object", suggested_action="upload it")

    (row,) = capsys.readouterr().err.splitlines()
    assert row[8:] == " failed  vod-1  AUDIO_NOT_FOUND: no object  -> upload it"


def test_a_row_is_wrapped_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    configure_logging("auto", stream=terminal)

    structlog.get_logger().error("intake.stopped", reason="the disk is full " * 6)

    lines = terminal.getvalue().splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 60 for line in lines)
    assert {line[:17] for line in lines[1:]} == {" " * 17}


def test_a_model_that_is_loading_is_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console")
    logger = structlog.get_logger()

    logger.info("engine.loading", phase="imports", model="nvidia/parakeet-tdt-0.6b-v2")
    logger.info("engine.loading", phase="model", model="nvidia/parakeet-tdt-0.6b-v2")
    logger.info("engine.loading", phase="warm_up", device="cpu")

    (row,) = capsys.readouterr().err.splitlines()
    assert row[8:].strip() == "Loading the model parakeet-tdt-0.6b-v2"
