"""`emulators`: Pub/Sub and Cloud Storage on this machine, in the foreground."""

import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from schemas.text import plain_json
from worker.commands.console import fail, out
from worker.commands.prerequisites import server_problem
from worker.embedded.local_cloud import LocalCloud, local_cloud
from worker.embedded.samples import tiny_model
from worker.telemetry import configure_logging


def emulators(
    root: Path, *, pubsub_port: int, storage_port: int, pubsub_host: str | None = None, as_json: bool = False
) -> None:
    """Serve until Ctrl-C, after printing what to paste into other terminals, or one JSON document."""
    configure_logging()
    if pubsub_host and (problem := server_problem("PUBSUB_EMULATOR_HOST", pubsub_host, "--pubsub-host")):
        fail(problem)
    # SIGTERM ends the block below as Ctrl-C does, so that no server is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with local_cloud(root, pubsub_port=pubsub_port, storage_port=storage_port, pubsub_host=pubsub_host) as cloud:
            if as_json:
                print(plain_json({"environment": _variables(cloud), "root": str(root.resolve())}), flush=True)
            else:
                print("# paste into every other terminal; then: klipstream-worker run")
                print(_exports(cloud), flush=True)
                print("# serving until Ctrl-C; upload objects, do not copy files into their folder:", root.resolve())
                sys.stdout.flush()
            signal.pause()
    except KeyboardInterrupt:
        if not as_json:
            out().print("stopped")


def print_environment(pubsub_target: str, storage_url: str, *, as_json: bool = False) -> None:
    """Print the exports for servers at these addresses, for `eval`, or one JSON document; start nothing."""
    cloud = LocalCloud(pubsub_target=pubsub_target, storage_url=storage_url, root=Path())
    print(plain_json({"environment": _variables(cloud)}) if as_json else _exports(cloud))


def local_model() -> Mapping[str, str]:
    """Return the settings of the tiny model."""
    return {"PARAKEET_MODEL_NAME": str(tiny_model()), "PARAKEET_DEVICE": "cpu"}


def _exports(cloud: LocalCloud) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in _variables(cloud).items())


def _variables(cloud: LocalCloud) -> dict[str, str]:
    return {**cloud.urgent_environment, **local_model()}
