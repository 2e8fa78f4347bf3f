"""Addresses of health ports on the command line, and what answers there. Imports next to nothing."""

import json
import os
import sys
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NoReturn
from urllib.parse import urlsplit

from schemas.text import plain
from worker.commands.group import MOST_PORT

OK = 200
TIMEOUT_SECONDS = 5.0
MOST_BYTES, MOST_OF_A_LINE = 4 << 20, 500
USUAL_PORT, THIS_MACHINE = "8080", "127.0.0.1"
CONNECTIONS = {"http": HTTPConnection, "https": HTTPSConnection}
ADVICE = "start a worker there, or name another URL"


def own_url() -> str:
    """Return the address of the worker from the environment. Exits if HEALTH_PORT is 0, any free port, or none."""
    port = os.environ.get("HEALTH_PORT") or USUAL_PORT
    host = (os.environ.get("HEALTH_HOST") or THIS_MACHINE).strip("[]")
    host = {"0.0.0.0": THIS_MACHINE, "::": "::1"}.get(host, host)  # noqa: S104 - asked for, not bound
    if port == "0":
        end("HEALTH_PORT is 0: name the URL that the worker logged as health.listening", 2)
    if not port.isdecimal() or len(port) > len(str(MOST_PORT)) or int(port) > MOST_PORT:
        end(f"HEALTH_PORT: must be a port number (got {port!r})", 2)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def address_of(url: str) -> str:
    """Return the address of a health port, of which the scheme and the name of a page may be left out.

    Exits where it is none.
    """
    with suppress(ValueError):  # of the port
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme in CONNECTIONS and parts.hostname and parts.port != 0:
            path = parts.path.rstrip("/")
            return f"{parts.scheme}://{parts.netloc}{path.removesuffix('/health').removesuffix('/live')}"
    return end(f"URL: must be http://host:port (got {url!r})", 2)


def fetch(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> tuple[int, bytes]:
    """Status and body. Raises `OSError` or `HTTPException` where nothing answers HTTP."""
    parts = urlsplit(url)
    connection = CONNECTIONS[parts.scheme](parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_BYTES)
    except UnicodeError as exc:
        raise OSError("no name of a host") from exc
    finally:
        connection.close()


def fetch_health(url: str) -> dict[str, object] | None:
    """Return the worker's `/health`, ready or not; None if nothing answers."""
    try:
        return json_object(fetch(f"{url.rstrip('/')}/health", timeout_seconds=1.0)[1])
    except (OSError, HTTPException):
        return None


def json_object(body: bytes) -> dict[str, object] | None:
    """Return the JSON object that the body is; None if it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def end(problem: str, code: int) -> NoReturn:
    """Print the problem as one line on stderr and exit."""
    print(plain(problem, MOST_OF_A_LINE), file=sys.stderr)
    raise SystemExit(code)
