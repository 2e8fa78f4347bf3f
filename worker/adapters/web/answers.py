"""The vocabulary of the health port, apart from the server: importing it loads no web library."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

JSON = "application/json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The response of a route."""

    status: int
    body: bytes
    content_type: str = JSON


Route: TypeAlias = Callable[[], Answer]
"""Called in the server's thread; returns at once."""


class HealthPortTaken(Exception):
    """The address that cannot be bound."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host, self.port, self.reason = host, port, reason
        super().__init__(f"HEALTH_PORT {port} on {host}: {reason}; stop what listens there, or set HEALTH_PORT=0")
