"""Everything `run` needs, verified before the first pull: each check says what it found or what to do."""

from collections.abc import AsyncIterator, Iterator, Mapping

from worker.app.cloud import Cloud
from worker.app.preflight.cloud import cloud_findings
from worker.app.preflight.finding import Finding, NotReady, log_finding, require_all
from worker.settings import EngineSettings, JobSettings, MoneySettings, RoutingSettings

__all__ = [
    "Finding",
    "NotReady",
    "cloud_findings",
    "findings",
    "local_findings",
    "log_finding",
    "require_all",
    "variable_findings",
]


def variable_findings(look_alikes: Mapping[str, str]) -> Iterator[Finding]:
    """Yield an advice for each variable that is ignored but resembles a setting, which the mapping names."""
    for name, setting in look_alikes.items():
        detail = f"no setting has this name, so it is ignored; did you mean {setting}?"
        yield Finding(name=name, ok=True, advice=True, detail=detail)


async def findings(
    cloud: Cloud, jobs: JobSettings, engine: EngineSettings, routing: RoutingSettings, money: MoneySettings
) -> AsyncIterator[Finding]:
    """Check everything but the engine: first what Google Cloud must hold, then what the machine must allow."""
    async for finding in cloud_findings(cloud):
        yield finding
    async for finding in local_findings(jobs, engine, routing, money):
        yield finding


async def local_findings(
    jobs: JobSettings, engine: EngineSettings, routing: RoutingSettings, money: MoneySettings
) -> AsyncIterator[Finding]:
    """Check the machine and the settings, the engine apart."""
    from worker.app.preflight.machine import deepgram_findings, machine_findings  # noqa: PLC0415  their turn is only now

    async for finding in machine_findings(jobs, engine):
        yield finding
    for finding in deepgram_findings(engine, routing, money):
        yield finding
