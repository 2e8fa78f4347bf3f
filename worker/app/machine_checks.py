"""Checks of the machine and the settings before the first pull: ffmpeg, memory, Deepgram."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from worker.adapters.audio import (
    OLDEST_SAFE,
    PART_SECONDS,
    Confinement,
    FfmpegMissing,
    Kernel,
    Limits,
    ffmpeg_version,
    find_ffmpeg,
    is_too_old,
)
from worker.adapters.deepgram import RetryPolicy
from worker.app.engines import make_deepgram, only_deepgram, prices
from worker.app.parts import takes_files
from worker.app.preflight import Finding, with_action
from worker.errors import DeepgramPriceUnknown
from worker.ports import SAMPLE_RATE_HZ
from worker.settings import EngineSettings, JobSettings, MoneySettings, RoutingSettings

GIB = 1024**3
SECONDS_PER_MINUTE = 60
SAMPLE_BYTES = 2
LEAST_FFMPEG = 6
_RELEASE = re.compile(r"n?(\d+)\.")


async def local_findings(
    jobs: JobSettings, engine: EngineSettings, routing: RoutingSettings, money: MoneySettings
) -> AsyncIterator[Finding]:
    """Check the machine and the settings, the engine apart."""
    async for finding in machine_findings(jobs, engine):
        yield finding
    for finding in deepgram_findings(engine, routing, money):
        yield finding


async def machine_findings(jobs: JobSettings, engine: EngineSettings) -> AsyncIterator[Finding]:
    """Check whether jobs can be done here, the engines apart."""
    yield await _ffmpeg()
    for finding in confinement_findings(find_ffmpeg, Kernel.here()):
        yield finding
    for finding in await asyncio.to_thread(temp_dir_findings, jobs):
        yield finding
    yield memory_finding(jobs, engine)


def temp_dir_findings(jobs: JobSettings) -> list[Finding]:
    """Return whether TEMP_DIR takes files, and has the room that the settings promise to downloads."""
    name, folder = f"TEMP_DIR {jobs.temp_dir}", jobs.temp_dir
    if not folder.is_dir():
        return [Finding(name=name, ok=False, detail=f"{folder} is no directory: create it, or correct TEMP_DIR")]
    try:
        with TemporaryDirectory(prefix="klipstream-check-", dir=folder) as own:
            takes_files(Path(own))
        free_bytes = shutil.disk_usage(folder).free
    except OSError as exc:
        return [Finding(name=name, ok=False, detail=f"{exc}: free it, or set TEMP_DIR to a folder that takes files")]
    found = [Finding(name=name, ok=True, detail=f"{free_bytes / GIB:.1f} GiB free")]
    if free_bytes < jobs.download_room_gb * GIB:
        detail = (
            f"{free_bytes / GIB:.1f} GiB are free, DOWNLOAD_ROOM_GB promises {jobs.download_room_gb:g}: jobs whose "
            "audio does not fit are handed back"
        )
        found.append(Finding(name=name, ok=True, advice=True, detail=detail))
    return found


def memory_finding(jobs: JobSettings, engine: EngineSettings) -> Finding:
    """Compare what all jobs may hold at once with the memory: downloads, since files may be memory, samples, decoders.

    Every job holds the chunks in flight, the one being cut, and the parts that are decoded ahead. It runs one decoder,
    and all jobs share those of parts.
    """
    chunks_seconds = (jobs.chunks_in_flight + 1) * jobs.chunk_duration_minutes * SECONDS_PER_MINUTE
    parts_seconds = int(engine.instance_vcpus) * PART_SECONDS
    samples_gib = jobs.job_slots * (chunks_seconds + parts_seconds) * SAMPLE_RATE_HZ * SAMPLE_BYTES / GIB
    files_gib = max(jobs.download_room_gb, jobs.max_file_size_gb)
    decoders = jobs.job_slots + int(engine.instance_vcpus)
    decoders_gib = decoders * Limits(max_seconds=0).memory_bytes / GIB
    most_gib = files_gib + samples_gib + decoders_gib
    detail = f"audio may take {most_gib:.1f} GiB of INSTANCE_MEMORY_GIB={engine.instance_memory_gib:g}"
    fits = most_gib < engine.instance_memory_gib
    advice = "" if fits else ": lower DOWNLOAD_ROOM_GB, MAX_FILE_SIZE_GB, MAX_CONCURRENT_JOBS or CHUNKS_IN_FLIGHT"
    return Finding(name="memory", ok=fits, detail=detail + advice)


def confinement_findings(find: Callable[[], Path], kernel: Kernel) -> Iterator[Finding]:
    """Say what a decoder that a file has taken over could do on this machine, as advice; nothing without an ffmpeg."""
    try:
        gaps = Confinement(path=find(), kernel=kernel).gaps()
    except (FfmpegMissing, OSError):
        return
    detail = "; ".join(gaps) or "a file that takes ffmpeg over reaches no other file, no socket and no process"
    prefix = "a file that takes ffmpeg over could " if gaps else ""
    yield Finding(name="confinement", ok=True, advice=bool(gaps), detail=prefix + detail)


def deepgram_findings(engine: EngineSettings, routing: RoutingSettings, money: MoneySettings) -> Iterator[Finding]:
    """Check that there is a key where one is needed, and that its spending is known and limited.

    Sends no request: one that would prove the key costs money.
    """
    name = f"Deepgram {engine.deepgram_model}"
    try:
        usd_per_minute = prices(engine, money, uses_gpu=True).deepgram_usd_per_minute
    except DeepgramPriceUnknown as exc:
        yield Finding(name=name, ok=False, detail=with_action(exc))
        return
    if engine.deepgram_api_key is None:
        yield _without_a_key(name, only_deepgram(engine, routing))
        return
    try:
        make_deepgram(engine, engine.deepgram_api_key.get_secret_value(), RetryPolicy())
    except ValueError as exc:
        yield Finding(name=name, ok=False, detail=f"DEEPGRAM_API_KEY: {exc}")
        return
    budget = money.fallback_budget_usd_per_day
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
        return ffmpeg_finding(program, await ffmpeg_version(program))
    except (FfmpegMissing, OSError) as exc:
        return Finding(name="ffmpeg", ok=False, detail=str(exc))


def ffmpeg_finding(program: Path, version: str) -> Finding:
    """Refuse an ffmpeg that cannot read an inherited file; builds between releases have no number and pass."""
    detail = f"{version} at {program}"
    if (number := _RELEASE.match(version)) and int(number[1]) < LEAST_FFMPEG:
        detail += f": {LEAST_FFMPEG}.0 or newer is needed; remove it from PATH, and the one of imageio-ffmpeg serves"
        return Finding(name="ffmpeg", ok=False, detail=detail)
    if is_too_old(version):
        oldest = ".".join(map(str, OLDEST_SAFE))
        detail += f": releases before {oldest} have known holes; install a newer one, or none to use the bundled one"
        return Finding(name="ffmpeg", ok=True, advice=True, detail=detail)
    return Finding(name="ffmpeg", ok=True, detail=detail)
