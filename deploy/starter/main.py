"""Starts the first worker at once: a push subscription on the jobs topic calls this service for every job.

If the worker pool has 0 instances, the count is set to 1; everything else is the autoscaler's. The pool is read
once a minute at most, and the answer holds for all pushes of that minute. The autoscaler sees backlogs two to three
minutes late and would set the count back to 0 before that, so the wake is written as a metric first, which the
autoscaler's query takes into account for five minutes. A start is three calls, of which none replaces another
(docs/operate/runbook.md has the reasons), and after them the pool is not read for three minutes: one call a minute.

Standard library only. Pushes must carry the identity token of PUSH_ACCOUNT for AUDIENCE; others get 403. Where an API
fails the answer is 503 and Pub/Sub repeats the push; the job itself waits in the workers' own subscription all along.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOOK_SECONDS = 60.0
CALLS_OF_A_WAKE = 3
KEYS_SECONDS = 3600.0
API_SECONDS = 10.0
CLOCKS_DIFFER_SECONDS = 60
TOKENS_KEPT = 100
MOST_BODY_BYTES = 20_000_000
PIECE_BYTES = 65_536
ISSUERS = frozenset({"accounts.google.com", "https://accounts.google.com"})
SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
WAKE_METRIC = "custom.googleapis.com/transcription/wake"


@dataclass(frozen=True)
class Settings:
    """Read once from the environment."""

    project: str
    pool: str
    """projects/P/locations/R/workerPools/NAME"""
    audience: str
    push_account: str
    run_api: str = "https://run.googleapis.com"
    monitoring_api: str = "https://monitoring.googleapis.com"
    certificates: str = "https://www.googleapis.com/oauth2/v3/certs"
    metadata: str = "http://metadata.google.internal"


class Forged(Exception):
    """The push does not carry the token that it must; says why."""


class Unavailable(Exception):
    """An API failed; the push is to be repeated."""


class Overtaken(Exception):
    """Another writer changed the pool after it was read."""


def asked(request: urllib.request.Request) -> dict[str, Any]:
    """Return the JSON answer. Raises `Overtaken` for a conflict, `Unavailable` for anything else but success."""
    try:
        with urllib.request.urlopen(request, timeout=API_SECONDS) as answer:
            found = json.load(answer)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        if isinstance(exc, urllib.error.HTTPError) and exc.code == HTTPStatus.CONFLICT:
            raise Overtaken(str(exc)) from exc
        raise Unavailable(f"{request.get_method()} {request.full_url}: {exc}") from exc
    if not isinstance(found, dict):
        raise Unavailable(f"{request.full_url}: not an object")
    return found


class Identity:
    """Checks the identity tokens of pushes. Safe for threads."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._settings, self._now = settings, now
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[int, int]] = {}
        self._fetched_at = float("-inf")
        self._verified: dict[str, float] = {}

    def require(self, authorization: str | None) -> None:
        """Raise `Forged` unless the header holds a valid token; `Unavailable` where Google's keys cannot be had."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Forged("no bearer token")
        if self._verified.get(token, 0) > self._now():
            return
        expires = self._checked(token)
        if len(self._verified) >= TOKENS_KEPT:
            self._verified.clear()
        self._verified[token] = expires

    def _checked(self, token: str) -> float:
        """Return when the token expires."""
        try:
            head, body, signature = token.split(".")
            header, claims = (json.loads(_decoded(part)) for part in (head, body))
            algorithm, key_id = header["alg"], str(header["kid"])
            expires, issued = float(claims["exp"]), float(claims["iat"])
        except (ValueError, KeyError, TypeError) as exc:
            raise Forged(f"not a token: {exc}") from exc
        if algorithm != "RS256" or not _signed(f"{head}.{body}".encode(), _decoded(signature), self._key(key_id)):
            raise Forged("the signature is not Google's")
        wrong = [
            name
            for name, right in (
                ("iss", claims.get("iss") in ISSUERS),
                ("aud", claims.get("aud") == self._settings.audience),
                ("email", claims.get("email") == self._settings.push_account),
                ("email_verified", claims.get("email_verified") is True),
                ("exp", expires > self._now()),
                ("iat", issued < self._now() + CLOCKS_DIFFER_SECONDS),
            )
            if not right
        ]
        if wrong:
            raise Forged(f"wrong claims: {', '.join(wrong)}")
        return expires

    def _key(self, key_id: str) -> tuple[int, int]:
        """Return modulus and exponent; keys are fetched anew once an hour, or for an unknown one once a minute."""
        with self._lock:
            age = self._now() - self._fetched_at
            if age > KEYS_SECONDS or (key_id not in self._keys and age > LOOK_SECONDS):
                keys = asked(urllib.request.Request(self._settings.certificates)).get("keys", [])
                self._keys = {key["kid"]: (_number(key["n"]), _number(key["e"])) for key in keys if key["kty"] == "RSA"}
                self._fetched_at = self._now()
            if key_id not in self._keys:
                raise Forged("signed with an unknown key")
            return self._keys[key_id]


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _number(part: str) -> int:
    return int.from_bytes(_decoded(part), "big")


def _signed(message: bytes, signature: bytes, key: tuple[int, int]) -> bool:
    """Return whether it is an RSASSA-PKCS1-v1_5 signature with SHA-256 (RFC 8017, section 8.2.2)."""
    modulus, exponent = key
    size = (modulus.bit_length() + 7) // 8
    digest = SHA256_PREFIX + hashlib.sha256(message).digest()
    if len(signature) != size or size < len(digest) + 11:
        return False
    found = pow(int.from_bytes(signature, "big"), exponent, modulus).to_bytes(size, "big")
    expected = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
    return hmac.compare_digest(found, expected)


class Starter:
    """Makes one API call a minute at most in the long run. Safe for threads: those that come meanwhile wait."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._next_look = float("-inf")
        self._failure: str | None = None
        self._token, self._token_until = "", float("-inf")

    def wake(self) -> None:
        """Set the count to 1 where it is 0. Raises `Unavailable` while the last look failed, for a minute."""
        with self._lock:
            if (now := self._clock()) >= self._next_look:
                self._next_look = now + LOOK_SECONDS
                self._failure = self._look()
            if self._failure is not None:
                raise Unavailable(self._failure)

    def _look(self) -> str | None:
        try:
            pool = asked(self._request("GET", f"{self._settings.run_api}/v2/{self._settings.pool}"))
            count = int(pool.get("scaling", {}).get("manualInstanceCount") or 0)
            if count == 0:
                self._tell_the_autoscaler()
                self._start(str(pool.get("etag", "")))
                self._next_look += (CALLS_OF_A_WAKE - 1) * LOOK_SECONDS  # and the metric still holds then
                log("starter.started", pool=self._settings.pool)
        except Overtaken as exc:  # by a deployment or the autoscaler, which reads the metric at its next look
            log("starter.overtaken", reason=str(exc))
        except Unavailable as exc:
            log("starter.failed", severity="ERROR", reason=str(exc))
            return str(exc)
        return None

    def _start(self, etag: str) -> None:
        """Set the count. Raises `Overtaken` if another writer changed the pool since it was read."""
        url = f"{self._settings.run_api}/v2/{self._settings.pool}?updateMask=scaling.manualInstanceCount"
        body = {"name": self._settings.pool, "etag": etag, "scaling": {"manualInstanceCount": 1}}
        asked(self._request("PATCH", url, body))

    def _tell_the_autoscaler(self) -> None:
        point = {"interval": {"endTime": datetime.now(UTC).isoformat()}, "value": {"int64Value": "1"}}
        series = {
            "metric": {"type": WAKE_METRIC, "labels": {"pool": self._settings.pool.rsplit("/", 1)[-1]}},
            "resource": {"type": "global", "labels": {"project_id": self._settings.project}},
            "points": [point],
        }
        url = f"{self._settings.monitoring_api}/v3/projects/{self._settings.project}/timeSeries"
        asked(self._request("POST", url, {"timeSeries": [series]}))

    def _request(self, method: str, url: str, body: dict[str, Any] | None = None) -> urllib.request.Request:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._access_token()}", "Content-Type": "application/json"}
        return urllib.request.Request(url, data=data, method=method, headers=headers)

    def _access_token(self) -> str:
        """Return the account's token from the metadata server, kept until a minute before it expires."""
        if self._clock() >= self._token_until:
            url = f"{self._settings.metadata}/computeMetadata/v1/instance/service-accounts/default/token"
            found = asked(urllib.request.Request(url, headers={"Metadata-Flavor": "Google"}))
            self._token = str(found.get("access_token", ""))
            self._token_until = self._clock() + float(found.get("expires_in", 0)) - CLOCKS_DIFFER_SECONDS
        return self._token


def log(message: str, severity: str = "INFO", **fields: object) -> None:
    """Write one line as Cloud Logging reads it."""
    print(json.dumps({"severity": severity, "message": message, **fields}), flush=True)


def handler(identity: Identity, starter: Starter) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers pushes."""

    class Push(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            status, reason = self._status()
            if status is not HTTPStatus.NO_CONTENT:
                log("starter.refused", severity="WARNING", status=status.value, reason=reason)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _status(self) -> tuple[HTTPStatus, str]:
            """Read the message, which is not needed, and decide."""
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit() or int(length) > MOST_BODY_BYTES:
                self.close_connection = True
                return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of {length[:20] or 'unknown'} bytes"
            left = int(length)
            while left and (piece := self.rfile.read(min(left, PIECE_BYTES))):
                left -= len(piece)
            try:
                identity.require(self.headers.get("Authorization"))
                starter.wake()
            except Forged as exc:
                return HTTPStatus.FORBIDDEN, str(exc)
            except Unavailable as exc:
                return HTTPStatus.SERVICE_UNAVAILABLE, str(exc)
            return HTTPStatus.NO_CONTENT, ""

        def log_message(self, *_: object) -> None:
            """Cloud Run logs requests."""

    return Push


class Server(ThreadingHTTPServer):
    """One thread a connection; Cloud Run lets 80 requests in at once."""

    request_queue_size = 256
    daemon_threads = True


def serve(settings: Settings, host: str, port: int) -> Server:
    """Return a server that listens; its `serve_forever` answers."""
    return Server((host, port), handler(Identity(settings), Starter(settings)))


def main() -> None:
    """Serve in an endless loop; exit status 2 if a setting is missing."""
    try:
        settings = Settings(
            project=os.environ["PROJECT_ID"],
            pool=os.environ["POOL"],
            audience=os.environ["AUDIENCE"],
            push_account=os.environ["PUSH_ACCOUNT"],
        )
    except KeyError as exc:
        log("starter.not_configured", severity="ERROR", missing=str(exc))
        sys.exit(2)
    log("starter.ready", pool=settings.pool)
    serve(settings, "0.0.0.0", int(os.environ.get("PORT", "8080"))).serve_forever()  # noqa: S104 - Cloud Run's way in


if __name__ == "__main__":
    main()
