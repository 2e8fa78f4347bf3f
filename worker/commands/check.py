"""`check`: everything that `run` needs, each line ok or what to do."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.auth.exceptions import GoogleAuthError

from worker.app.cloud import open_cloud
from worker.app.preflight import Finding, cloud_findings, variable_findings
from worker.commands.console import EXIT_FAILED, load_settings, say, say_json
from worker.commands.failures import failure_of
from worker.commands.health_port import fetch_health, own_url
from worker.commands.prerequisites import missing_services
from worker.core.delivery.fuse import FuseState
from worker.errors import WorkerError
from worker.settings import CloudSettings, EngineSettings, JobSettings, Settings
from worker.telemetry import configure_logging


def check(*, as_json: bool) -> None:
    """Print each finding as it comes; exit 1 when one is not ok."""
    settings = load_settings()
    configure_logging("json", "off")
    failed = asyncio.run(_report(_everything(settings), as_json=as_json))
    if failed:
        raise SystemExit(EXIT_FAILED)
    if not as_json:
        say(("ready to run", "green"))


async def _report(findings: AsyncIterator[Finding], *, as_json: bool) -> int:
    failed = 0
    async for finding in findings:
        failed += not finding.ok
        if as_json:
            say_json(vars(finding))
        else:
            mark = ("fail", "red") if not finding.ok else ("note", "yellow") if finding.advice else ("ok  ", "green")
            say(mark, f" {finding.name}: {finding.detail}")
    return failed


async def _everything(settings: Settings) -> AsyncIterator[Finding]:
    for finding in variable_findings(settings.look_alikes):
        yield finding
    missing = list(missing_services(settings.cloud))
    for detail in missing:
        yield Finding(name="Google Cloud", ok=False, detail=detail)
    if not missing:
        try:
            async with open_cloud(settings.cloud) as cloud:
                async for finding in cloud_findings(cloud):
                    yield finding
        except (WorkerError, GoogleAuthError) as exc:
            yield Finding(name="Google Cloud", ok=False, detail=failure_of(exc).message)
    from worker.app.machine_checks import local_findings  # noqa: PLC0415  engines and ffmpeg: their turn is only now

    async for finding in local_findings(settings.jobs, settings.engine, settings.routing, settings.money):
        yield finding
    running = fetch_health(own_url()) if settings.telemetry.health_port else None
    is_worker = running is not None and "worker" in running
    if running and is_worker:
        yield running_worker(running)
    from worker.app.monitor import telemetry_findings  # noqa: PLC0415  all of the worker

    for finding in telemetry_findings(settings.telemetry, is_port_ours=is_worker):
        yield finding
    yield await _engine(settings.engine, settings.cloud, settings.jobs)


def running_worker(health: dict[str, Any]) -> Finding:
    """Report the fuse and the readiness of a worker that already runs here, from its `/health`."""
    fuse = health.get("fuse")
    fuse = fuse if isinstance(fuse, dict) else {"state": "unknown, it is still starting"}
    failures = fuse.get("failures_in_a_row", 0)
    detail = f"{health.get('status')}; fuse {fuse.get('state')}, {failures} failure{'s' * (failures != 1)} in a row"
    reasons = dict.fromkeys(filter(None, (health.get("reason"), fuse.get("reason"))))
    return Finding(
        name=f"running worker {health.get('worker')}",
        ok=fuse.get("state") != FuseState.OPEN,
        advice=bool(reasons),
        detail=": ".join((detail, *reasons)),
    )


async def _engine(engine: EngineSettings, cloud: CloudSettings, jobs: JobSettings) -> Finding:
    from worker.app.engines import make_decoder, started_or_none  # noqa: PLC0415
    from worker.app.recogniser import NoEngine, make_engine, may_do_without_gpu  # noqa: PLC0415
    from worker.app.worker import self_test  # noqa: PLC0415  all of the worker: the checks before it come first

    name = f"model {engine.parakeet_model_name}"
    try:
        may_do_without = may_do_without_gpu(engine)
        made = make_engine(engine, cloud, "json", "off", may_do_without=may_do_without)
        async with started_or_none(made, may_do_without=may_do_without) as recogniser:
            if isinstance(recogniser, NoEngine):
                return Finding(
                    name=name, ok=True, advice=True, detail=f"{recogniser.reason}: every job goes to Deepgram"
                )
            await self_test(make_decoder(jobs, engine), recogniser)
            facts = recogniser.facts
    except WorkerError as exc:
        return Finding(name=name, ok=False, detail=failure_of(exc).message)
    return Finding(name=name, ok=True, detail=f"recognised the built-in sample on {facts.device_name}")
