import errno
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from worker.adapters.web import http_server
from worker.adapters.web.answers import Answer, HealthPortTaken, listen
from worker.adapters.web.http_server import HealthServer
from worker.commands.health_port import fetch

ROUTES = {"/ready": lambda: Answer(status=200, body=b"yes\n"), "/live": lambda: Answer(status=503, body=b"no\n")}


def exchange(server: HealthServer, request: bytes, later: bytes = b"") -> bytes:
    """Return the server's answer to these bytes, until it closes; `later` is sent once it has answered."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        first = connection.recv(4096)
        if later:
            connection.sendall(later)
        return first + b"".join(iter(lambda: connection.recv(4096), b""))


def test_a_page_is_answered_with_its_status() -> None:
    with HealthServer(ROUTES, host="127.0.0.1", port=0) as server:
        assert fetch(f"{server.url}/ready") == (200, b"yes\n")
        assert fetch(f"{server.url}/live") == (503, b"no\n")


def test_other_pages_are_not_there() -> None:
    with HealthServer(ROUTES, host="127.0.0.1", port=0) as server:
        assert fetch(f"{server.url}/etc/passwd")[0] == 404


def test_a_query_does_no_harm_and_head_has_no_body() -> None:
    with HealthServer(ROUTES, host="127.0.0.1", port=0) as server:
        head = exchange(server, b"HEAD /ready?x=1 HTTP/1.1\r\nhost: h\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200")
    assert head.endswith(b"\r\n\r\n")


def test_only_reading_is_allowed() -> None:
    with HealthServer(ROUTES, host="127.0.0.1", port=0) as server:
        answer = exchange(server, b"POST /ready HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405")
    assert b"allow: GET, HEAD" in head
    assert body == b'{"error": "answered here: GET, HEAD"}\n'


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET /ready SMTP/9\r\n\r\n"])
def test_bytes_that_are_not_http_are_refused_and_the_connection_closed(noise: bytes) -> None:
    with HealthServer(ROUTES, host="127.0.0.1", port=0) as server:
        assert exchange(server, noise).startswith(b"HTTP/1.1 400")
        assert fetch(f"{server.url}/ready")[0] == 200


def test_a_connection_without_a_request_is_closed_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.1)

    with HealthServer(ROUTES, host="127.0.0.1", port=0) as server:
        assert exchange(server, b"GET /rea") == b""


class _Pages:
    """One page that leaves the connection open."""

    def routes(self) -> list[BaseRoute]:
        async def endpoint(_: Request) -> Response:
            return Response("kept")

        return [Route("/kept", endpoint)]

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield


def test_a_connection_whose_second_request_does_not_arrive_whole_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.1)

    with HealthServer(ROUTES, host="127.0.0.1", port=0, pages=_Pages()) as server:
        answer = exchange(server, b"GET /kept HTTP/1.1\r\nhost: h\r\n\r\n", b"GET /rea")

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"kept")


def test_the_server_listens_on_ipv6_too() -> None:
    with HealthServer(ROUTES, host="::1", port=0) as server:
        assert server.url.startswith("http://[::1]:")
        assert fetch(f"{server.url}/ready") == (200, b"yes\n")


def test_the_modules_of_the_worker_load_no_web_library() -> None:
    program = (
        "import sys, worker.app.worker, worker.commands.run; print({'starlette', 'uvicorn', 'jinja2'} & {*sys.modules})"
    )

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout

    assert printed == "set()\n"


def test_a_silent_client_does_not_delay_other_clients() -> None:
    with HealthServer(ROUTES, host="127.0.0.1", port=0) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))):
            assert fetch(f"{server.url}/ready")[0] == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "0.0.0.0:8080"])
def test_an_address_of_another_machine_gets_another_remedy_than_a_taken_port(host: str) -> None:
    with pytest.raises(HealthPortTaken, match="set HEALTH_HOST to an address of this machine"):
        listen(host, 8080)


def test_a_port_that_only_root_may_take_gets_another_remedy_than_a_taken_one() -> None:
    refused = HealthPortTaken("127.0.0.1", 80, OSError(errno.EACCES, "Permission denied"))

    assert "set HEALTH_PORT to 1024 or above" in str(refused)


def test_a_taken_port_is_named() -> None:
    with (
        HealthServer(ROUTES, host="127.0.0.1", port=0) as first,
        pytest.raises(HealthPortTaken, match="HEALTH_PORT=0"),
        HealthServer(ROUTES, host="127.0.0.1", port=int(first.url.rpartition(":")[2])),
    ):
        pass
