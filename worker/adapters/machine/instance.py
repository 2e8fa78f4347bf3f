"""The name of this process, and of the revision of the deployment it belongs to.

On Cloud Run every instance has the host name `localhost` and the process number 1. There the name is the instance's id
from the metadata server, and `CLOUD_RUN_REVISION` (a service: `K_REVISION`) is the revision. Elsewhere the name is the
host name and the process number, and `WORKER_REVISION` may set the revision. No grants are needed.
"""

import functools
import hashlib
import http.client
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

REVISION_VARIABLES = ("CLOUD_RUN_REVISION", "K_REVISION", "WORKER_REVISION")
METADATA_HOST = "metadata.google.internal"
METADATA_SECONDS = 1.0
METADATA_TRIES = 3
ID_LETTERS = 12
NAMES_NO_HOST = frozenset({"localhost", ""})


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """A process of the worker. `revision` is empty where nothing names it."""

    name: str
    revision: str


def identify(
    environment: Mapping[str, str], host: str, process_id: int, instance_id: Callable[[], str | None]
) -> Instance:
    """Return the name and revision; `instance_id` is called only if the host name is not unique.

    Without an instance id the name has a random part, so that no two processes share a name.
    """
    revision = next((found for name in REVISION_VARIABLES if (found := environment.get(name))), "")
    if host in NAMES_NO_HOST:
        unique = instance_id() or uuid.uuid4().hex
        host = hashlib.sha256(unique.encode()).hexdigest()[:ID_LETTERS]
    name = f"{host}-{process_id}"
    return Instance(name=f"{revision}/{name}" if revision else name, revision=revision)


def metadata_instance_id(host: str, seconds: float = METADATA_SECONDS) -> str | None:
    """Return the instance's id from Google's metadata server, or None. Blocks for `seconds` a try."""
    for _ in range(METADATA_TRIES):
        connection = http.client.HTTPConnection(host, timeout=seconds)
        try:
            connection.request("GET", "/computeMetadata/v1/instance/id", headers={"Metadata-Flavor": "Google"})
            answer = connection.getresponse()
            if answer.status == http.client.OK and (found := answer.read().decode("ascii", "replace").strip()):
                return found
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()
    return None


@functools.cache
def this_instance() -> Instance:
    """Return this process's identity, found out once: it must be the same in claims, events, metrics and logs."""
    host = os.environ.get("GCE_METADATA_HOST", METADATA_HOST)
    return identify(os.environ, socket.gethostname(), os.getpid(), lambda: metadata_instance_id(host))


def worker_name() -> str:
    """Return what this process is called in claims, events, metrics and logs."""
    return this_instance().name
