"""Everything `run` needs, verified before the first pull: each check says what it found or what to do."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
import tenacity

from schemas.job import URGENT_FILTER
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
from worker.app.cloud import Cloud
from worker.app.engines import make_deepgram, only_deepgram, prices
from worker.app.parts import cloud_parts, takes_files
from worker.core.delivery.fitness import Part
from worker.errors import (
    DeepgramPriceUnknown,
    ObjectForbidden,
    ObjectNotFound,
    QueueServiceError,
    SubscriptionNotFound,
    Undiagnosed,
    WorkerError,
)
from worker.ports import SAMPLE_RATE_HZ, SubscriptionFacts
from worker.settings import CloudSettings, EngineSettings, JobSettings, MoneySettings, RoutingSettings

# A pull that was cut off may have taken messages; they come back after this.
LONGEST_ACK_DEADLINE_SECONDS = 60

PATIENCE_SECONDS = 25.0
"""Time for which a start waits for a service that does not answer. A refusal is final."""
GIB = 1024**3
SECONDS_PER_MINUTE = 60
SAMPLE_BYTES = 2
LEAST_FFMPEG = 6
_RELEASE = re.compile(r"n?(\d+)\.")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one check. `detail` is the fact that was found, or the fault and its remedy."""

    name: str
    ok: bool
    detail: str
    advice: bool = False
    """Not needed to run, but worth an operator's attention."""


class NotReady(Exception):
    """The worker refuses to start; `findings` are the checks that failed."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        super().__init__("not ready to run: " + "; ".join(f"{finding.name}: {finding.detail}" for finding in findings))


def log_finding(finding: Finding) -> None:
    """Log a finding; as a warning where an operator should do something."""
    say = log.info if finding.ok and not finding.advice else log.warning
    say("check.done", check=finding.name, ok=finding.ok, detail=finding.detail)


async def require_all(findings: AsyncIterator[Finding]) -> None:
    """Log every finding. Raises `NotReady` with all that failed."""
    failed = []
    async for finding in findings:
        log_finding(finding)
        if not finding.ok:
            failed.append(finding)
    if failed:
        raise NotReady(tuple(failed))


def with_action(error: WorkerError) -> str:
    """Return the error and its remedy as a sentence."""
    return f"{error}: {error.suggested_action}"


def variable_findings(look_alikes: Mapping[str, str]) -> Iterator[Finding]:
    """Yield an advice for each variable that is ignored but resembles the setting that the mapping names."""
    for name, setting in look_alikes.items():
        detail = f"no setting has this name, so it is ignored; did you mean {setting}?"
        yield Finding(name=name, ok=True, advice=True, detail=detail)


async def findings(
    cloud: Cloud, jobs: JobSettings, engine: EngineSettings, routing: RoutingSettings, money: MoneySettings
) -> AsyncIterator[Finding]:
    """Check everything but the engine: first what Google Cloud must hold, then what the machine must allow."""
    async for finding in cloud_findings(cloud):
        yield finding
    async for finding in local_findings(jobs, engine, routing, money):
        yield finding


async def local_findings(
    jobs: JobSettings, engine: EngineSettings, routing: RoutingSettings, money: MoneySettings
) -> AsyncIterator[Finding]:
    """Check the machine and the settings, the engine apart."""
    async for finding in machine_findings(jobs, engine):
        yield finding
    for finding in deepgram_findings(engine, routing, money):
        yield finding


async def cloud_findings(cloud: Cloud) -> AsyncIterator[Finding]:
    """Yield whether what the settings name exists and may be used: the probes of `worker.app.parts`."""
    async for finding in _subscriptions(cloud):
        yield finding
    for finding in bucket_findings(cloud.names):
        yield finding
    for part in cloud_parts(cloud):
        yield await _found(part)


def bucket_findings(names: CloudSettings) -> Iterator[Finding]:
    """Yield what is wrong with the buckets' settings, before any bucket is asked."""
    for variable, bucket in (("OUTPUT_BUCKET", names.output_bucket), ("STATE_BUCKET", names.state_bucket)):
        if not bucket:
            yield Finding(name=variable, ok=False, detail=f"{variable} is not set")
    if names.output_bucket and names.output_bucket not in names.writable_buckets:
        detail = f"it leaves out OUTPUT_BUCKET {names.output_bucket}: jobs without an output_uri_prefix are refused"
        yield Finding(name="OUTPUT_BUCKETS", ok=True, advice=True, detail=detail)


async def _subscriptions(cloud: Cloud) -> AsyncIterator[Finding]:
    plain = await _facts(cloud, cloud.names.jobs_subscription)
    for finding in _judged(cloud.names.jobs_subscription, plain):
        yield finding
    if isinstance(plain, SubscriptionFacts):
        own = {"COMPLETION_TOPIC": cloud.names.completion_topic, "DEAD_LETTER_TOPIC": cloud.names.dead_letter_topic}
        for finding in loop_findings(plain, {name: cloud.pubsub.topic(topic).path for name, topic in own.items()}):
            yield finding
    if not (name := cloud.names.jobs_subscription_urgent):
        return
    urgent = await _facts(cloud, name)
    for finding in _judged(name, urgent):
        yield finding
    if isinstance(plain, SubscriptionFacts) and isinstance(urgent, SubscriptionFacts):
        for finding in urgent_findings(plain, urgent):
            yield finding


def loop_findings(plain: SubscriptionFacts, own_topics: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the topics of the worker's own messages (paths by variable) that are the topic of the jobs."""
    for variable, path in own_topics.items():
        if path == plain.topic:
            detail = "it is the topic of the jobs: what the worker publishes there would come back as jobs, without end"
            yield Finding(name=f"{variable} {path}", ok=False, detail=detail)


def urgent_findings(plain: SubscriptionFacts, urgent: SubscriptionFacts) -> Iterator[Finding]:
    """Yield what is wrong with the pair of a plain and an urgent subscription."""
    name, wanted = f"JOBS_SUBSCRIPTION_URGENT {urgent.name}", "".join(URGENT_FILTER.split())
    if "".join(urgent.filter.split()) != wanted:
        has = f"the filter {urgent.filter}" if urgent.filter else "no filter"
        detail = (
            f"it has {has}, not {URGENT_FILTER}; a filter cannot be changed: delete the subscription and create it anew"
        )
        yield Finding(name=name, ok=False, detail=detail)
    if urgent.topic != plain.topic:
        yield Finding(name=name, ok=False, detail=f"its topic is {urgent.topic}, the plain one's is {plain.topic}")
    if plain.filter:
        detail = f"JOBS_SUBSCRIPTION has the filter {plain.filter}: jobs that it leaves out are never done"
        yield Finding(name=f"subscription {plain.name}", ok=True, advice=True, detail=detail)


async def _facts(cloud: Cloud, name: str) -> SubscriptionFacts | WorkerError:
    subscription = cloud.pubsub.subscription(name)
    try:
        facts = await subscription.facts()
        await subscription.verify()
    except (SubscriptionNotFound, QueueServiceError) as exc:
        return exc
    return facts


def _judged(subscription: str, facts: SubscriptionFacts | WorkerError) -> Iterator[Finding]:
    name = f"subscription {subscription}"
    if not isinstance(facts, SubscriptionFacts):
        yield Finding(name=name, ok=False, detail=with_action(facts))
        return
    deadline, exactly_once = facts.ack_deadline_seconds, "on" if facts.exactly_once else "off"
    yield Finding(name=name, ok=True, detail=f"ack deadline {deadline} s, exactly-once {exactly_once}")
    if deadline > LONGEST_ACK_DEADLINE_SECONDS:
        detail = (
            f"the ack deadline of {deadline} s delays redelivery: at most {LONGEST_ACK_DEADLINE_SECONDS} s is better"
        )
        yield Finding(name=name, ok=True, advice=True, detail=detail)
    if facts.dead_letter_topic is None:
        detail = "no dead-letter policy: a message that kills every worker would be delivered without end"
        yield Finding(name=name, ok=True, advice=True, detail=detail)


async def _found(part: Part) -> Finding:
    try:
        await _patiently(part)
    except ObjectNotFound:
        detail = f"there is no bucket {part.resource}: create it, or correct the setting that names it"
        return Finding(name=part.name, ok=False, detail=detail)
    except ObjectForbidden as exc:
        role = "roles/storage.objectViewer" if part.name.startswith("audio") else "roles/storage.objectUser"
        return Finding(name=part.name, ok=False, detail=f"{exc}: grant the worker's account {role}")
    except WorkerError as exc:
        return Finding(name=part.name, ok=False, detail=with_action(exc))
    return Finding(name=part.name, ok=True, detail="ok")


async def _patiently(part: Part) -> None:
    """Probe the part, again where the service did not answer: probes repeat nothing themselves."""
    tries = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_is_silence),
        wait=tenacity.wait_random_exponential(multiplier=0.3, max=4.0),
        stop=tenacity.stop_before_delay(PATIENCE_SECONDS),
        reraise=True,
    )
    await tries(part.probe)


def _is_silence(error: BaseException) -> bool:
    return isinstance(error, Undiagnosed) and not error.refused


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
