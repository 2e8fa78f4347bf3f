"""How commands speak: people read stdout as text or JSON, and problems go to stderr with what to do about them."""

from typing import NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from worker.settings import Settings

EXIT_FAILED = 1
EXIT_USAGE = 2


def out() -> Console:
    """For results."""
    return Console(soft_wrap=True, highlight=False)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """End the command with a message on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error[/] {message}", markup=True)
    raise typer.Exit(code)


def load_settings() -> Settings:
    """The environment as settings; a wrong variable ends the command and is named with its value."""
    try:
        return Settings()
    except ValidationError as exc:
        lines = [
            f"{'.'.join(str(part) for part in error['loc']).upper()}: {error['msg']} (got {error['input']!r})"
            for error in exc.errors()
        ]
        fail("; ".join(lines), EXIT_USAGE)
