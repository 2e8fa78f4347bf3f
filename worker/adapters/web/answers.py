"""The vocabulary of the health port, apart from the server: importing it loads no web library."""

import errno
import socket
from dataclasses import dataclass

JSON = "application/json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The response of a route."""

    status: int
    body: bytes
    content_type: str = JSON


class HealthPortTaken(Exception):
    """The address that cannot be bound."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        self.host, self.port = host, port
        self.reason = (error.strerror or str(error)).partition(" (while")[0]  # what socket adds repeats the address
        match error.errno:
            case errno.EADDRINUSE:
                remedy = "stop what listens there, or set HEALTH_PORT=0"
            case errno.EACCES:
                remedy = "set HEALTH_PORT to 1024 or above, or to 0"
            case _:
                remedy = "set HEALTH_HOST to an address of this machine, such as 127.0.0.1 or 0.0.0.0"
        super().__init__(f"HEALTH_PORT {port} on {host}: {self.reason}; {remedy}")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address; port 0 takes a free one. Raises `HealthPortTaken`."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as exc:
        raise HealthPortTaken(host, port, exc) from exc
