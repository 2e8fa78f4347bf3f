"""The group of all commands: every error leaves it as one line that says what to do, and as an exit code.

Imports typer alone, so that help and usage errors stay fast.
"""

import io
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import typer.core

from schemas.text import plain, plain_lines

EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 130, 141
EXIT_CODES = (
    "[b]Exit codes[/]  0: done. 1: it failed, or nothing is there. 2: wrong options or settings. "
    "3: canary has too few jobs yet. 130: Ctrl-C before the end. 141: the reader of a pipe has gone."
)

UsageError: Any = typer.BadParameter.__mro__[1]
"""Base class of typer's bundled click errors, which typer exports under no stable name."""
ClickError: Any = UsageError.__mro__[1]


def finite(value: Any) -> Any:
    """Refuse NaN and the infinite as a value of an option: comparisons with `min` and `max` let NaN pass."""
    for each in value if isinstance(value, list) else [value]:
        if each is not None and not math.isfinite(each):
            raise typer.BadParameter(f"{each} is not a finite number.")
    return value


MOST_PORT = 65_535
Json = Annotated[bool, typer.Option("--json", help="one JSON object a line instead of text")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="show log lines on stderr")]
Timeout = Annotated[float, typer.Option(help="seconds to wait at most", min=0, callback=finite)]
PagePort = Annotated[int, typer.Option(help="port of the page; 0: any free one", min=0, max=MOST_PORT)]
OpensBrowser = Annotated[bool, typer.Option(help="open the page where there is a browser")]


def examples(*lines: str) -> str:
    """Return the end of a command's help: command lines without the program's name."""
    return "\n\n".join(("[b]Examples[/]", *(f"klipstream-worker {line}" for line in lines)))


class CommandGroup(typer.core.TyperGroup):
    """Shows errors in words, and quotes what was typed, perhaps by copy and paste, as visible text."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Parse; `--debug` is accepted at any place before `--`."""
        end = args.index("--") if "--" in args else len(args)
        debug = "--debug" in args[:end]
        args = [*["--debug"] * debug, *(each for each in args[:end] if each != "--debug"), *args[end:]]
        with _in_words(debug=debug):
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest and run the command."""
        with _in_words(debug=ctx.params["debug"], context=ctx):
            result = super().invoke(ctx)
            _flush()
            return result


@contextmanager
def _in_words(*, debug: bool, context: Any = None) -> Iterator[None]:
    try:
        yield
    except UsageError as exc:
        if exc.message:
            exc.message = plain(exc.message)
        raise
    except (ClickError, typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        raise typer.Exit(_interrupted()) from None
    except Exception as error:  # noqa: BLE001  the last door
        from worker.commands.console import fail  # noqa: PLC0415  pydantic
        from worker.commands.failures import failure_of  # noqa: PLC0415

        failure = failure_of(error)
        # A defect of the service cannot be repeated with --debug: its traceback goes into the log at once.
        is_service = context is not None and context.invoked_subcommand == "run" and not sys.stderr.isatty()
        if debug or (failure.is_defect and is_service):
            sys.stderr.write(plain_lines("".join(traceback.format_exception(error))))
        fail(failure.message, failure.code)


def run_to_exit(command_line: Callable[[], object]) -> None:
    """Run the command line and exit with its code; a reader that closed the pipe gets no message."""
    code: Any = 0
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 fails no command
    try:
        command_line()
    except SystemExit as exit_:
        # typer and rich make 1 of a closed pipe
        code = EXIT_PIPE_CLOSED if isinstance(exit_.__context__, BrokenPipeError) else exit_.code
    except KeyboardInterrupt:  # while typer built the command line
        code = _interrupted()
    try:
        _flush()
    except BrokenPipeError:
        code = EXIT_PIPE_CLOSED
    except OSError as exc:
        sys.stderr.write(f"error standard output: {exc.strerror}\n" if not code else "")
        code = code or 1
        _drop_output()
    if code == EXIT_PIPE_CLOSED:
        _drop_output()
    sys.exit(code)


def _open_closed_streams() -> None:
    """Open to nowhere what the caller has closed, lest the next file that is opened becomes a standard stream."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this stream's
            os.set_inheritable(nowhere, True)
            setattr(sys, name, open(nowhere, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def _interrupted() -> int:
    sys.stderr.write("stopped by Ctrl-C\n")
    return EXIT_INTERRUPTED


def _flush() -> None:
    if not sys.stdout.closed:
        sys.stdout.flush()


def _drop_output() -> None:
    """Let the interpreter's last flush of the standard streams succeed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
