"""The command line, run inside the test's own process."""

import asyncio
import os
from collections.abc import Mapping
from unittest import mock

import structlog
from typer.testing import CliRunner, Result

from worker.cli import app


async def command(*words: str, environment: Mapping[str, str]) -> Result:
    """Run it in a thread, as it has an event loop of its own, in exactly that environment."""
    return await asyncio.to_thread(run, *words, environment=environment)


def run(*words: str, environment: Mapping[str, str]) -> Result:
    """Run it and give back what it printed and its exit status."""
    before = structlog.get_config()
    with mock.patch.dict(os.environ, {"COLUMNS": "200", **environment}, clear=True):
        try:
            return CliRunner().invoke(app, words)
        finally:
            structlog.configure(**before)
