"""The decoder and the engines that the settings ask for: Parakeet on this machine, Deepgram behind a key, or both."""

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from schemas.codes import Method
from schemas.events import ParakeetRates
from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.adapters.deepgram import DeepgramRecogniser, RetryPolicy
from worker.adapters.machine.clock import SystemClock
from worker.adapters.machine.process import processors
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.app.recogniser import NoEngine, may_do_without_gpu, without_gpu
from worker.core.costs.bill import MeteredRecogniser, Prices, price_book
from worker.core.costs.budget import Budget, FallbackBudget, NoLimit, PaidRecogniser
from worker.core.jobs.engine_trust import EngineTrust, Readiness
from worker.core.jobs.routing import SECONDS_PER_HOUR
from worker.errors import GpuNotAvailable
from worker.ports import ObjectStore, WindowRecogniser
from worker.settings import CloudSettings, EngineSettings, JobSettings, MoneySettings, RoutingSettings


@dataclass(frozen=True, kw_only=True)
class Engines:
    """The worker's engines, the trust in Parakeet, and prices."""

    parakeet: MeteredRecogniser
    process: ParakeetEngine | None
    """Supervisor of the inference process; None if there is none."""
    paid: PaidRecogniser | None
    health: EngineTrust
    readiness: Readiness
    prices: Prices


def engines_of(
    settings: EngineSettings, money: MoneySettings, parakeet: WindowRecogniser, paid: PaidRecogniser | None
) -> Engines:
    """Return started engines with their prices. Raises `DeepgramPriceUnknown`."""
    health = EngineTrust(SystemClock(), doubted=isinstance(parakeet, NoEngine))
    may_pay = settings.enable_fallback or not settings.enable_gpu_transcription
    return Engines(
        parakeet=MeteredRecogniser(parakeet),
        process=parakeet if isinstance(parakeet, ParakeetEngine) else None,
        paid=paid,
        health=health,
        readiness=Readiness(health, paid, may_pay=may_pay),
        prices=prices(settings, money, uses_gpu=parakeet.facts.uses_gpu),
    )


@asynccontextmanager
async def open_engines(
    settings: EngineSettings,
    money: MoneySettings,
    cloud: CloudSettings,
    store: ObjectStore,
    engine: AbstractAsyncContextManager[WindowRecogniser],
) -> AsyncIterator[Engines]:
    """Start what the settings ask for; `engine` is what `make_engine` returned.

    Raises what `started_or_none` and `open_deepgram` raise.
    """
    async with (
        open_deepgram(settings, money, store, cloud.state_bucket) as paid,
        started_or_none(engine, may_do_without=may_do_without_gpu(settings)) as parakeet,
    ):
        yield engines_of(settings, money, parakeet, paid)


@asynccontextmanager
async def started_or_none(
    starting: AbstractAsyncContextManager[WindowRecogniser], *, may_do_without: bool
) -> AsyncIterator[WindowRecogniser]:
    """Start the engine; yield `NoEngine` where there is no GPU and the caller may do without.

    Raises `ModelLoadingError`, `GpuNotAvailable`.
    """
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(starting)
        except GpuNotAvailable as exc:
            if not may_do_without:
                raise
            engine = without_gpu(exc.reason)
        yield engine


@asynccontextmanager
async def open_deepgram(
    settings: EngineSettings, money: MoneySettings, store: ObjectStore, state_bucket: str
) -> AsyncIterator[PaidRecogniser | None]:
    """Open the fallback with its price and budget; yield None if there is no key.

    Raises `ValueError` for a key that cannot be sent, `DeepgramPriceUnknown`.
    """
    if settings.deepgram_api_key is None:
        yield None
        return
    retries = RetryPolicy()
    rates = prices(settings, money, uses_gpu=True)
    async with make_deepgram(settings, settings.deepgram_api_key.get_secret_value(), retries) as recogniser:
        yield PaidRecogniser(
            recogniser=recogniser,
            usd_per_minute=rates.deepgram_usd_per_minute,
            multilingual_usd_per_minute=rates.deepgram_multilingual_usd_per_minute,
            keyterm_usd_per_minute=rates.deepgram_keyterm_usd_per_minute,
            budget=make_budget(money, store, state_bucket),
            most_requests=1 + retries.wasted_repeats,
        )


def make_deepgram(settings: EngineSettings, api_key: str, retries: RetryPolicy) -> DeepgramRecogniser:
    """Return the adapter, a context manager. Raises `ValueError` for a key that cannot be sent."""
    return DeepgramRecogniser(
        api_key=api_key,
        model=settings.deepgram_model,
        max_concurrent=settings.deepgram_max_requests,
        clock=SystemClock(),
        rng=random.Random(),  # noqa: S311 - jitter
        base_url=settings.deepgram_base_url,
        retries=retries,
    )


def make_budget(money: MoneySettings, store: ObjectStore, state_bucket: str) -> Budget:
    """Return the pool's daily budget, which the state bucket holds; unlimited if the settings have none."""
    if money.fallback_budget_usd_per_day is None:
        return NoLimit()
    return FallbackBudget(store, state_bucket, SystemClock(), usd_per_day=money.fallback_budget_usd_per_day)


def only_deepgram(settings: EngineSettings, routing: RoutingSettings) -> str:
    """Return the setting that excludes Parakeet, as `NAME=value`, or an empty string."""
    if not settings.enable_gpu_transcription:
        return "ENABLE_GPU_TRANSCRIPTION=false"
    return "TRANSCRIPTION_METHOD=deepgram" if routing.transcription_method is Method.DEEPGRAM else ""


def prices(settings: EngineSettings, money: MoneySettings, *, uses_gpu: bool) -> Prices:
    """Return the price book's prices, overridden by the settings; without a GPU its price is 0.

    Raises `DeepgramPriceUnknown`.
    """
    book = price_book()
    gpu = book.gpu_usd_per_second if money.gpu_usd_per_second is None else money.gpu_usd_per_second
    vcpu = book.vcpu_usd_per_second if money.vcpu_usd_per_second is None else money.vcpu_usd_per_second
    gib = book.gib_usd_per_second if money.gib_usd_per_second is None else money.gib_usd_per_second
    deepgram, keyterms = money.deepgram_usd_per_minute, money.deepgram_keyterm_usd_per_minute
    return Prices(
        book_version=book.version,
        rates=ParakeetRates(
            gpu_usd_per_second=gpu if uses_gpu else 0.0, vcpu_usd_per_second=vcpu, gib_usd_per_second=gib
        ),
        vcpus=settings.instance_vcpus,
        memory_gib=settings.instance_memory_gib,
        deepgram_usd_per_minute=book.of_deepgram(settings.deepgram_model) if deepgram is None else deepgram,
        deepgram_multilingual_usd_per_minute=(
            book.deepgram_multilingual_usd_per_minute.get(settings.deepgram_model) if deepgram is None else None
        ),
        deepgram_keyterm_usd_per_minute=(
            book.deepgram_keyterm_usd_per_minute.get(settings.deepgram_model, 0.0) if keyterms is None else keyterms
        ),
    )


def make_decoder(jobs: JobSettings, engine: EngineSettings) -> FfmpegDecoder:
    """Return the decoder, with the length limit of the settings. Raises `FfmpegMissing`."""
    return FfmpegDecoder(
        ffmpeg=find_ffmpeg(),
        limits=Limits(max_seconds=jobs.max_audio_hours * SECONDS_PER_HOUR),
        parts=max(1, processors(engine.instance_vcpus) - 1),  # one is the event loop's
    )
