"""What the machine and the settings must allow: ffmpeg, memory, Deepgram."""

from collections.abc import AsyncIterator, Iterator

from worker.adapters.audio import (
    OLDEST_SAFE,
    PART_SECONDS,
    FfmpegMissing,
    ffmpeg_version,
    find_ffmpeg,
    is_too_old,
)
from worker.adapters.deepgram import Retries
from worker.engines import make_deepgram, only_deepgram, prices
from worker.errors import DeepgramPriceUnknown
from worker.ports import SAMPLE_RATE_HZ
from worker.preflight.finding import Finding, with_action
from worker.settings import Settings

GIB = 1024**3
SECONDS_PER_MINUTE = 60
SAMPLE_BYTES = 2


async def machine_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Whether jobs can be done here, the engine apart."""
    yield await _ffmpeg()
    yield memory_finding(settings)
    for finding in deepgram_findings(settings):
        yield finding


def memory_finding(settings: Settings) -> Finding:
    """Whether what all jobs may hold at once fits: downloads, since files may be memory, and the samples of chunks.

    Every job holds the chunks in flight, the one being cut, and the parts that are decoded ahead, so that the job
    slots are the budget of samples.
    """
    chunks_seconds = (settings.chunks_in_flight + 1) * settings.chunk_duration_minutes * SECONDS_PER_MINUTE
    parts_seconds = int(settings.instance_vcpus) * PART_SECONDS
    samples_gib = settings.job_slots * (chunks_seconds + parts_seconds) * SAMPLE_RATE_HZ * SAMPLE_BYTES / GIB
    files_gib = max(settings.download_room_gb, settings.max_file_size_gb)
    detail = f"audio may take {files_gib + samples_gib:.1f} GiB of INSTANCE_MEMORY_GIB={settings.instance_memory_gib:g}"
    fits = files_gib + samples_gib < settings.instance_memory_gib
    advice = "" if fits else ": lower DOWNLOAD_ROOM_GB, MAX_FILE_SIZE_GB, MAX_CONCURRENT_JOBS or CHUNKS_IN_FLIGHT"
    return Finding(name="memory", ok=fits, detail=detail + advice)


def deepgram_findings(settings: Settings) -> Iterator[Finding]:
    """Whether there is a key, whether there must be one, and whether its spending can be reckoned and stopped.

    Nothing is asked of Deepgram: a request that would prove the key costs money.
    """
    name = f"Deepgram {settings.deepgram_model}"
    try:
        usd_per_minute = prices(settings, uses_gpu=True).deepgram_usd_per_minute
    except DeepgramPriceUnknown as exc:
        yield Finding(name=name, ok=False, detail=with_action(exc))
        return
    if settings.deepgram_api_key is None:
        yield _without_a_key(name, only_deepgram(settings))
        return
    try:
        make_deepgram(settings, settings.deepgram_api_key.get_secret_value(), Retries())
    except ValueError as exc:
        yield Finding(name=name, ok=False, detail=f"DEEPGRAM_API_KEY: {exc}")
        return
    budget = settings.fallback_budget_usd_per_day
    limit = "no limit a day" if budget is None else f"at most ${budget:g} a day"
    yield Finding(name=name, ok=True, detail=f"${usd_per_minute:g} a minute, {limit}")
    if budget is None:
        detail = "FALLBACK_BUDGET_USD_PER_DAY is not set: nothing limits what a broken GPU costs"
        yield Finding(name=name, ok=True, advice=True, detail=detail)


def _without_a_key(name: str, only: str) -> Finding:
    if only:
        return Finding(name=name, ok=False, detail=f"DEEPGRAM_API_KEY is not set, and {only} leaves nothing else")
    detail = "DEEPGRAM_API_KEY is not set: the fallback is off, and jobs that only Deepgram can do fail"
    return Finding(name=name, ok=True, advice=True, detail=detail)


async def _ffmpeg() -> Finding:
    try:
        program = find_ffmpeg()
        version = await ffmpeg_version(program)
    except (FfmpegMissing, OSError) as exc:
        return Finding(name="ffmpeg", ok=False, detail=str(exc))
    detail = f"{version} at {program}"
    if is_too_old(version):
        oldest = ".".join(map(str, OLDEST_SAFE))
        detail += f": releases before {oldest} have known holes; install a newer one, or none to use the bundled one"
        return Finding(name="ffmpeg", ok=True, advice=True, detail=detail)
    return Finding(name="ffmpeg", ok=True, detail=detail)
