"""structlog set-up.

Code logs events, not sentences: `log.info("job.done", seconds=1.2)`. Fields bound with
`structlog.contextvars.bind_contextvars` (`job_id`, `message_id`, `attempt`) are on every line of that task. A JSON line
has the event's name as `event`, which metrics and alerts filter by, and its sentence as `message`, which people read.

On a terminal an event is one readable row: `14:01:22 ok      readme-3185  181 s audio  38x  $0.0002`. Rows are the ends
of jobs, the steps of a start and a stop, every warning and error, and their ends. All other events need
LOG_LEVEL=debug, which shows each with its fields.
"""

import logging
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Mapping
from typing import Literal, TextIO

import structlog
from opentelemetry import trace
from structlog.processors import CallsiteParameter, CallsiteParameterAdder

from schemas.text import plain, plain_json, plain_lines
from worker.telemetry.sentences import MOST_CHARACTERS, sentence

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error", "off"]

_LEVELS: Mapping[LogLevel, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL,  # no event has it
}

LABELS = ("job_id", "video_id", "message_id")
"""Fields that also become labels, which users of Cloud Logging filter by."""

SHOWN = frozenset(
    {
        *("worker.starting", "engine.loading", "health.listening", "worker.ready"),
        *("consumer.stopping", "worker.stopped", "worker.start_abandoned"),
        *("job.done", "job.concluded_before", "job.parked", "job.unparked"),
        *("intake.resumed", "part.mended", "fuse.closed", "engine.trusted", "engine.replaced"),
        *("deepgram.circuit_closed", "adoption.resumed"),
    }
)
"""Events below a warning that are rows."""

LATER_PHASES = frozenset({"model", "warm_up"})
"""Phases of `engine.loading` after the first, which is row enough."""

WORDS: Mapping[str, tuple[str, str]] = {
    "info": ("", "dim"),
    "warning": ("warning", "yellow"),
    "error": ("error", "red"),
    "critical": ("error", "red"),
}
ENDS: Mapping[str, tuple[str, str]] = {"job.done": ("ok", "green"), "job.failed": ("failed", "red")}
COLOURS = {"red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m", "dim": "\x1b[2m"}
RESET = "\x1b[0m"
INDENT = " " * 17
LEAST_USD = 0.0001
"""The smallest amount that four decimals show."""


def configure_logging(
    log_format: LogFormat = "auto",
    level: LogLevel = "info",
    *,
    project_id: str = "",
    worker: str = "",
    stream: TextIO | None = None,
) -> None:
    """Send log events from `level` on to `stream`, by default stderr.

    They are JSON lines in Cloud Logging's field names, or text, which is coloured on a terminal unless NO_COLOR is set.
    With a project, lines of a traced job link to its trace; `worker` becomes a label of every line.
    """
    least, target = _LEVELS[level], stream or sys.stderr
    warn_in_plain_text(max(least, logging.WARNING))
    as_text = target.isatty() if log_format == "auto" else log_format == "console"
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(least),
        processors=[
            structlog.contextvars.merge_contextvars,
            *(_text(target, least) if as_text else _cloud_logging(project_id, worker)),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )


def warn_in_plain_text(least: int = logging.WARNING) -> None:
    """Write the warnings of libraries and of our client to stderr, escaped, since they quote text from outside.

    A no-op if the process has already configured the standard library's logging.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=least)


class PlainFormatter(logging.Formatter):
    """Formatter of the standard library's log lines that escapes control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, followed by its traceback."""
        return plain_lines(super().format(record))


def _text(target: TextIO, least: int) -> list[structlog.typing.Processor]:
    time = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="time")
    in_colour = target.isatty() and not os.environ.get("NO_COLOR")
    if least > logging.DEBUG:
        return [time, Rows(in_colour=in_colour, wrapped=target.isatty())]
    renderer = structlog.dev.ConsoleRenderer(
        timestamp_key="time", colors=in_colour, exception_formatter=_write_traceback
    )
    return [time, structlog.processors.add_log_level, _visible, renderer]


def _visible(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control sequences in strings, and in the `repr` of other values."""
    return {name: value if name == "exc_info" else _as_visible(value) for name, value in event.items()}


def _as_visible(value: object) -> object:
    if isinstance(value, str):
        return plain(value)
    shown = repr(value)
    return value if plain(shown) == shown else plain(shown)


def _write_traceback(target: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write a traceback without locals, which may contain keys, headers and transcripts."""
    target.write("\n" + plain_lines("".join(traceback.format_exception(*exc_info)).rstrip()))


def _cloud_logging(project_id: str, worker: str) -> list[structlog.typing.Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _severity,
        _Trace(project_id),
        _Labels({"worker": worker} if worker else {}),
        CallsiteParameterAdder(
            {CallsiteParameter.PATHNAME, CallsiteParameter.LINENO, CallsiteParameter.FUNC_NAME},
            additional_ignores=[__name__],
        ),
        _source_location,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=plain_json, sort_keys=True),
    ]


def _severity(_: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["severity"] = {"warn": "WARNING", "exception": "ERROR"}.get(method, method.upper())
    event["message"] = sentence(event)
    return event


class _Trace:
    """Add the ids of the current span to the line."""

    def __init__(self, project_id: str) -> None:
        self._prefix = f"projects/{project_id}/traces/" if project_id else ""

    def __call__(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event["logging.googleapis.com/trace"] = self._prefix + trace.format_trace_id(span.trace_id)
            event["logging.googleapis.com/spanId"] = trace.format_span_id(span.span_id)
            event["logging.googleapis.com/trace_sampled"] = span.trace_flags.sampled
        return event


class _Labels:
    """Repeat some fields as labels, which Cloud Logging indexes."""

    def __init__(self, fixed: Mapping[str, str]) -> None:
        self._fixed = fixed

    def __call__(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        own = {name: str(event[name]) for name in LABELS if event.get(name)}
        if labels := {**self._fixed, **own}:
            event["logging.googleapis.com/labels"] = labels
        return event


def _source_location(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    file = str(event.pop("pathname"))
    event["logging.googleapis.com/sourceLocation"] = {
        "file": file[file.rfind("/worker/") + 1 :],
        "line": str(event.pop("lineno")),
        "function": event.pop("func_name"),
    }
    return event


class Rows:
    """The last processor of structlog's chain: rows in colour, wrapped to the terminal's width."""

    def __init__(self, *, in_colour: bool, wrapped: bool) -> None:
        self._in_colour, self._wrapped = in_colour, wrapped

    def __call__(self, _: object, method: str, event: structlog.typing.EventDict) -> str:
        """Return the row. Raises `DropEvent` for an event that is none."""
        name, level = str(event.get("event")), {"warn": "warning", "exception": "error"}.get(method, method)
        is_shown = level not in {"debug", "info"} or name in SHOWN
        if not is_shown or event.get("given_up") or event.get("phase") in LATER_PHASES:
            raise structlog.DropEvent
        word, colour = ENDS.get(name) or WORDS.get(level, WORDS["info"])
        head = f"{event.get('time', '')} {self._coloured(f'{word:<7}', colour)}"
        error = sys.exception() if event.get("exc_info") is True else event.get("exc_info")
        row = f"{head} {self._laid(_row(name, event))}"
        if not isinstance(error, BaseException):
            return row
        return f"{row}\n{plain_lines(''.join(traceback.format_exception(error)).rstrip())}"

    def _coloured(self, text: str, colour: str) -> str:
        return f"{COLOURS[colour]}{text}{RESET}" if self._in_colour and text.strip() else text

    def _laid(self, text: str) -> str:
        if not self._wrapped:
            return text.replace("\n", "  ")
        columns = max(40, shutil.get_terminal_size().columns)
        width = columns - len(INDENT)
        parts = (
            textwrap.wrap(part, width, break_on_hyphens=False, break_long_words=False) for part in text.split("\n")
        )
        return f"\n{INDENT}".join(line for part in parts for line in part)


def _row(name: str, event: Mapping[str, object]) -> str:
    job_id = event.get("job_id", "no job")
    if name == "job.done":
        return plain("  ".join((str(job_id), *_figures(event))))
    if name == "engine.loading":
        return f"Loading the model {plain(event.get('model')).rpartition('/')[2]}"
    if name == "job.failed":
        code, reason, remedy = (_short(event, name) for name in ("code", "reason", "suggested_action"))
        return f"{plain(job_id)}  {code}: {reason}\n-> {remedy}"
    return sentence(event)


def _short(event: Mapping[str, object], name: str) -> str:
    return plain(event.get(name, "unknown"), MOST_CHARACTERS)


def _figures(event: Mapping[str, object]) -> list[str]:
    """Return what is known of a finished job."""
    seconds, speed, usd = (event.get(name) for name in ("audio_seconds", "speed", "usd"))
    cells = [f"{seconds:.0f} s audio"] if isinstance(seconds, float) else []
    cells += [f"{speed:.0f}x"] if isinstance(speed, float) else []
    cells += [f"${usd:.4f}" if usd >= LEAST_USD else f"<${LEAST_USD}"] if isinstance(usd, float) else []
    cells += [str(event["method"])] if event.get("method") else []
    flags = event.get("flags")
    return [*cells, *(str(flag).replace("_", " ") for flag in flags)] if isinstance(flags, tuple | list) else cells
