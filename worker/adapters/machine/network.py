"""One look at whether anything listens at an address."""

import socket
import threading


def unreachable(host: str, port: int, seconds: float = 1.0) -> str:
    """Return why no TCP connection to the address opens in that time, or an empty string where one does."""
    outcome = [f"no answer within {seconds:g} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError as exc:
            outcome.append(exc.strerror or str(exc))
        else:
            outcome.append("")

    # a look-up of a name cannot be cut short: it is left behind
    thread = threading.Thread(target=connect, name="probe", daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[-1]
