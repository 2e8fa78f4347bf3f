"""`health`: asks the worker on this machine how it is, for container health checks. Imports next to nothing."""

import sys
from http.client import HTTPException

from schemas.text import plain_lines
from worker.commands.health_port import ADVICE, OK, address_of, end, fetch, json_object, own_url

PAGES = {"health": "worker", "live": "live"}
"""Pages that are asked for, and a member that a worker's answer has."""


def health(url: str | None, page: str, *, as_json: bool = False) -> None:
    """Print the answer, exit 0 when it is good, else 1. On a terminal it is a card, unless `as_json`."""
    address = own_url() if url is None else address_of(url)
    try:
        status, body = fetch(f"{address}/{page}")
    except (OSError, HTTPException) as exc:
        reason = getattr(exc, "strerror", None) or exc
        end(f"no answer from {address} ({reason}): {ADVICE}", 1)
    document = json_object(body) or {}
    if PAGES[page] not in document:
        end(f"{address} does not answer as a worker does (HTTP {status}): {ADVICE}", 1)
    if as_json or not sys.stdout.isatty() or not _print_card(page, document):
        print(plain_lines(body.decode(errors="replace").rstrip()))
    raise SystemExit(0 if status == OK else 1)


def _print_card(page: str, document: dict[str, object]) -> bool:
    """Print the answer for people; return False where it is not a worker's."""
    from worker.commands.tables import print_fitted  # noqa: PLC0415  pydantic and rich: container checks need neither
    from worker.commands.top import answer_card  # noqa: PLC0415

    if (card := answer_card(page, document)) is None:
        return False
    print_fitted(card)
    return True
