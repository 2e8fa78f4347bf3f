"""A quick look for the things of Google Cloud that a command needs, before anything slow."""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from worker.adapters.machine.network import unreachable
from worker.commands.console import EXIT_USAGE, fail
from worker.commands.failures import SIGN_IN
from worker.settings import CloudSettings, JobSettings

SERVERS = {
    "PUBSUB_EMULATOR_HOST": (
        "host:port",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4" + bytes(5),
        re.compile(rb"...\x04", re.DOTALL),
    ),
    "STORAGE_EMULATOR_HOST": (
        "http://host:port",
        b"GET / HTTP/1.1\r\nHost: storage\r\nConnection: close\r\n\r\n",
        re.compile(rb"HTTP/"),
    ),
}
"""The form of an address, and the first bytes of a client and of an answer: gRPC's are HTTP/2's settings."""
ANSWER_BYTES = 5
ANSWER_SECONDS = 1.5
METADATA_HOST, METADATA_SECONDS = "169.254.169.254", 1.0
GOOGLES = ("KUBERNETES_SERVICE_HOST", "K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "APPENGINE_RUNTIME")
"""Variables of platforms whose metadata server may come up later than the container: Google's client waits for it."""
WELL_KNOWN = "application_default_credentials.json"


def demand_temp_dir(jobs: JobSettings) -> None:
    """End the command where TEMP_DIR is no folder that it can write to."""
    if not jobs.temp_dir.is_dir() or not os.access(jobs.temp_dir, os.W_OK | os.X_OK):
        fail(f"TEMP_DIR: must be a folder that can be written to (got {str(jobs.temp_dir)!r})", EXIT_USAGE)


def demand(cloud: CloudSettings, *, pubsub: bool = False, storage: bool = False, patient: bool = False) -> None:
    """End the command where a server that it needs is not there, or where there are no credentials.

    With `patient` a server that listens and does not answer is let pass, as a worker asks again by itself.
    """
    for missing in missing_services(cloud, pubsub=pubsub, storage=storage, patient=patient):
        fail(missing)


def missing_services(
    cloud: CloudSettings, *, pubsub: bool = True, storage: bool = True, patient: bool = False
) -> Iterator[str]:
    """Yield what is missing and what to do about it; takes a second for each, and most often nothing."""
    signs_in = False
    servers = (
        (pubsub, "PUBSUB_EMULATOR_HOST", cloud.pubsub_emulator_host),
        (storage, "STORAGE_EMULATOR_HOST", cloud.storage_emulator_host),
    )
    for needed, variable, address in servers:
        if needed and address and (problem := server_problem(variable, address, patient=patient)):
            yield f"{problem}: start the development servers (klipstream-worker emulators), or unset {variable}"
        signs_in |= needed and not address
    if signs_in:
        yield from missing_credentials(os.environ)


def server_problem(variable: str, address: str, name: str = "", *, patient: bool = False) -> str:
    """Return why the address is none of such a server, or an empty string; `name` is its name for the user."""
    name = name or variable
    form, greeting, answer = SERVERS[variable]
    try:
        parts = urlsplit(address if "://" in form else f"//{address}")
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        host = port = None
    if not host or not port:
        return f"{name}={address} is no address, which has the form {form}"
    if reason := unreachable(host, port):
        return f"nothing listens on {host}:{port} ({reason})"
    if parts.scheme != "https" and (reason := _stranger(host, port, greeting, answer, patient=patient)):
        return f"what listens on {host}:{port} is not what {name} is for ({reason})"
    return ""


def _stranger(host: str, port: int, greeting: bytes, answer: re.Pattern[bytes], *, patient: bool) -> str:
    """Return why the server does not speak the protocol of the greeting, or an empty string where it does."""
    begun = b""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(greeting)
            while len(begun) < ANSWER_BYTES and (more := connection.recv(ANSWER_BYTES)):
                begun += more
        reason = "it speaks another protocol" if begun else "it ends the connection without an answer"
    except TimeoutError:
        reason = f"no answer within {ANSWER_SECONDS:g} s"
    except OSError as exc:
        reason = exc.strerror or str(exc)
    is_known = answer.match(begun) or (patient and not begun)
    return "" if is_known else reason


def missing_credentials(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong where no application default credentials can be found; no server is asked for a token."""
    if named := environment.get("GOOGLE_APPLICATION_CREDENTIALS"):
        if not Path(named).is_file():
            yield f"GOOGLE_APPLICATION_CREDENTIALS: there is no file {named}: correct it, or unset it and {SIGN_IN}"
        return
    if os.name == "nt" or _well_known(environment).is_file() or any(name in environment for name in GOOGLES):
        return
    host = environment.get("GCE_METADATA_HOST") or environment.get("GCE_METADATA_IP") or METADATA_HOST
    if environment.get("NO_GCE_CHECK", "").lower() == "true" or not _is_google(host):
        yield f"no credentials for Google Cloud: {SIGN_IN}"


def _is_google(host: str) -> bool:
    """Return True where Google's metadata server answers; other clouds have theirs at the same address."""
    connection = HTTPConnection(host, timeout=METADATA_SECONDS)
    try:
        connection.request("GET", "/", headers={"Metadata-Flavor": "Google"})
        return connection.getresponse().headers.get("Metadata-Flavor") == "Google"
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _well_known(environment: Mapping[str, str]) -> Path:
    folder = environment.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud")  # noqa: PTH111  never raises
    return Path(folder) / WELL_KNOWN
