"""`run`: the worker."""

import asyncio

from worker.app import run_worker
from worker.commands.console import fail, load_settings
from worker.errors import GpuNotAvailable, ModelLoadingError, QueueNotFound, QueueServiceError, StorageServiceError
from worker.preflight import NotReady
from worker.telemetry import configure_logging


def run() -> None:
    """Work until told to stop."""
    settings = load_settings()
    configure_logging(settings.log_format)
    try:
        asyncio.run(run_worker(settings))
    except asyncio.CancelledError:
        return
    except NotReady as exc:
        fail(f"not ready to run: {exc}")
    except (GpuNotAvailable, ModelLoadingError, QueueNotFound, QueueServiceError, StorageServiceError) as exc:
        fail(f"{exc}: {exc.suggested_action}")
