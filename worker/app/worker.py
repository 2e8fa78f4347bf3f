"""The only wiring: Settings -> adapters -> core, and the life of a worker from its checks to its last nack."""

import asyncio
import gc
import random
import signal
import sys
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from pathlib import Path
from typing import Self

import structlog

from worker.adapters.audio import FfmpegDecoder
from worker.adapters.gpu import open_gpus
from worker.adapters.machine.clock import SystemClock
from worker.adapters.machine.instance import this_instance, worker_name
from worker.adapters.machine.process import hide_memory, return_large_blocks
from worker.adapters.machine.workspace import workspace
from worker.adapters.pubsub.backlog_metric import BacklogMetric, google_session
from worker.app.cloud import Cloud, open_cloud
from worker.app.engines import Engines, make_decoder, open_engines
from worker.app.machine_checks import local_findings
from worker.app.monitor import Watch, destinations_of, identity_of, watching
from worker.app.parts import audio_part, decoder_part, engine_part, worker_parts
from worker.app.preflight import cloud_findings, log_finding, require_all, variable_findings
from worker.app.recogniser import NoEngine
from worker.app.sample import SPEECH
from worker.core.costs.bill import report_usage
from worker.core.dead_letters.adoption import Adoption
from worker.core.dead_letters.entries import Forwarded
from worker.core.delivery.consumer import Chore, Consumer
from worker.core.delivery.fitness import Fitness
from worker.core.delivery.intake import UrgentFirst
from worker.core.jobs.attempt import Jobs
from worker.core.jobs.audio_input import AudioIntake
from worker.core.jobs.board import Board
from worker.core.jobs.forwarded_job import adopt
from worker.core.jobs.output import OutputWriter
from worker.core.jobs.routing import SECONDS_PER_HOUR, RoutingPolicy
from worker.core.jobs.state import JobStates
from worker.core.jobs.tools import JobRules, JobTools
from worker.core.jobs.transcription import recognise_sample
from worker.errors import EngineFailure, WorkerError
from worker.ports import AudioDecoder, Subscription, WindowRecogniser
from worker.settings import CloudSettings, EngineSettings, JobSettings, RoutingSettings, Settings
from worker.telemetry.export import exporting

GIB = 1024**3
SECONDS_PER_MINUTE = 60
# Python's own is 5 ms; ten times as many turns cost nothing measurable.
TURN_SECONDS = 0.0005
# Fewer jobs in a row may fail for reasons of their own.
FUSE_THRESHOLD = 10

log = structlog.get_logger(__name__)


async def run_worker(settings: Settings, engine: AbstractAsyncContextManager[WindowRecogniser]) -> None:
    """Work until SIGTERM or SIGINT; a second one means at once. `engine` is what `make_engine` returned.

    Raises `worker.app.preflight.NotReady` when something that is needed is missing, `ModelLoadingError` or
    `GpuNotAvailable` when the engine does not start, `SubscriptionNotFound` when the subscription goes away,
    `HealthPortTaken`, `ExportRefused`.
    """
    hide_memory()
    return_large_blocks()
    board, clock = Board(), SystemClock()
    with (
        _Signals() as signals,
        workspace(settings.jobs.temp_dir) as folder,
        exporting(destinations_of(settings.telemetry)) as render,
        open_gpus() as gpus,
        _backlog(settings.cloud, settings.cloud.jobs_subscription) as backlog,
        _backlog(settings.cloud, settings.cloud.jobs_subscription_urgent) as urgent_backlog,
    ):
        watch = Watch(board, gpus, clock, backlog, folder, urgent_backlog)
        changed = settings.changed() or ["every setting at its default"]
        log.info("worker.starting", worker=worker_name(), changed=changed, **settings.masked())
        for finding in variable_findings(settings.look_alikes):
            log_finding(finding)
        identity = identity_of(worker_name(), settings.cloud, settings.engine)
        async with (
            watching(settings.telemetry, identity, watch, render, settings.cloud),
            open_cloud(settings.cloud) as cloud,
        ):
            local = local_findings(settings.jobs, settings.engine, settings.routing, settings.money)
            await require_all(cloud_findings(cloud), local)
            async with open_engines(settings.engine, settings.money, settings.cloud, cloud.store, engine) as engines:
                decoder = make_decoder(settings.jobs, settings.engine)
                policy = routing_policy(settings.routing, settings.engine)
                consumer = await make_consumer(cloud, engines, decoder, policy, settings.jobs, folder, board)
                signals.stops(consumer)
                watch.serving(engines, consumer)
                _keep_pauses_short()
                device = engines.parakeet.facts.device_name
                log.info("worker.ready", subscription=cloud.names.jobs_subscription, device=device)
                await consumer.run()
        log.info("worker.stopped")


def _backlog(cloud: CloudSettings, subscription: str) -> AbstractContextManager[BacklogMetric | None]:
    """Return the reader of the subscription's backlog; an emulator reports none."""
    if cloud.pubsub_emulator_host or not subscription:
        return nullcontext()
    return BacklogMetric(cloud.project_id, subscription, SystemClock(), google_session)


def _keep_pauses_short() -> None:
    """Keep the event loop responsive for the health port and the leases.

    Computing threads switch more often, and objects loaded so far are exempt from garbage collection, whose full passes
    took 60 to 110 ms.
    """
    sys.setswitchinterval(TURN_SECONDS)
    gc.collect()
    gc.freeze()


async def make_consumer(
    cloud: Cloud,
    engines: Engines,
    decoder: FfmpegDecoder,
    policy: RoutingPolicy,
    settings: JobSettings,
    folder: Path,
    board: Board | None = None,
) -> Consumer:
    """Return the consumer of the jobs subscription; downloads go below `folder`. Raises `SubscriptionNotFound`."""
    clock, rng = SystemClock(), random.Random()  # noqa: S311 - jitter
    subscription: Subscription = cloud.pubsub.subscription(cloud.names.jobs_subscription)
    urgent: dict[str, Chore] = {}
    if name := cloud.names.jobs_subscription_urgent:
        subscription = both = UrgentFirst(cloud.pubsub.subscription(name), subscription, clock, rng)
        urgent["urgent"] = both.tend
    fitness = make_fitness(cloud, engines, decoder, folder)
    jobs = make_jobs(cloud, engines, decoder, policy, settings, folder, board, fitness)
    adoption = Adoption(
        cloud.pubsub.subscription(cloud.names.dead_letter_subscription),
        lambda letter: adopt_forwarded(jobs, letter),
        why_not=lambda: consumer.snapshot.intake_stopped_because,
        patience_seconds=adoption_patience_seconds(settings),
        clock=clock,
        rng=rng,
    )
    consumer = Consumer(
        subscription,
        jobs,
        slots=settings.job_slots,
        max_parked=settings.max_parked,
        ack_deadline_seconds=(await subscription.facts()).ack_deadline_seconds,
        max_attempts=settings.max_job_attempts,
        fitness=fitness,
        fuse_threshold=FUSE_THRESHOLD,
        clock=clock,
        rng=rng,
        why_idle=engines.readiness.why_not,
        chores={
            "usage": lambda: report_usage(engines.parakeet, engines.prices, clock),
            "engine-probe": lambda: engines.health.tend(lambda: self_test(decoder, engines.parakeet)),
            "adoption": adoption.run,
            **urgent,
        },
    )
    return consumer


async def adopt_forwarded(jobs: Jobs, letter: Forwarded) -> None:
    """Write the dead letter and the events of a job that the subscription's policy gave up on."""
    await adopt(jobs, letter.original, deliveries=letter.deliveries, gave_up_at=letter.gave_up_at)


def adoption_patience_seconds(settings: JobSettings) -> float:
    """Return after how many seconds a dead worker's claim is known to be stale."""
    return settings.claim_ttl_seconds + 1.0


def make_fitness(cloud: Cloud, engines: Engines, decoder: FfmpegDecoder, folder: Path) -> Fitness:
    """Return the parts of this worker; those of preflight count as tested."""
    fitness = Fitness(worker_parts(cloud, folder), SystemClock(), random.Random())  # noqa: S311 - jitter
    fitness.record_verified()
    fitness.add(decoder_part(lambda: decodes_sample(decoder)))
    if engines.parakeet.facts is not NoEngine.facts:
        fitness.add(engine_part(lambda: _recognises(engines, decoder)))
    return fitness


async def _recognises(engines: Engines, decoder: FfmpegDecoder) -> None:
    """Test Parakeet; after a failure jobs go to Deepgram, or wait."""
    try:
        await self_test(decoder, engines.parakeet)
    except WorkerError as exc:
        engines.health.doubt(str(exc))
        raise


async def decodes_sample(decoder: AudioDecoder) -> None:
    """Decode the built-in sample. Raises what the decoder raises, or `EngineFailure` for no samples."""
    async with decoder.decode(SPEECH) as stream:
        async for _ in stream:
            return
    raise EngineFailure("ffmpeg", "the built-in sample has no samples")


def make_jobs(
    cloud: Cloud,
    engines: Engines,
    decoder: FfmpegDecoder,
    policy: RoutingPolicy,
    settings: JobSettings,
    folder: Path,
    board: Board | None = None,
    fitness: Fitness | None = None,
) -> Jobs:
    """Return what does the job of a delivery. Without `fitness` no bucket is refused before it is tried."""
    clock = SystemClock()
    names, probed = cloud.names, cloud.store.impatient()
    parts = fitness or Fitness((), clock, random.Random())  # noqa: S311 - jitter
    tools = JobTools(
        states=JobStates(
            cloud.store,
            names.state_bucket,
            clock,
            worker_name(),
            settings.claim_ttl_seconds,
            claim_store=cloud.store.for_claims,
        ),
        intake=AudioIntake(
            cloud.store,
            folder,
            input_buckets=names.input_buckets,
            max_bytes=int(settings.max_file_size_gb * GIB),
            room_bytes=settings.download_room_gb * GIB,
            on_read=lambda bucket: parts.add(audio_part(probed, bucket, is_learned=True)),
        ),
        output=OutputWriter(cloud.store, output_bucket=names.output_bucket, writable_buckets=names.writable_buckets),
        decoder=decoder,
        recogniser=engines.parakeet,
        paid=engines.paid,
        resources=parts,
        health=engines.health,
        completions=cloud.pubsub.topic(names.completion_topic),
        dead_letters=cloud.pubsub.topic(names.dead_letter_topic),
        clock=clock,
        board=board or Board(),
    )
    rules = JobRules(
        worker=worker_name(),
        revision=this_instance().revision,
        subscription=names.jobs_subscription,
        routing=policy,
        prices=engines.prices,
        chunk_seconds=settings.chunk_duration_minutes * SECONDS_PER_MINUTE,
        chunks_in_flight=settings.chunks_in_flight,
        max_crashes=settings.max_crashes,
        progress_events=settings.progress_events,
        log_costs=settings.log_transcription_costs,
    )
    return Jobs(tools, rules)


async def self_test(decoder: AudioDecoder, engine: WindowRecogniser) -> None:
    """Recognise the built-in sample. Raises what decoder and engine raise, or `EngineFailure` for no words."""
    await recognise_sample(decoder, engine, SPEECH)


def routing_policy(routing: RoutingSettings, engine: EngineSettings) -> RoutingPolicy:
    """Return the routing rules that the settings give."""
    return RoutingPolicy(
        method=routing.transcription_method,
        gpu_enabled=engine.enable_gpu_transcription,
        fallback_enabled=engine.enable_fallback,
        rollout_percent=routing.parakeet_rollout_percent,
        cost_optimization=routing.cost_optimization,
        short_file_seconds=routing.short_file_threshold_hours * SECONDS_PER_HOUR,
        long_file_seconds=routing.long_file_threshold_hours * SECONDS_PER_HOUR,
    )


class _Signals:
    """SIGTERM and SIGINT cancel the start-up, or stop the consumer once there is one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._consumer: Consumer | None = None

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)

    def stops(self, consumer: Consumer) -> None:
        """Stop the consumer from now on."""
        self._consumer = consumer

    def _stop(self, number: signal.Signals) -> None:
        if self._consumer is not None:
            self._consumer.stop(number.name)
        elif self._main is not None:
            log.info("worker.start_abandoned", signal=number.name)
            self._main.cancel()
