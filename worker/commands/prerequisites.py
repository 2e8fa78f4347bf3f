"""A quick look for the things of Google Cloud that a command needs, before anything slow."""

import os
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from worker.adapters.machine.network import unreachable
from worker.commands.console import fail
from worker.commands.failures import SIGN_IN
from worker.settings import CloudSettings

METADATA_HOST, METADATA_SECONDS = "169.254.169.254", 1.0
GOOGLES = ("KUBERNETES_SERVICE_HOST", "K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "APPENGINE_RUNTIME")
"""Variables of platforms whose metadata server may come up later than the container: Google's client waits for it."""
WELL_KNOWN = "application_default_credentials.json"


def demand(cloud: CloudSettings, *, pubsub: bool = False, storage: bool = False) -> None:
    """End the command where a server that it needs is not there, or where there are no credentials."""
    for missing in missing_services(cloud, pubsub=pubsub, storage=storage):
        fail(missing)


def missing_services(cloud: CloudSettings, *, pubsub: bool = True, storage: bool = True) -> Iterator[str]:
    """Yield what is missing and what to do about it; takes a second for each, and most often nothing."""
    signs_in = False
    servers = (
        (pubsub, "PUBSUB_EMULATOR_HOST", cloud.pubsub_emulator_host),
        (storage, "STORAGE_EMULATOR_HOST", cloud.storage_emulator_host),
    )
    for needed, variable, address in servers:
        if needed and address:
            yield from _silent(variable, address)
        signs_in |= needed and not address
    if signs_in:
        yield from missing_credentials(os.environ)


def _silent(variable: str, address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        host = port = None
    if not host or not port:
        yield f"{variable}={address} is no address: write host:port"
    elif reason := unreachable(host, port):
        servers = "start the development servers (klipstream-worker emulators)"
        yield f"nothing listens on {host}:{port} ({reason}): {servers}, or unset {variable}"


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
