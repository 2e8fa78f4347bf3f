"""The only wiring: Settings -> adapters -> core, and the life of a worker from its checks to its last nack."""

import asyncio
import os
import random
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from schemas.cost import ParakeetRates
from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.adapters.clock import SystemClock
from worker.adapters.gcs import GcsObjectStore, open_object_store
from worker.adapters.memory.null_engine import null_engine, null_speed
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.adapters.pubsub import Patience, PubSub, open_pubsub
from worker.adapters.workspace import workspace
from worker.core.delivery.consumer import Consumer
from worker.core.jobs.audio_input import AudioIntake
from worker.core.jobs.costing import Prices, price_book
from worker.core.jobs.engine_health import EngineHealth
from worker.core.jobs.handler import JobRules, Jobs, JobTools
from worker.core.jobs.output import OutputWriter
from worker.core.jobs.routing import SECONDS_PER_HOUR, RoutingPolicy
from worker.core.jobs.state import JobStates
from worker.core.jobs.transcription import SampleNotRecognised, recognise_sample
from worker.embedded.samples import samples
from worker.errors import EngineFailure, GpuNotAvailable, ModelLoadingError
from worker.ports import AudioDecoder, EngineFacts, Pcm, Recognition, WindowRecogniser
from worker.preflight import demand, findings
from worker.settings import Settings

GIB = 1024**3
# Three jobs may fail for reasons of their own; by the tenth in a row the worker asks whether it is the reason.
FUSE_THRESHOLD = 10

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The clients of Pub/Sub and Cloud Storage."""

    pubsub: PubSub
    store: GcsObjectStore


@asynccontextmanager
async def open_cloud(settings: Settings, *, patience: Patience | None = None) -> AsyncIterator[Cloud]:
    """Connect to what the settings name. Nothing is verified yet."""
    async with (
        open_object_store(project=settings.project_id) as store,
        open_pubsub(settings.project_id, emulator_host=settings.pubsub_emulator_host, patience=patience) as pubsub,
    ):
        yield Cloud(pubsub=pubsub, store=store)


def make_engine(settings: Settings) -> AbstractAsyncContextManager[WindowRecogniser]:
    """The engine, to be entered: that loads the model in a process of its own, which takes 10 s and more.

    Raises `ModelLoadingError` for the null engine anywhere but on development servers.
    """
    if (speed := null_speed(settings.parakeet_model_name)) is not None:
        _refuse_on_a_real_cloud(settings)
        return nullcontext(null_engine(speed))
    return ParakeetEngine(
        model_name=settings.parakeet_model_name,
        device=settings.parakeet_device.value,
        batch_size=settings.gpu_batch_size,
        memory_limit_gib=settings.gpu_memory_limit_gb,
    )


def _refuse_on_a_real_cloud(settings: Settings) -> None:
    if not (settings.pubsub_emulator_host and settings.storage_emulator_host):
        raise ModelLoadingError(settings.parakeet_model_name, "it hears nothing: for load tests on emulators only")


def make_decoder(settings: Settings) -> FfmpegDecoder:
    """The decoder, with the length limit of the settings. Raises `FfmpegMissing`."""
    return FfmpegDecoder(ffmpeg=find_ffmpeg(), limits=Limits(max_seconds=settings.max_audio_hours * SECONDS_PER_HOUR))


async def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; a second one means at once.

    Raises `worker.preflight.NotReady` when something that is needed is missing, `ModelLoadingError` or
    `GpuNotAvailable` when the engine does not start, `QueueNotFound` when the subscription goes away.
    """
    with _Signals() as signals, workspace(settings.temp_dir) as folder:
        log.info("worker.starting", worker=worker_name(), **settings.masked())
        async with open_cloud(settings) as cloud:
            await demand(findings(settings, cloud.pubsub, cloud.store))
            async with make_engine(settings) as engine:
                consumer = await make_consumer(settings, cloud, engine, folder)
                signals.stops(consumer)
                log.info("worker.ready", subscription=settings.jobs_subscription, device=engine.facts.device_name)
                await consumer.run()
        log.info("worker.stopped")


async def make_consumer(settings: Settings, cloud: Cloud, engine: WindowRecogniser, folder: Path) -> Consumer:
    """The consumer of the jobs subscription; downloads go below `folder`. Raises `QueueNotFound`."""
    subscription = cloud.pubsub.subscription(settings.jobs_subscription)
    decoder = make_decoder(settings)
    return Consumer(
        subscription,
        make_jobs(settings, cloud, engine, folder),
        slots=settings.job_slots,
        max_parked=settings.max_parked,
        ack_deadline_seconds=(await subscription.facts()).ack_deadline_seconds,
        max_attempts=settings.max_job_attempts,
        self_test=lambda: self_test(decoder, engine),
        fuse_threshold=FUSE_THRESHOLD,
        clock=SystemClock(),
        rng=random.Random(),  # noqa: S311 - jitter
    )


def make_jobs(settings: Settings, cloud: Cloud, engine: WindowRecogniser, folder: Path) -> Jobs:
    """What does the job of a delivery."""
    clock = SystemClock()
    max_bytes = int(settings.max_file_size_gb * GIB)
    writable = settings.writable_buckets
    tools = JobTools(
        states=JobStates(cloud.store, settings.state_bucket, clock, worker_name(), settings.claim_ttl_seconds),
        intake=AudioIntake(cloud.store, folder, input_buckets=settings.input_buckets, max_bytes=max_bytes),
        output=OutputWriter(cloud.store, output_bucket=settings.output_bucket, writable_buckets=writable),
        decoder=make_decoder(settings),
        recogniser=engine,
        deepgram=None,
        health=EngineHealth(clock),
        completions=cloud.pubsub.topic(settings.completion_topic),
        dead_letters=cloud.pubsub.topic(settings.dead_letter_topic),
        clock=clock,
    )
    return Jobs(tools, _rules(settings, uses_gpu=engine.facts.uses_gpu))


async def self_test(decoder: AudioDecoder, engine: WindowRecogniser) -> None:
    """Run the built-in sample through decoder and engine. Raises what they raise, or `EngineFailure` for no words."""
    try:
        await recognise_sample(decoder, engine, samples()[0].path)
    except SampleNotRecognised as exc:
        raise EngineFailure("parakeet", str(exc)) from exc


def _rules(settings: Settings, *, uses_gpu: bool) -> JobRules:
    return JobRules(
        worker=worker_name(),
        subscription=settings.jobs_subscription,
        routing=RoutingPolicy(
            method=settings.transcription_method,
            gpu_enabled=settings.enable_gpu_transcription,
            fallback_enabled=settings.enable_fallback,
            rollout_percent=settings.parakeet_rollout_percent,
            cost_optimization=settings.cost_optimization,
            short_file_seconds=settings.short_file_threshold_hours * SECONDS_PER_HOUR,
            long_file_seconds=settings.long_file_threshold_hours * SECONDS_PER_HOUR,
        ),
        prices=prices(settings, uses_gpu=uses_gpu),
        chunk_seconds=settings.chunk_duration_minutes * 60,
        chunks_in_flight=settings.chunks_in_flight,
        max_crashes=settings.max_crashes,
        progress_events=settings.progress_events,
        log_costs=settings.log_transcription_costs,
    )


class NoEngine:
    """For commands that work on jobs without hearing any."""

    facts = EngineFacts(
        model_name="none", model_fingerprint="none", device_name="none", uses_gpu=False, languages=frozenset()
    )

    async def recognise(self, samples: Pcm, job_id: str) -> Recognition:
        """Raises `GpuNotAvailable`, always."""
        del samples, job_id
        raise GpuNotAvailable("this command does not transcribe")


def prices(settings: Settings, *, uses_gpu: bool) -> Prices:
    """The price book's figures, or the settings' where they are given; without a GPU none is paid for."""
    book = price_book()
    gpu = book.gpu_usd_per_second if settings.gpu_usd_per_second is None else settings.gpu_usd_per_second
    vcpu = book.vcpu_usd_per_second if settings.vcpu_usd_per_second is None else settings.vcpu_usd_per_second
    gib = book.gib_usd_per_second if settings.gib_usd_per_second is None else settings.gib_usd_per_second
    deepgram = settings.deepgram_usd_per_minute
    return Prices(
        book_version=book.version,
        rates=ParakeetRates(
            gpu_usd_per_second=gpu if uses_gpu else 0.0, vcpu_usd_per_second=vcpu, gib_usd_per_second=gib
        ),
        vcpus=settings.instance_vcpus,
        memory_gib=settings.instance_memory_gib,
        deepgram_usd_per_minute=book.deepgram_usd_per_minute[settings.deepgram_model] if deepgram is None else deepgram,
    )


def worker_name() -> str:
    """What this process is called in claims, events and logs."""
    return f"{socket.gethostname()}-{os.getpid()}"


class _Signals:
    """SIGTERM and SIGINT: before there is a consumer they cancel the start-up, then they stop the consumer."""

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
        """From now on there is something better to stop than the start-up."""
        self._consumer = consumer

    def _stop(self, number: signal.Signals) -> None:
        if self._consumer is not None:
            self._consumer.stop(number.name)
        elif self._main is not None:
            log.info("worker.start_abandoned", signal=number.name)
            self._main.cancel()
