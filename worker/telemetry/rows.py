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
from worker.telemetry.sentences import sentence

SHOWN = frozenset(
    {
        *("worker.starting", "engine.loading", "engine.loaded", "health.listening", "worker.ready"),
        *("consumer.stopping", "worker.stopped", "worker.start_abandoned"),
        *("job.done", "job.concluded_before", "job.parked", "job.unparked"),
        *("intake.resumed", "part.mended", "fuse.closed", "engine.trusted", "engine.replaced"),
        *("deepgram.circuit_closed", "adoption.resumed"),
    }
)
"""Events below a warning that are rows."""

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


class Rows:
    """The last processor of structlog's chain. `in_colour` and wrapped to the terminal's width where it is one."""

    def __init__(self, *, in_colour: bool, wrapped: bool) -> None:
        self._in_colour, self._wrapped = in_colour, wrapped

    def __call__(self, _: object, method: str, event: structlog.typing.EventDict) -> str:
        """Return the row. Raises `DropEvent` for an event that is none."""
        name, level = str(event.get("event")), {"warn": "warning", "exception": "error"}.get(method, method)
        if (level in {"debug", "info"} and name not in SHOWN) or event.get("given_up"):
            raise structlog.DropEvent
        word, colour = ENDS.get(name) or WORDS.get(level, WORDS["info"])
        head = f"{event.get('time', '')} {self._coloured(f'{word:<7}', colour)}"
        error = sys.exception() if event.get("exc_info") is True else event.get("exc_info")
        row = f"{head} {self._laid(_text(name, event))}"
        if not isinstance(error, BaseException):
            return row
        return f"{row}\n{plain_lines(''.join(traceback.format_exception(error)).rstrip())}"

    def _coloured(self, text: str, colour: str) -> str:
        return f"{COLOURS[colour]}{text}{RESET}" if self._in_colour else text

    def _laid(self, text: str) -> str:
        if not self._wrapped:
            return text
        columns = max(40, shutil.get_terminal_size().columns)
        lines = textwrap.wrap(text, columns - len(INDENT), break_on_hyphens=False, drop_whitespace=True)
        return f"\n{INDENT}".join(lines)


def _text(name: str, event: Mapping[str, object]) -> str:
    if name == "job.done":
        return plain("  ".join(_result(event)))
    return sentence(event)


def _result(event: Mapping[str, object]) -> list[str]:
    """Return the cells of a finished job; a figure that is not known is left out."""
    seconds, speed, usd = (event.get(name) for name in ("audio_seconds", "speed", "usd"))
    cells = [str(event.get("job_id", "?"))]
    cells += [f"{seconds:.0f} s audio"] if isinstance(seconds, float) else []
    cells += [f"{speed:.0f}x"] if isinstance(speed, float) else []
    cells += [f"${usd:.4f}"] if isinstance(usd, float) else []
    cells += [str(event["method"])] if event.get("method") else []
    flags = event.get("flags")
    return [*cells, *(str(flag).replace("_", " ") for flag in flags)] if isinstance(flags, tuple | list) else cells
