"""Everything `run` needs, verified before the first pull: each check says what it found or what to do."""

from collections.abc import AsyncIterator

from worker.app.cloud import Cloud
from worker.app.preflight.cloud import cloud_findings
from worker.app.preflight.finding import Finding, NotReady, demand
from worker.settings import Settings

__all__ = ["Finding", "NotReady", "demand", "findings"]


async def findings(settings: Settings, cloud: Cloud) -> AsyncIterator[Finding]:
    """Check everything but the engine: first what Google Cloud must hold, then what the machine must allow."""
    async for finding in cloud_findings(settings, cloud):
        yield finding
    from worker.app.preflight.machine import machine_findings  # noqa: PLC0415  Deepgram's SDK: its turn is only now

    async for finding in machine_findings(settings):
        yield finding
