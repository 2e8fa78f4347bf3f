"""Looks at the whole worker twice a second: for the health port, which answers from the last look, and the gauges."""

import asyncio
import platform
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog

from worker.adapters.gpu import GpuReading, Gpus
from worker.adapters.machine.instance import worker_name
from worker.adapters.pubsub.backlog_metric import BacklogMetric
from worker.adapters.web.answers import Answer, HealthPortTaken, listen
from worker.app.engines import Engines
from worker.app.preflight import Finding
from worker.app.status import (
    Condition,
    Disk,
    Identity,
    Status,
    document,
    health_answer,
    judge,
    live_answer,
    ready_answer,
)
from worker.core.costs.bill import usage
from worker.core.delivery.consumer import Consumer
from worker.core.delivery.fuse import FuseState
from worker.core.jobs.board import Board
from worker.core.tasks import together
from worker.ports import Clock
from worker.settings import CloudSettings, EngineSettings, TelemetrySettings
from worker.telemetry import register
from worker.telemetry.export import Destinations, ExportRefused, exporting

LOOK_SECONDS = 0.5
READING_SECONDS = 5.0
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
NAMED_PACKAGES = ("klipstream-worker", "torch", "nemo_toolkit")

DIGITS = re.compile(r"\d+")

log = structlog.get_logger(__name__)


class Watch:
    """Samples the state of the worker, which counts as loading before `serving`.

    Belongs to one event loop; `condition` and `age_seconds` may be read in any thread.
    """

    def __init__(
        self,
        board: Board,
        gpus: Gpus,
        clock: Clock,
        backlog: BacklogMetric | None = None,
        folder: Path | None = None,
        urgent_backlog: BacklogMetric | None = None,
    ) -> None:
        self._board, self._gpus, self._clock = board, gpus, clock
        self._backlog, self._folder, self._urgent_backlog = backlog, folder, urgent_backlog
        self._disk: Disk | None = None
        self._engines: Engines | None = None
        self._consumer: Consumer | None = None
        self._readings: tuple[GpuReading, ...] = ()
        self._started_at = self._seen_at = clock.monotonic()
        self._sums = _Sums()
        self._reported: tuple[Status, str] | None = None
        self.identity: Identity | None = None
        """The unchanging part of the health document, for the log."""
        self.condition = Condition(uptime_seconds=0.0)

    @property
    def age_seconds(self) -> float:
        """Age of the last sample, in seconds."""
        return self._clock.monotonic() - self._seen_at

    def serving(self, engines: Engines, consumer: Consumer) -> None:
        """Sample these too: the worker pulls messages from now on."""
        self._engines, self._consumer = engines, consumer

    async def run(self) -> None:
        """Sample in an endless loop. A GPU's driver or a network disk that hangs delays no sample."""
        async with together() as group:
            group.create_task(self._read_machine(), name="readings")
            while True:
                self.look()
                await self._clock.sleep(LOOK_SECONDS)

    async def _read_machine(self) -> None:
        while True:
            self._readings = await asyncio.to_thread(self._gpus.read)
            self._disk = await asyncio.to_thread(_disk, self._folder) if self._folder else None
            for reading in self._readings:
                _measure_gpu(reading)
            self.look()
            await self._clock.sleep(READING_SECONDS)

    def look(self) -> None:
        """See everything as it is now."""
        now = self._clock.monotonic()
        self.condition = self._see(now - self._started_at)
        self._seen_at = now
        self._measure(self.condition)
        self._report_change(self.condition)

    def _see(self, uptime_seconds: float) -> Condition:
        engines, consumer = self._engines, self._consumer
        return Condition(
            uptime_seconds=uptime_seconds,
            consumer=consumer.snapshot if consumer else None,
            engine=engines.process.health if engines and engines.process else None,
            model=engines.parakeet.facts if engines else None,
            gpus=self._readings,
            running=self._board.running(self._clock.monotonic()),
            last_jobs=tuple(self._board.ended),
            totals=self._board.totals,
            deepgram_configured=bool(engines and engines.paid),
            budget_spent=bool(engines and engines.paid and engines.paid.budget.is_spent),
            deepgram_down_because=engines.paid.recogniser.down_because if engines and engines.paid else "",
            backlog=self._backlog.messages if self._backlog else None,
            oldest_message_seconds=self._backlog.oldest_seconds if self._backlog else None,
            urgent_backlog=self._urgent_backlog.messages if self._urgent_backlog else None,
            oldest_urgent_seconds=self._urgent_backlog.oldest_seconds if self._urgent_backlog else None,
            disk=self._disk,
        )

    def _measure(self, seen: Condition) -> None:
        status, _ = judge(seen, 0.0)
        register.READY.set(float(status is Status.HEALTHY))
        register.ENGINE_STATE.set_one_of("state", seen.engine.state if seen.engine else "none")
        register.BUDGET_SPENT.set(float(seen.budget_spent))
        if seen.engine:
            register.ENGINE_MEMORY_BYTES.set(seen.engine.device_memory_bytes)
            self._sums.grow(register.ENGINE_RESTARTS, seen.engine.restarts)
        if (consumer := seen.consumer) is not None:
            register.JOBS_IN_FLIGHT.set(consumer.jobs)
            register.JOBS_PARKED.set(consumer.parked)
            register.PULL_FAILURES.set(consumer.pull_failures_in_a_row)
            register.URGENT_PULL_FAILURES.set(consumer.urgent_pull_failures_in_a_row)
            register.INTAKE_STOPPED.set(float(bool(consumer.intake_stopped_because)))
            register.FUSE_STATE.set_one_of("state", FuseState(consumer.fuse.state).value)
        for gauge, value in (
            (register.URGENT_BACKLOG, seen.urgent_backlog),
            (register.URGENT_OLDEST_SECONDS, seen.oldest_urgent_seconds),
        ):
            if value is not None:
                gauge.set(value)
        if self._engines is not None:
            self._measure_usage(self._engines, seen.uptime_seconds)

    def _report_change(self, seen: Condition) -> None:
        """Log a change of the status with all of `/health`, whose port has no address in a worker pool."""
        status, reason = judge(seen, 0.0)
        seen_as = status, DIGITS.sub("#", reason)  # a reason that counts down is one reason
        if seen_as == self._reported:
            return
        before, self._reported = self._reported, seen_as
        say = log.warning if status is Status.UNHEALTHY else log.info
        health = document(self.identity, seen, status, reason) if self.identity else {}
        say("health.changed", status=status, reason=reason, status_before=before[0] if before else None, health=health)

    def _measure_usage(self, engines: Engines, uptime_seconds: float) -> None:
        spent = usage(uptime_seconds, engines.parakeet.engine_seconds, engines.prices)
        self._sums.grow(register.ENGINE_BUSY_SECONDS, spent.engine_seconds)
        self._sums.grow(register.ENGINE_IDLE_SECONDS, spent.idle_seconds)
        self._sums.grow(register.COST_USD, spent.idle_usd, engine="idle")


def _disk(folder: Path) -> Disk | None:
    """Return the room on the folder's file system; None where it cannot be read."""
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return None
    return Disk(path=str(folder), free_bytes=found.free, total_bytes=found.total)


class _Sums:
    """Turns totals into counters; a total that shrinks is ignored until it exceeds its highest value."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def grow(self, counter: register.Counter, total: float, **labels: str) -> None:
        """Set the counter's new total."""
        before = self._told.get(counter.name, 0.0)
        if total > before or counter.name not in self._told:
            counter.add(total - before, **labels)
            self._told[counter.name] = total


def _measure_gpu(reading: GpuReading) -> None:
    gpu = str(reading.index)
    register.GPU_MEMORY_USED_BYTES.set(reading.memory_used_bytes, gpu=gpu)
    register.GPU_MEMORY_TOTAL_BYTES.set(reading.memory_total_bytes, gpu=gpu)
    for gauge, told in (
        (register.GPU_UTILISATION, reading.utilisation),
        (register.GPU_TEMPERATURE_CELSIUS, reading.temperature_celsius),
        (register.GPU_POWER_WATTS, reading.power_watts),
        (register.GPU_ECC_ERRORS, reading.ecc_errors),
    ):
        if told is not None:
            gauge.set(told, gpu=gpu)
    for reason in register.THROTTLING:
        register.GPU_THROTTLED.set(float(reason in reading.throttled_by), gpu=gpu, reason=reason)


@asynccontextmanager
async def watching(
    settings: TelemetrySettings,
    identity: Identity,
    watch: Watch,
    render_metrics: Callable[[], bytes] | None = None,
    cloud: CloudSettings | None = None,
) -> AsyncIterator[str]:
    """Let it watch, and answer on the health port, whose URL this yields. Raises `HealthPortTaken`.

    Where the port is open to this machine alone, its page reads the state bucket of `cloud`.
    """
    from worker.adapters.web.http_server import HealthServer  # noqa: PLC0415 - 5 MiB that only a health port needs
    from worker.app.page.host import worker_pages  # noqa: PLC0415 - the same

    watch.identity = identity
    routes = {
        "/health": lambda: health_answer(identity, watch.condition, watch.age_seconds),
        "/ready": lambda: ready_answer(watch.condition, watch.age_seconds),
        "/live": lambda: live_answer(watch.condition, watch.age_seconds),
    }
    if render_metrics is not None:
        routes["/metrics"] = lambda: Answer(status=200, body=render_metrics(), content_type=PROMETHEUS_TEXT)
    pages = worker_pages(lambda: routes["/health"]().body, identity, settings.health_host, cloud)
    with HealthServer(routes, host=settings.health_host, port=settings.health_port, pages=pages) as server:
        log.info("health.listening", url=server.url)
        async with together() as group:
            looking = group.create_task(watch.run(), name="watch")
            yield server.url
            looking.cancel()


def identity_of(worker: str, cloud: CloudSettings, engine: EngineSettings) -> Identity:
    """Return the unchanging part of the health document."""
    return Identity(
        worker=worker,
        subscription=cloud.jobs_subscription,
        urgent_subscription=cloud.jobs_subscription_urgent,
        gpu_transcription_enabled=engine.enable_gpu_transcription,
        gpu_memory_limit_gb=engine.gpu_memory_limit_gb,
        versions={"python": platform.python_version(), **_versions()},
    )


def destinations_of(settings: TelemetrySettings) -> Destinations:
    """Return the exporters that the settings ask for."""
    return Destinations(
        metrics=settings.metrics_exporter if settings.enable_performance_metrics else "none",
        traces=settings.traces_exporter,
        traces_file=settings.traces_file,
        worker=worker_name(),
        version=version("klipstream-worker"),
    )


def telemetry_findings(settings: TelemetrySettings, *, is_port_ours: bool) -> Iterator[Finding]:
    """Check the exporters, and that the health port is free unless it is ours. For `check`."""
    destinations = destinations_of(settings)
    if {destinations.metrics, destinations.traces} & {"gcp", "file"}:  # only these can be refused
        try:
            with exporting(destinations):
                pass
        except ExportRefused as exc:
            yield Finding(name="telemetry", ok=False, detail=str(exc))
    if not is_port_ours:
        try:
            listen(settings.health_host, settings.health_port).close()
        except HealthPortTaken as exc:
            yield Finding(name="health port", ok=False, detail=str(exc))


def _versions() -> dict[str, str]:
    found = {}
    for package in NAMED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
