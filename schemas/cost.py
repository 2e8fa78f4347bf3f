"""Cost of a job by engine: the body of the cost event."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.wire import Count, Seconds, Usd, WireModel


class ParakeetRates(WireModel):
    """Dollars per second of the instance that ran Parakeet, from the price book."""

    gpu_usd_per_second: float
    vcpu_usd_per_second: float
    gib_usd_per_second: float


class ParakeetCost(WireModel):
    """Parakeet's part of a job."""

    engine: Literal["parakeet"] = "parakeet"
    audio_seconds: Seconds
    gpu_seconds: Seconds
    """The job's share of the engine time of every pass that contained its windows."""
    usd: Usd
    rates: ParakeetRates


class DeepgramRates(WireModel):
    """Dollars per minute of audio."""

    usd_per_minute: float


class DeepgramCost(WireModel):
    """Deepgram's part of a job."""

    engine: Literal["deepgram"] = "deepgram"
    audio_seconds: Seconds
    requests: Count
    request_ids: tuple[str, ...]
    usd: Usd
    rates: DeepgramRates


class OtherEngineCost(WireModel):
    """An engine that this version of the schemas does not know."""

    engine: str
    audio_seconds: Seconds
    usd: Usd


EngineCost = Annotated[ParakeetCost | DeepgramCost | OtherEngineCost, Field(union_mode="left_to_right")]


class ChannelCost(WireModel):
    """Part of one channel, where channels were transcribed apart. Failed chunks are no channel's."""

    channel: Count
    """Counted from 0, as in the transcript."""
    audio_seconds: Seconds
    gpu_seconds: Seconds
    deepgram_seconds: Seconds
    """Audio that Deepgram bills."""
    usd: Usd


class Baseline(WireModel):
    """Cost of the same audio at Deepgram alone, the reference of the savings."""

    engine: str = "deepgram"
    usd: Usd
