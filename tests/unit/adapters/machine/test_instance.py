import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from worker.adapters.machine.instance import identify, metadata_instance_id

CLOUD_RUN = {"CLOUD_RUN_WORKER_POOL": "pool", "CLOUD_RUN_REVISION": "pool-00007-abc"}


@contextmanager
def metadata_server(*statuses: int, instance_id: str = "00bf4bf02d") -> Iterator[str]:
    """Answer with these statuses in turn, repeating the last; refuse requests without Google's header."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = left.pop(0) if len(left) > 1 else left[0]
            right = self.path == "/computeMetadata/v1/instance/id" and self.headers["Metadata-Flavor"] == "Google"
            body = instance_id.encode() if status == http.client.OK else b""
            self.send_response(status if right else http.client.FORBIDDEN)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_instances_of_cloud_run_have_different_names_though_host_and_process_number_are_the_same() -> None:
    first = identify(CLOUD_RUN, "localhost", 1, lambda: "00bf4bf02d")
    second = identify(CLOUD_RUN, "localhost", 1, lambda: "00bf4bf02e")

    assert first.name != second.name


def test_the_name_of_an_instance_is_the_same_each_time() -> None:
    assert identify(CLOUD_RUN, "localhost", 1, lambda: "x") == identify(CLOUD_RUN, "localhost", 1, lambda: "x")


def test_the_name_says_which_revision_it_is() -> None:
    found = identify(CLOUD_RUN, "localhost", 1, lambda: "00bf4bf02d")

    assert found.revision == "pool-00007-abc"
    assert found.name.startswith("pool-00007-abc/")


@pytest.mark.parametrize("variable", ["CLOUD_RUN_REVISION", "K_REVISION", "WORKER_REVISION"])
def test_any_platforms_revision_is_taken(variable: str) -> None:
    assert identify({variable: "r-1"}, "host", 7, lambda: None).revision == "r-1"


def test_outside_cloud_run_host_and_process_are_the_name_without_a_request() -> None:
    def ask() -> str:
        raise AssertionError("no metadata server is needed here")

    found = identify({}, "gpu-3", 4711, ask)

    assert (found.name, found.revision) == ("gpu-3-4711", "")


def test_without_a_metadata_server_names_differ_all_the_same() -> None:
    names = {identify(CLOUD_RUN, "localhost", 1, lambda: None).name for _ in range(50)}

    assert len(names) == 50


def test_the_instance_id_comes_from_the_metadata_server() -> None:
    with metadata_server(200) as host:
        assert metadata_instance_id(host) == "00bf4bf02d"


def test_a_metadata_server_that_fails_at_first_is_asked_again() -> None:
    with metadata_server(503, 200) as host:
        assert metadata_instance_id(host) == "00bf4bf02d"


@pytest.mark.parametrize("status", [404, 503])
def test_a_metadata_server_that_does_not_know_is_given_up(status: int) -> None:
    with metadata_server(status) as host:
        assert metadata_instance_id(host) is None


def test_where_nothing_listens_there_is_no_instance_id() -> None:
    with metadata_server(200) as host:
        pass

    assert metadata_instance_id(host) is None
