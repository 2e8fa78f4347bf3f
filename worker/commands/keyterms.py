"""Keyterms from the command line: `--keyterm` and `--keyterms-file`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from schemas.decoding import violations
from schemas.job import Keyterm, Keyterms
from schemas.text import plain
from worker.commands.console import EXIT_USAGE, fail

ValueT = TypeVar("ValueT")


def keyterms_text(keyterms_found: Sequence[str], keyterms_unspeakable: Sequence[str]) -> str:
    """Return the end of a line about a transcript: empty for one without keyterms."""
    found = f", keyterms found: {', '.join(keyterms_found)}" if keyterms_found else ""
    if not keyterms_unspeakable:
        return found
    return f"{found}, not in the model's vocabulary: {', '.join(keyterms_unspeakable)}"


def keyterms_of(terms: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """Return the keyterms of both options, as a job has them; empty lines of the file are skipped.

    Ends the command where one is no keyterm, naming it, or where they are too many.
    """
    named = [("--keyterm", term) for term in terms]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            fail(f"{file}: must be UTF-8; save the file as UTF-8", EXIT_USAGE)
        named += [(f"{file}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    one: TypeAdapter[str] = TypeAdapter(Keyterm)
    every: TypeAdapter[tuple[str, ...]] = TypeAdapter(Keyterms)
    for source, term in named:
        _valid(one, term, source)
    return _valid(every, [term for _, term in named], "keyterms")


def _valid(kind: TypeAdapter[ValueT], value: object, source: str) -> ValueT:
    try:
        return kind.validate_python(value)
    except ValidationError as exc:
        fail(f"{plain(source)}: {violations(exc)[0].removeprefix('message: ')}", EXIT_USAGE)
