"""`emulators`: Pub/Sub and Cloud Storage on this machine, in the foreground."""

import signal
import sys
from pathlib import Path

from worker.commands.console import fail, out
from worker.embedded.gcs import EmbeddedServerFailed
from worker.embedded.local_cloud import local_cloud
from worker.embedded.samples import tiny_model
from worker.telemetry import configure_logging


def emulators(root: Path, *, pubsub_port: int, storage_port: int) -> None:
    """Serve until Ctrl-C, after printing what to paste into other terminals."""
    configure_logging()
    # SIGTERM ends the block below as Ctrl-C does, so that no server is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with local_cloud(root, pubsub_port=pubsub_port, storage_port=storage_port) as cloud:
            worker = {"PARAKEET_MODEL_NAME": str(tiny_model()), "PARAKEET_DEVICE": "cpu", "HEALTH_PORT": "0"}
            exports = {**cloud.environment, **worker}
            print("# paste into every other terminal; then: klipstream-worker run")
            for name, value in exports.items():
                print(f"export {name}={value}", flush=True)
            print(f"# serving until Ctrl-C; objects lie in {root.resolve()}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        out().print("stopped")
    except (OSError, EmbeddedServerFailed) as exc:
        fail(str(exc))
