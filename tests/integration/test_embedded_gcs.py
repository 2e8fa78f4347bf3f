import asyncio
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest
import structlog

from tests.support.services.gcs import store_at
from worker.embedded.gcs import EmbeddedGcs, EmbeddedServerFailed
from worker.ports import ObjectRef

PARENT = """
import sys
from pathlib import Path
from worker.embedded.gcs import EmbeddedGcs
from worker.telemetry import configure_logging
configure_logging()
with EmbeddedGcs(Path(sys.argv[1])) as server:
    print(server._server._process.pid, flush=True)
    sys.stdin.read()  # until it is killed, or the test is gone
"""


async def test_objects_and_buckets_are_found_again_by_the_next_server(tmp_path: Path) -> None:
    ref = ObjectRef("kept", "a/b")
    with EmbeddedGcs(tmp_path) as first:
        first.create_buckets(["kept", "kept"])
        async with store_at(first.url) as store:
            written = await store.write(ref, b"1", content_type="text/plain")

    with EmbeddedGcs(tmp_path) as second:
        second.create_buckets(["kept"])
        async with store_at(second.url) as store:
            found = await store.stat(ref)

    assert (found.crc32c, found.generation) == (written.crc32c, written.generation)


def test_it_says_that_it_is_for_development_and_leaves_no_process(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as events, EmbeddedGcs(tmp_path) as server:
        process = psutil.Process(server._server._process.pid)

    assert events[0]["event"] == "embedded_gcs.started"
    assert events[0]["hint"] == "for development only"
    assert not process.is_running()


def test_a_port_that_is_taken_is_an_error_that_says_so(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        with (
            pytest.raises(EmbeddedServerFailed, match="address already in use"),
            EmbeddedGcs(tmp_path, other.getsockname()[1]),
        ):
            pytest.fail("that server is not ours")


def test_a_wheel_that_is_not_installed_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.embedded.gcs.WHEEL", "no_such_wheel")

    with pytest.raises(EmbeddedServerFailed, match="pip install"), EmbeddedGcs(tmp_path):
        pytest.fail("there is no server")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child that its parent died")
async def test_kill_9_of_the_parent_leaves_no_server(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert parent.stdout
    server = psutil.Process(int(await parent.stdout.readline()))

    parent.send_signal(signal.SIGKILL)
    await parent.communicate()

    assert psutil.wait_procs([server], timeout=5)[1] == []
