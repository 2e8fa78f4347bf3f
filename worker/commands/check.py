"""`check`: everything that `run` needs, each line ok or what to do."""

import asyncio
import json
from collections.abc import AsyncIterator

from rich.markup import escape

from worker.app import make_decoder, open_cloud, self_test
from worker.commands.console import EXIT_FAILED, load_settings, out
from worker.engines import NoEngine, start_engine
from worker.errors import WorkerError
from worker.preflight import Finding, findings
from worker.settings import Settings
from worker.telemetry import configure_logging


def check(*, as_json: bool) -> None:
    """Print each finding as it comes; exit 1 when one is not ok."""
    settings = load_settings()
    configure_logging("json")
    failed = asyncio.run(_report(settings, as_json=as_json))
    if failed:
        raise SystemExit(EXIT_FAILED)
    if not as_json:
        out().print("[green]ready to run[/]")


async def _report(settings: Settings, *, as_json: bool) -> int:
    failed = 0
    async for finding in _everything(settings):
        failed += not finding.ok
        if as_json:
            print(json.dumps(vars(finding)))
        else:
            mark = "[red]fail[/]" if not finding.ok else "[yellow]note[/]" if finding.advice else "[green]ok  [/]"
            out().print(f"{mark} {escape(finding.name)}: {escape(finding.detail)}")
    return failed


async def _everything(settings: Settings) -> AsyncIterator[Finding]:
    try:
        async with open_cloud(settings) as cloud:
            async for finding in findings(settings, cloud.pubsub, cloud.store):
                yield finding
    except WorkerError as exc:
        yield Finding(name="Google Cloud", ok=False, detail=f"{exc}: {exc.suggested_action}")
    yield await _engine(settings)


async def _engine(settings: Settings) -> Finding:
    name = f"model {settings.parakeet_model_name}"
    try:
        async with start_engine(settings) as engine:
            if isinstance(engine, NoEngine):
                return Finding(name=name, ok=True, advice=True, detail=f"{engine.reason}: every job goes to Deepgram")
            await self_test(make_decoder(settings), engine)
            facts = engine.facts
    except WorkerError as exc:
        return Finding(name=name, ok=False, detail=f"{exc}: {exc.suggested_action}")
    return Finding(name=name, ok=True, detail=f"heard the built-in sample on {facts.device_name}")
