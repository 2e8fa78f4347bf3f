"""`health`: asks the worker on this machine how it is, for container health checks. Imports next to nothing."""

import json
import os
import sys
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from schemas.text import plain, plain_lines

OK = 200
TIMEOUT_SECONDS = 5.0
USUAL_PORT = "8080"
ADVICE = "start a worker there, or name another URL"


def health(url: str | None, page: str, *, as_json: bool = False) -> None:
    """Print the answer, exit 0 when it is good, else 1. On a terminal it is a card, unless `as_json`."""
    address = (url or own_url()).rstrip("/")
    try:
        status, body = fetch(f"{address}/{page}")
    except (OSError, HTTPException) as exc:
        reason = getattr(exc, "strerror", None) or exc
        print(plain(f"no answer from {address} ({reason}): {ADVICE}"), file=sys.stderr)
        raise SystemExit(1) from exc
    if as_json or not sys.stdout.isatty() or not _print_card(page, body):
        print(plain_lines(body.decode(errors="replace").rstrip()))
    raise SystemExit(0 if status == OK else 1)


def _print_card(page: str, body: bytes) -> bool:
    """Print the answer for people; return False where it is not a worker's."""
    from worker.commands.health_card import shown  # noqa: PLC0415  pydantic and rich: container checks need neither
    from worker.commands.tables import print_fitted  # noqa: PLC0415

    if (card := shown(page, body)) is None:
        return False
    print_fitted(card)
    return True


def own_url() -> str:
    """Return the address of the worker from the environment. Exits if HEALTH_PORT is 0, any free port."""
    port = os.environ.get("HEALTH_PORT") or USUAL_PORT
    host = os.environ.get("HEALTH_HOST") or "127.0.0.1"
    if port == "0":
        print("HEALTH_PORT is 0: name the URL that the worker logged as health.listening", file=sys.stderr)
        raise SystemExit(2)
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - asked for, not bound


def fetch(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> tuple[int, bytes]:
    """Status and body. Raises `OSError` or `HTTPException` where nothing answers HTTP."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def fetch_health(url: str) -> dict[str, object] | None:
    """Return the worker's `/health`, ready or not; None if nothing answers."""
    try:
        _, body = fetch(f"{url.rstrip('/')}/health", timeout_seconds=1.0)
        found = json.loads(body)
    except (OSError, HTTPException, ValueError):
        return None
    return found if isinstance(found, dict) else None
