"""The quick look for servers: another protocol ends everyone, a bad moment ends a command and no worker."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from worker.commands.prerequisites import server_problem

HTTP = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
GRPC = b"\0\0\6\4\0\0\0\0\0"
"""The head of a frame of HTTP/2's settings."""


@contextmanager
def answering(*parts: bytes) -> Iterator[str]:
    """A server that sends these bytes on each connection, a packet each, and ends it."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1024)
            for part in parts:
                self.request.sendall(part)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize("parts", [(HTTP,), (HTTP[:2], HTTP[2:])])
def test_a_server_of_the_right_protocol_passes_however_its_bytes_come(parts: tuple[bytes, ...], patient: bool) -> None:
    with answering(*parts) as address:
        assert server_problem("STORAGE_EMULATOR_HOST", f"http://{address}", patient=patient) == ""
    with answering(GRPC[:3], GRPC[3:]) as address:
        assert server_problem("PUBSUB_EMULATOR_HOST", address, patient=patient) == ""


@pytest.mark.parametrize("patient", [False, True])
def test_another_protocol_is_named_to_everyone(patient: bool) -> None:
    with answering(HTTP) as address:
        assert "another protocol" in server_problem("PUBSUB_EMULATOR_HOST", address, patient=patient)
    with answering(GRPC) as address:
        assert "another protocol" in server_problem("STORAGE_EMULATOR_HOST", f"http://{address}", patient=patient)


def test_a_connection_that_is_cut_ends_a_command_and_no_worker() -> None:
    with answering() as address:
        assert "ends the connection" in server_problem("PUBSUB_EMULATOR_HOST", address)
        assert server_problem("PUBSUB_EMULATOR_HOST", address, patient=True) == ""


def test_a_server_that_says_nothing_ends_a_command_and_no_worker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"

        assert "no answer within" in server_problem("PUBSUB_EMULATOR_HOST", address)
        assert server_problem("PUBSUB_EMULATOR_HOST", address, patient=True) == ""
