"""Everything `run` needs, verified before the first pull: each check says what it found or what to do."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import structlog

from worker.adapters.audio import PART_SECONDS, FfmpegMissing, ffmpeg_version, find_ffmpeg
from worker.adapters.gcs import GcsObjectStore
from worker.adapters.pubsub import PubSub
from worker.errors import (
    DeepgramPriceUnknown,
    ObjectForbidden,
    ObjectNotFound,
    QueueNotFound,
    QueueServiceError,
    WorkerError,
)
from worker.ports import SAMPLE_RATE_HZ, ObjectRef
from worker.settings import Settings

# A pull that was cut off may have taken messages; they come back after this.
LONGEST_ACK_DEADLINE_SECONDS = 60
GIB = 1024**3
SECONDS_PER_MINUTE = 60
SAMPLE_BYTES = 2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check came to. `detail` says what was found, or what is wrong and what to do about it."""

    name: str
    ok: bool
    detail: str
    advice: bool = False
    """Not needed to run, but worth an operator's attention."""


class NotReady(Exception):
    """The worker refuses to start; `findings` are the checks that failed."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        super().__init__("; ".join(f"{finding.name}: {finding.detail}" for finding in findings))


async def demand(findings: AsyncIterator[Finding]) -> None:
    """Log every finding. Raises `NotReady` with all that failed."""
    failed = []
    async for finding in findings:
        say = log.info if finding.ok and not finding.advice else log.warning
        say("check.done", check=finding.name, ok=finding.ok, detail=finding.detail)
        if not finding.ok:
            failed.append(finding)
    if failed:
        raise NotReady(tuple(failed))


async def findings(settings: Settings, pubsub: PubSub, store: GcsObjectStore) -> AsyncIterator[Finding]:
    """Check everything but the engine, in the order an operator would."""
    yield await _ffmpeg()
    yield memory_finding(settings)
    async for finding in _subscription(settings, pubsub):
        yield finding
    for name in (settings.completion_topic, settings.dead_letter_topic):
        yield await _found(f"topic {name}", pubsub.topic(name).verify)
    for variable, bucket in (("OUTPUT_BUCKET", settings.output_bucket), ("STATE_BUCKET", settings.state_bucket)):
        yield await _bucket(variable, bucket, store)
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
    from worker.adapters.deepgram import Retries  # noqa: PLC0415  its SDK, for which the checks before it need not wait
    from worker.engines import make_deepgram, only_deepgram, prices  # noqa: PLC0415

    name = f"Deepgram {settings.deepgram_model}"
    try:
        usd_per_minute = prices(settings, uses_gpu=True).deepgram_usd_per_minute
    except DeepgramPriceUnknown as exc:
        yield Finding(name=name, ok=False, detail=_with_action(exc))
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
        return Finding(name="ffmpeg", ok=True, detail=f"{await ffmpeg_version(program)} at {program}")
    except (FfmpegMissing, OSError) as exc:
        return Finding(name="ffmpeg", ok=False, detail=str(exc))


async def _subscription(settings: Settings, pubsub: PubSub) -> AsyncIterator[Finding]:
    name = f"subscription {settings.jobs_subscription}"
    try:
        facts = await pubsub.subscription(settings.jobs_subscription).facts()
    except (QueueNotFound, QueueServiceError) as exc:
        yield Finding(name=name, ok=False, detail=_with_action(exc))
        return
    deadline, exactly_once = facts.ack_deadline_seconds, "on" if facts.exactly_once else "off"
    yield Finding(name=name, ok=True, detail=f"ack deadline {deadline} s, exactly-once {exactly_once}")
    if deadline > LONGEST_ACK_DEADLINE_SECONDS:
        detail = (
            f"the ack deadline of {deadline} s delays redelivery: at most {LONGEST_ACK_DEADLINE_SECONDS} s is better"
        )
        yield Finding(name=name, ok=True, advice=True, detail=detail)
    if facts.dead_letter_topic is None:
        detail = "no dead-letter policy: a message that kills every worker would be delivered for ever"
        yield Finding(name=name, ok=True, advice=True, detail=detail)


async def _bucket(variable: str, bucket: str, store: GcsObjectStore) -> Finding:
    name = f"bucket {bucket or variable}"
    if not bucket:
        return Finding(name=name, ok=False, detail=f"{variable} is not set")
    return await _found(name, lambda: _touch(store, ObjectRef(bucket, ".klipstream-worker-check")))


async def _touch(store: GcsObjectStore, ref: ObjectRef) -> None:
    await store.write(ref, b"may be deleted at any time\n", content_type="text/plain")
    await store.delete(ref)


async def _found(name: str, check: Callable[[], Awaitable[object]]) -> Finding:
    try:
        await check()
    except ObjectNotFound as exc:
        return Finding(name=name, ok=False, detail=f"{exc}: create the bucket, or correct the setting that names it")
    except ObjectForbidden as exc:
        return Finding(name=name, ok=False, detail=f"{exc}: grant the worker's account roles/storage.objectUser")
    except WorkerError as exc:
        return Finding(name=name, ok=False, detail=_with_action(exc))
    return Finding(name=name, ok=True, detail="ok")


def _with_action(error: WorkerError) -> str:
    return f"{error}: {error.suggested_action}"
