"""Errors in words: each kind is one line with a remedy, and has an exit code."""

import errno
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from google.api_core import exceptions as google
from google.auth import exceptions as auth

from schemas.job import JobRejected
from worker.adapters.gpu import absent_gpu
from worker.adapters.machine.network import unreachable
from worker.commands.failures import failure_of
from worker.commands.prerequisites import missing_credentials, missing_services
from worker.errors import (
    GpuNotAvailable,
    ModelLoadingError,
    ObjectForbidden,
    ObjectNotFound,
    QueueNotFound,
    QueueServiceError,
    StorageServiceError,
)
from worker.settings import CloudSettings

NO_CREDENTIALS = auth.DefaultCredentialsError("Your default credentials were not found.")
SIGN_IN = "gcloud auth application-default login"
NETWORK = "check the network"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


KNOWN = [
    (NO_CREDENTIALS, SIGN_IN),
    (auth.RefreshError("Reauthentication is needed."), SIGN_IN),
    (auth.TransportError("no route"), NETWORK),
    (caused(StorageServiceError("sign in to", "gs://", "x"), NO_CREDENTIALS), SIGN_IN),
    (google.NotFound("Topic not found"), "create it (deploy/provision.sh)"),
    (google.PermissionDenied("may not publish"), "grant it to the account that is signed in"),
    (google.Unauthenticated("who are you"), SIGN_IN),
    (google.ServiceUnavailable("failed to connect"), NETWORK),
    (google.RetryError("Timeout of 60.0s exceeded", cause=None), NETWORK),
    (google.InvalidArgument("bad filter"), "Google Cloud refuses this: bad filter"),
    (ObjectNotFound("gs://lost/results/*", "list"), "there is no bucket gs://lost"),
    (ObjectNotFound("gs://there/lost.mp3"), "no object at gs://there/lost.mp3: correct the name"),
    (ObjectForbidden("read", "gs://theirs/a"), "grant it"),
    (StorageServiceError("list", "gs://b/*", "ConnectionError: HTTPSConnectionPool"), NETWORK),
    (QueueNotFound("projects/p/topics/lost"), "projects/p/topics/lost: create it"),
    (QueueServiceError("pull", "projects/p/subscriptions/s", "403 no", refused=True), "grant it"),
    (QueueServiceError("pull", "projects/p/subscriptions/s", "503 no"), NETWORK),
    (GpuNotAvailable("CUDA finds no device"), "PARAKEET_DEVICE=cpu"),
    (ModelLoadingError("lost.nemo", "there is no file lost.nemo"), "correct PARAKEET_MODEL_NAME"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "lost.mp3"), "lost.mp3: No such file or directory"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "music"), "music: Is a directory; name a file"),
    (PermissionError(errno.EACCES, "Permission denied", b"/srv/x"), "/srv/x: Permission denied; choose another"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some"),
    (OSError(errno.EADDRINUSE, "Address already in use"), "choose another port"),
    (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
    (TimeoutError("no confirmation from Pub/Sub within 60 s"), "no confirmation from Pub/Sub within 60 s"),
    (ModuleNotFoundError("No module named 'torch'", name="torch"), "torch is not installed: pip install"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not understood"),
    (MemoryError(), "too little memory"),
    (ExceptionGroup("several", [NO_CREDENTIALS]), SIGN_IN),
]


@pytest.mark.parametrize(("error", "words"), KNOWN, ids=lambda value: type(value).__name__)
def test_a_known_error_is_one_line_with_a_remedy(error: Exception, words: str) -> None:
    failure = failure_of(error)

    assert words in failure.message
    assert "\n" not in failure.message
    assert "replay" not in failure.message
    assert (failure.code, failure.is_defect) == (1, False)


def test_what_is_no_job_is_an_error_of_usage() -> None:
    failure = failure_of(JobRejected(("video_id: must not be empty",)))

    assert (failure.message, failure.code) == ("not a valid job: video_id: must not be empty", 2)


def test_an_unexpected_error_names_its_place_and_asks_for_a_report() -> None:
    try:
        CloudSettings(project_id="p").no_such_field  # type: ignore[attr-defined]  # noqa: B018
    except AttributeError as error:
        failure = failure_of(error)

    assert failure.is_defect
    assert failure.message.startswith("unexpected AttributeError")
    assert "--debug" in failure.message


@pytest.mark.parametrize("address", ["nonsense", "host:port", ":8085", "[::1"])
def test_an_address_that_is_none_is_named_with_its_variable(address: str) -> None:
    (missing,) = missing_services(CloudSettings(pubsub_emulator_host=address), storage=False)

    assert missing.startswith(f"PUBSUB_EMULATOR_HOST={address} is no address, which has the form host:port: ")


@pytest.mark.parametrize("address", ["http://h:port", "http://:4443"])
def test_an_address_of_storage_that_is_no_url_is_named(address: str) -> None:
    (missing,) = missing_services(CloudSettings(storage_emulator_host=address), pubsub=False)

    assert missing.startswith(f"STORAGE_EMULATOR_HOST={address} is no address, which has the form http://host:port: ")


def test_a_name_without_an_address_is_not_waited_for() -> None:
    (missing,) = missing_services(CloudSettings(storage_emulator_host="http://no-such-host.invalid:1"), pubsub=False)

    assert missing.startswith("nothing listens on no-such-host.invalid:1")
    assert unreachable("127.0.0.1", 1) == "Connection refused"


class _Metadata(BaseHTTPRequestHandler):
    """A metadata server, of Google's or of another cloud's."""

    headers_of_google = True

    def do_GET(self) -> None:
        self.send_response(200)
        if self.headers_of_google:
            self.send_header("Metadata-Flavor", "Google")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


class _OtherMetadata(_Metadata):
    headers_of_google = False


@pytest.fixture(params=[_Metadata, _OtherMetadata])
def metadata(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """Its address, and whether it is Google's."""
    with HTTPServer(("127.0.0.1", 0), request.param) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", request.param.headers_of_google
        server.shutdown()
        thread.join()


def test_the_metadata_server_of_google_alone_has_credentials(metadata: tuple[str, bool], tmp_path: Path) -> None:
    address, is_google = metadata

    missing = list(missing_credentials({"GCE_METADATA_HOST": address, "CLOUDSDK_CONFIG": str(tmp_path)}))

    assert (missing == []) == is_google


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"NO_GCE_CHECK": "true"}, False),
        ({"NO_GCE_CHECK": "true", "GOOGLE_APPLICATION_CREDENTIALS": __file__}, True),
        ({"NO_GCE_CHECK": "true", "GOOGLE_APPLICATION_CREDENTIALS": "/lost.json"}, False),
        ({"NO_GCE_CHECK": "true", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
        ({"NO_GCE_CHECK": "true", "CLOUD_RUN_WORKER_POOL": "pool"}, True),
    ],
)
def test_credentials_are_looked_for_where_googles_client_does(
    environment: dict[str, str], found: bool, tmp_path: Path
) -> None:
    assert (list(missing_credentials({"CLOUDSDK_CONFIG": str(tmp_path), **environment})) == []) == found

    (tmp_path / "application_default_credentials.json").write_text("{}")
    signed_in = list(missing_credentials({"CLOUDSDK_CONFIG": str(tmp_path), **environment}))
    assert signed_in == [] or "GOOGLE_APPLICATION_CREDENTIALS" in environment


def test_a_device_file_may_be_a_gpu_and_a_hidden_one_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()
    assert absent_gpu(tmp_path) == ""

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert absent_gpu(tmp_path) == "CUDA_VISIBLE_DEVICES hides every GPU"
