"""`run`: the worker."""

import asyncio
import os
import sys
from typing import NoReturn

from worker.adapters.machine.instance import worker_name
from worker.adapters.web.answers import HealthPortTaken
from worker.app.preflight import NotReady
from worker.app.worker import run_worker
from worker.commands.console import fail, load_settings
from worker.errors import Fatal, QueueServiceError, StorageServiceError, WorkerFault
from worker.telemetry import configure_logging
from worker.telemetry.export import ExportRefused


def run() -> None:
    """Work until told to stop."""
    settings = load_settings()
    configure_logging(settings.telemetry.log_format, project_id=settings.cloud.project_id, worker=worker_name())
    try:
        asyncio.run(run_worker(settings))
    except asyncio.CancelledError:
        _leave()
    except NotReady as exc:
        fail(f"not ready to run: {exc}")
    except (HealthPortTaken, ExportRefused) as exc:
        fail(str(exc))
    except (Fatal, WorkerFault, QueueServiceError, StorageServiceError) as exc:
        fail(f"{exc}: {exc.suggested_action}")
    _leave()


def _leave() -> NoReturn:
    """End the process now, successfully; what must be written has been.

    The interpreter would first wait for threads whose requests are stalled, ten seconds and more, and SIGKILL is near.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
