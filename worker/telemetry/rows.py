"""One readable row for each log event on a terminal: `14:01:22 ok      readme-3185  181 s audio  38x  $0.0002`.

Rows are the ends of jobs, the steps of a start and a stop, every warning and error, and their ends. All other events
need LOG_LEVEL=debug, which shows each with its fields.
"""

import shutil
import sys
import textwrap
import traceback
from collections.abc import Mapping

import structlog

from schemas.text import plain, plain_lines
from worker.telemetry.sentences import MOST_CHARACTERS, sentence

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


class Rows:
    """The last processor of structlog's chain. `in_colour` and wrapped to the terminal's width where it is one."""

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
        row = f"{head} {self._laid(_text(name, event))}"
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


def _text(name: str, event: Mapping[str, object]) -> str:
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
