"""Faults of a speech service and of the network to it, on request."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

PLAIN_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Answers this, whatever was sent."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reset:
    """Resets the connection: with the whole audio received (and so paid for), or at its first bytes."""

    after_upload: bool


@dataclass(frozen=True, kw_only=True)
class Slow:
    """Answers rightly, but late."""

    seconds: float


Fault: TypeAlias = Reply | Reset | Slow

Misbehave: TypeAlias = Callable[[int], Fault | None]
"""Returns the fault of a request by its number, counted from 0; None: serve it. A dictionary's `get` is one."""


def well_behaved(_number: int) -> None:
    """No fault, ever."""


UNUSABLE = (
    Reply(status=200, body=b"<html>we are improving things</html>"),
    Reply(status=200, body=b"{}"),
    Reply(status=200, body=b'{"metadata": {}, "results": {"channels": [{"alternatives": []}]}}'),
    Reply(status=200, body=b'{"metadata": [], "results": {"channels": {"alternatives": 5}}}'),
)


@dataclass(frozen=True, kw_only=True)
class SeededFaults:
    """Shares of requests that go wrong; which ones is a pure function of seed and number.

    Refusals for too many requests come in bursts of `burst_length`, the others one by one.
    """

    seed: int
    burst_share: float = 0.0
    burst_length: int = 4
    retry_after_seconds: int = 1
    server_error_share: float = 0.0
    reset_share: float = 0.0
    unusable_share: float = 0.0
    slow_share: float = 0.0
    slow_seconds: float = 1.0

    def __call__(self, number: int) -> Fault | None:
        """See `Misbehave`."""
        if self._rng("burst", number // self.burst_length).random() < self.burst_share:
            return self._too_many_requests()
        rng = self._rng("request", number)
        drawn, upper = rng.random(), 0.0
        for share, fault in (
            (self.server_error_share, _server_error(rng)),
            (self.reset_share, Reset(after_upload=True)),
            (self.unusable_share, rng.choice(UNUSABLE)),
            (self.slow_share, Slow(seconds=self.slow_seconds)),
        ):
            upper += share
            if drawn < upper:
                return fault
        return None

    def _rng(self, purpose: str, number: int) -> random.Random:
        return random.Random(f"{self.seed} {purpose} {number}")  # noqa: S311 - faults, not secrets

    def _too_many_requests(self) -> Reply:
        return Reply(
            status=429,
            body=error_body("TOO_MANY_REQUESTS", "Too many requests. Please try again later.", "none"),
            headers={"retry-after": str(self.retry_after_seconds)},
        )


def _server_error(rng: random.Random) -> Reply:
    status = rng.choice((500, 502, 503, 504))
    return Reply(status=status, body=b"upstream trouble", headers={"content-type": PLAIN_TEXT})


def error_body(code: str, message: str, request_id: str) -> bytes:
    """Return a refusal's body, in the most frequent one of its three shapes."""
    return json.dumps({"err_code": code, "err_msg": message, "request_id": request_id}).encode()
