"""structlog set-up and the register of metrics.

Events, not sentences: `log.info("job.done", seconds=1.2)`. Fields bound with `structlog.contextvars.bind_contextvars`
(`job_id`, `message_id`, `attempt`) stand on every line of that task.
"""

import sys
from typing import Literal

import structlog

LogFormat = Literal["auto", "json", "console"]


def configure_logging(log_format: LogFormat = "auto") -> None:
    """Send log events to stderr: JSON lines in Cloud Logging's field names, or coloured text on a terminal."""
    as_text = sys.stderr.isatty() if log_format == "auto" else log_format == "console"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *(_text() if as_text else _cloud_logging()),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _text() -> list[structlog.typing.Processor]:
    return [structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(timestamp_key="time")]


def _cloud_logging() -> list[structlog.typing.Processor]:
    return [_severity, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(sort_keys=True)]


def _severity(_: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["severity"] = {"warn": "WARNING", "exception": "ERROR"}.get(method, method.upper())
    event["message"] = event.pop("event")
    return event
