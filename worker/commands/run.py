"""`run`: the worker."""

import asyncio
import os
import sys
from contextlib import suppress
from typing import NoReturn

from worker.adapters.machine.instance import worker_name
from worker.app.recogniser import make_engine, may_do_without_gpu, start_early
from worker.commands.console import load_settings
from worker.commands.prerequisites import demand
from worker.telemetry import configure_logging


def run() -> None:
    """Run a worker until SIGTERM or SIGINT."""
    settings = load_settings()
    log_format, log_level = settings.telemetry.log_format, settings.telemetry.log_level
    configure_logging(log_format, log_level, project_id=settings.cloud.project_id, worker=worker_name())
    demand(settings.cloud, pubsub=True, storage=True, patient=True)
    may_do_without = may_do_without_gpu(settings.engine)
    engine = make_engine(settings.engine, settings.cloud, log_format, log_level, may_do_without=may_do_without)
    start_early(engine)
    # These imports take a second of a processor, as the inference process does for its own at the same time.
    from worker.app.worker import run_worker  # noqa: PLC0415

    with suppress(asyncio.CancelledError):
        asyncio.run(run_worker(settings, engine))
    _leave()


def _leave() -> NoReturn:
    """End the process now, successfully; what must be written has been.

    The interpreter would first wait for threads whose requests are stalled, ten seconds and more, and SIGKILL is near.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
