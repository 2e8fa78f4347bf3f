"""Bills: of a job beside Deepgram's price for the same audio, and of the instance with its idle time.

Parakeet's engine seconds are priced at the whole instance: its GPU, its vCPUs and its memory. They are the job's share
of each pass. The sum over all jobs is less than the cloud's bill, by the time in which the engine was idle: each worker
logs that rest as `worker.usage`. Values are not rounded here; the schemas round them.
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files

import structlog

from schemas.events import Baseline, ChannelCost, DeepgramCost, DeepgramRates, EngineCost, ParakeetCost, ParakeetRates
from schemas.job import ANY_LANGUAGE
from schemas.state import NO_WASTE, Checkpoint, Waste
from worker.errors import DeepgramPriceUnknown, EngineError
from worker.ports import Clock, EngineFacts, Pcm, Recognition, WindowRecogniser

SECONDS_PER_MINUTE = 60
PERCENT = 100
REPORT_SECONDS = 300.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class PriceBook:
    """A dated table of prices in USD."""

    version: str
    gpu_usd_per_second: float
    vcpu_usd_per_second: float
    gib_usd_per_second: float
    deepgram_usd_per_minute: Mapping[str, float]
    """By model, for audio of one language."""
    deepgram_multilingual_usd_per_minute: Mapping[str, float]
    """By model, where it has a price of its own for audio whose language Deepgram finds out."""
    deepgram_keyterm_usd_per_minute: Mapping[str, float]
    """By model, on top of the others for requests with keyterms."""

    def of_deepgram(self, model: str) -> float:
        """Dollars a minute. Raises `DeepgramPriceUnknown`."""
        if model not in self.deepgram_usd_per_minute:
            raise DeepgramPriceUnknown(model, tuple(self.deepgram_usd_per_minute))
        return self.deepgram_usd_per_minute[model]


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Price of this worker's seconds and of Deepgram's minutes, from the price book or the settings and the shape."""

    book_version: str
    rates: ParakeetRates
    vcpus: float
    memory_gib: float
    deepgram_usd_per_minute: float
    """For audio of one language: the baseline of savings."""
    deepgram_multilingual_usd_per_minute: float | None = None
    """For audio whose language Deepgram finds out; None: the same."""
    deepgram_keyterm_usd_per_minute: float = 0.0
    """On top of that for requests with keyterms."""

    def deepgram_rate(self, language: str | None, *, has_keyterms: bool = False) -> float:
        """Return the dollars a minute of a job in that language."""
        multilingual = self.deepgram_multilingual_usd_per_minute
        rate = self.deepgram_usd_per_minute if language != ANY_LANGUAGE or multilingual is None else multilingual
        return rate + self.deepgram_keyterm_usd_per_minute if has_keyterms else rate

    @property
    def instance_usd_per_second(self) -> float:
        """The whole instance for one second."""
        rates = self.rates
        return (
            rates.gpu_usd_per_second
            + self.vcpus * rates.vcpu_usd_per_second
            + self.memory_gib * rates.gib_usd_per_second
        )


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """By which revision, in which group of the roll-out and how the job was done: by these, costs are compared."""

    revision: str = ""
    rollout_group: str | None = None
    """Rollout group of the video, `parakeet` or `deepgram`; None if the job was not decoded."""
    processing_time_seconds: float | None = None
    chunks_total: int | None = None
    chunks_fallback: int | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A job's bill: the body of its cost event."""

    price_book: str
    audio_seconds: float
    engines: tuple[EngineCost, ...]
    baseline: Baseline
    attribution: Attribution = Attribution()
    channels: tuple[ChannelCost, ...] = ()
    """By channel, where channels were transcribed apart."""

    @property
    def usd(self) -> float:
        """Dollars spent."""
        return sum(engine.usd for engine in self.engines)

    @property
    def savings_usd(self) -> float:
        """Dollars saved against Deepgram for all of the audio; negative for a loss."""
        return self.baseline.usd - self.usd

    @property
    def savings_percent(self) -> float:
        """The same in per cent of the baseline; 0 where there was nothing to pay for."""
        return PERCENT * self.savings_usd / self.baseline.usd if self.baseline.usd else 0.0


def price_book() -> PriceBook:
    """Return the price table that ships with this version of the worker."""
    table = tomllib.loads((files(__package__) / "price_book.toml").read_text())

    def of_deepgram(price: str) -> dict[str, float]:
        return {model: row[price] for model, row in table["deepgram"].items() if price in row}

    return PriceBook(
        version=table["version"],
        gpu_usd_per_second=table["gpu"]["usd_per_second"],
        vcpu_usd_per_second=table["vcpu"]["usd_per_second"],
        gib_usd_per_second=table["memory"]["usd_per_gib_second"],
        deepgram_usd_per_minute=of_deepgram("usd_per_minute"),
        deepgram_multilingual_usd_per_minute=of_deepgram("usd_per_minute_multilingual"),
        deepgram_keyterm_usd_per_minute=of_deepgram("usd_per_minute_keyterms"),
    )


def speed_for_savings(prices: Prices, percent: float) -> float:
    """Return the speed, in times real time, at which a busy instance saves `percent` of Deepgram's price."""
    allowed_usd_per_audio_second = prices.deepgram_usd_per_minute / SECONDS_PER_MINUTE * (1 - percent / PERCENT)
    return prices.instance_usd_per_second / allowed_usd_per_audio_second


def bill(
    chunks: Sequence[Checkpoint],
    audio_seconds: float,
    prices: Prices,
    waste: Waste = NO_WASTE,
    language: str | None = None,
    *,
    has_keyterms: bool = False,
) -> Cost:
    """Add up the finished chunks of all runs and workers, and compare with Deepgram for all of the audio.

    `waste` is the cost of failed chunks, which is paid although it brought no words.
    """
    rate = prices.deepgram_rate(language, has_keyterms=has_keyterms)
    return Cost(
        price_book=prices.book_version,
        audio_seconds=audio_seconds,
        engines=_engines(chunks, prices, rate, waste),
        baseline=Baseline(usd=audio_seconds / SECONDS_PER_MINUTE * prices.deepgram_usd_per_minute),
        channels=_by_channel(chunks, prices, rate),
    )


def as_waste(chunks: Iterable[Checkpoint]) -> Waste:
    """Return what the chunks cost, as part of the waste of a job that does not use their words."""
    chunks = tuple(chunks)
    return Waste(
        engine_seconds=sum(chunk.engine_seconds for chunk in chunks),
        deepgram_requests=_requests_of(chunks),
        deepgram_seconds=_billed_seconds(chunks),
    )


def _by_channel(chunks: Sequence[Checkpoint], prices: Prices, usd_per_minute: float) -> tuple[ChannelCost, ...]:
    by_number: dict[int, list[Checkpoint]] = defaultdict(list)
    for chunk in chunks:
        by_number[chunk.channel].append(chunk)
    return tuple(
        ChannelCost(
            channel=number,
            audio_seconds=sum(chunk.audio_seconds for chunk in of_one),
            gpu_seconds=sum(chunk.engine_seconds for chunk in of_one),
            deepgram_seconds=_billed_seconds(of_one),
            usd=sum(engine.usd for engine in _engines(of_one, prices, usd_per_minute, NO_WASTE)),
        )
        for number, of_one in sorted(by_number.items())
        if by_number.keys() != {0}
    )


def _engines(
    chunks: Sequence[Checkpoint], prices: Prices, usd_per_minute: float, waste: Waste
) -> tuple[EngineCost, ...]:
    return *_parakeet(chunks, prices, waste), *_deepgram(chunks, usd_per_minute, waste)


def _parakeet(chunks: Sequence[Checkpoint], prices: Prices, waste: Waste) -> tuple[ParakeetCost, ...]:
    seconds = sum(chunk.engine_seconds for chunk in chunks) + waste.engine_seconds
    by_parakeet = [chunk for chunk in chunks if chunk.engine == "parakeet"]
    if not by_parakeet and not seconds:
        return ()
    return (
        ParakeetCost(
            audio_seconds=sum(chunk.audio_seconds for chunk in by_parakeet),
            gpu_seconds=seconds,
            usd=seconds * prices.instance_usd_per_second,
            rates=prices.rates,
        ),
    )


def _deepgram(chunks: Sequence[Checkpoint], usd_per_minute: float, waste: Waste) -> tuple[DeepgramCost, ...]:
    answered = [chunk for chunk in chunks if chunk.engine == "deepgram"]
    requests = _requests_of(chunks) + waste.deepgram_requests
    billed_seconds = _billed_seconds(chunks) + waste.deepgram_seconds
    if not requests:
        return ()
    ids = [(chunk.deepgram_request_id, *chunk.gaps.deepgram_request_ids) for chunk in chunks]
    return (
        DeepgramCost(
            audio_seconds=sum(chunk.audio_seconds for chunk in answered),
            requests=requests,
            request_ids=tuple(one for several in ids for one in several if one),
            usd=billed_seconds / SECONDS_PER_MINUTE * usd_per_minute,
            rates=DeepgramRates(usd_per_minute=usd_per_minute),
        ),
    )


def _requests(chunk: Checkpoint) -> int:
    return (chunk.engine == "deepgram") + chunk.deepgram_wasted_requests


def _requests_of(chunks: Sequence[Checkpoint]) -> int:
    return sum(_requests(chunk) + chunk.gaps.deepgram_requests for chunk in chunks)


def _billed_seconds(chunks: Sequence[Checkpoint]) -> float:
    whole = (_requests(chunk) * (chunk.deepgram_billed_seconds or chunk.audio_seconds) for chunk in chunks)
    return sum(whole, sum(chunk.gaps.deepgram_seconds for chunk in chunks))


# the instance: engine seconds that are billed to jobs, and idle time


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Seconds of one instance, and their dollars. `idle` is what no job was charged for."""

    up_seconds: float
    engine_seconds: float
    idle_seconds: float
    instance_usd: float
    jobs_usd: float
    idle_usd: float
    idle_percent: float


def usage(up_seconds: float, engine_seconds: float, prices: Prices) -> Usage:
    """Split the time. Engine seconds above the time there was (a twin at a pace of its own) leave no idle time."""
    idle_seconds = max(0.0, up_seconds - engine_seconds)
    usd = prices.instance_usd_per_second
    return Usage(
        up_seconds=up_seconds,
        engine_seconds=engine_seconds,
        idle_seconds=idle_seconds,
        instance_usd=up_seconds * usd,
        jobs_usd=engine_seconds * usd,
        idle_usd=idle_seconds * usd,
        idle_percent=PERCENT * idle_seconds / up_seconds if up_seconds else 0.0,
    )


class MeteredRecogniser:
    """A `WindowRecogniser` that adds up what its engine spends on all jobs."""

    def __init__(self, recogniser: WindowRecogniser) -> None:
        self._recogniser = recogniser
        self.engine_seconds = 0.0

    @property
    def facts(self) -> EngineFacts:
        """The engine's."""
        return self._recogniser.facts

    def unspeakable(self, keyterms: Sequence[str]) -> tuple[str, ...]:
        """Return the keyterms that the engine cannot spell."""
        return self._recogniser.unspeakable(keyterms)

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        """Recognise a window with the engine, and count its time."""
        try:
            recognition = await self._recogniser.recognise(samples, job_id, keyterms=keyterms, team_id=team_id)
        except EngineError as exc:
            self.engine_seconds += exc.engine_seconds
            raise
        self.engine_seconds += recognition.engine_seconds
        return recognition


async def report_usage(engine: MeteredRecogniser, prices: Prices, clock: Clock) -> None:
    """Log the usage every five minutes and at the end, in an endless loop."""
    started_at = clock.monotonic()
    try:
        while True:
            await clock.sleep(REPORT_SECONDS)
            _report(usage(clock.monotonic() - started_at, engine.engine_seconds, prices))
    finally:
        _report(usage(clock.monotonic() - started_at, engine.engine_seconds, prices))


def _report(found: Usage) -> None:
    log.info("worker.usage", **{name: round(value, 6) for name, value in asdict(found).items()})
