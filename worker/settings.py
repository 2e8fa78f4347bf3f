"""The environment, read once into frozen groups; every factory takes the groups that it uses and no more.

Names and meanings are the contract's (section 4). A setting's variable is its field's name in capitals.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo

from schemas.codes import Method

_QUOTES = "'\""
_BUCKET = re.compile(r"[a-z0-9._-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_URL = re.compile(r"https?://[^/\s]")
_FOREIGN = frozenset({"TMPDIR", "DEEPGRAM_HOST"})
"""Variables of other programs that resemble settings of ours."""
_SECRETS = frozenset({"DEEPGRAM_API_KEY"})
_OUR_PREFIXES = ("PARAKEET_", "DEEPGRAM_")
_ALIKE = 0.88
"""Minimum of difflib's ratio: one letter added, removed or changed in a name of eight."""


class ParakeetDevice(StrEnum):
    """Device of Parakeet. `cuda` without a GPU refuses to start, instead of being slow unnoticed."""

    CUDA = "cuda"
    CPU = "cpu"
    AUTO = "auto"


def bucket_name(value: str) -> str:
    """Return the name of a bucket. Raises `ValueError` with the name that was likely meant."""
    if not _BUCKET.fullmatch(value):
        meant = re.sub(r"[^a-z0-9._-]", "", value.strip(_QUOTES + " ").removeprefix("gs://").split("/")[0].lower())
        rather = f"; write {meant}" if meant else ""
        raise ValueError(f"must be the name of a bucket alone, a-z 0-9 . _ -, without gs://, quotes or slashes{rather}")
    return value


def _bucket(value: object) -> object:
    return bucket_name(value) if isinstance(value, str) else value


def _buckets(value: object) -> object:
    if not isinstance(value, str):
        return value
    return frozenset(bucket_name(part.strip()) for part in value.split(",") if part.strip())


BucketName = Annotated[str, BeforeValidator(_bucket)]
BucketNames = Annotated[frozenset[str], BeforeValidator(_buckets)]


def _languages(value: object) -> object:
    if not isinstance(value, str):
        return value
    languages = [part.strip().lower() for part in value.split(",") if part.strip()]
    for language in languages:
        if not _LANGUAGE.fullmatch(language):
            raise ValueError(f"must be ISO 639 codes such as en,de,pt, not {language!r}: regions are ignored")
    return frozenset(languages)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _url(value: object) -> object:
    if isinstance(value, str) and not _URL.match(value):
        raise ValueError("must be a URL that begins with http:// or https://")
    return value


def _target(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"must be host:port without a scheme; write {value.partition('://')[2].rstrip('/')}")
    return value


Languages = Annotated[frozenset[str], BeforeValidator(_languages)]
Url = Annotated[str, BeforeValidator(_url)]


class Group(BaseModel):
    """Settings that are used together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _unquoted(cls, value: object) -> object:
        if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES:
            raise ValueError("must not be in quotes: quotes are part of the value, as `docker --env-file` reads it")
        return value


class CloudSettings(Group):
    """Names in Google Cloud."""

    project_id: str = Field("klipstream", description="Google Cloud project of the topics and subscriptions")
    jobs_subscription: str = Field("transcription-jobs-worker", description="subscription the jobs are pulled from")
    jobs_subscription_urgent: str = Field(
        "", description="subscription with the filter of urgent jobs, which are taken first; empty: off"
    )
    jobs_topic: str = Field(
        "transcription-jobs", description="topic jobs are published to; commands need it, run does not"
    )
    completion_topic: str = Field("transcription-completions", description="topic of the result and cost events")
    dead_letter_topic: str = Field("transcription-dead-letters", description="topic of the worker's own dead letters")
    dead_letter_subscription: str = Field(
        "transcription-dead-letters", description="subscription the dead-letter console reads"
    )
    output_bucket: BucketName = Field("", description="bucket of the artefacts where a job names no output_uri_prefix")
    state_bucket: BucketName = Field("", description="bucket of claims, checkpoints and result markers")
    pubsub_emulator_host: Annotated[str, BeforeValidator(_target)] | None = Field(
        None, description="host:port of a development server instead of Pub/Sub"
    )
    storage_emulator_host: Url | None = Field(None, description="URL of a development server instead of Cloud Storage")
    input_buckets: BucketNames = Field(frozenset(), description="buckets jobs may read, comma-separated; empty: any")
    output_buckets: BucketNames = Field(
        frozenset(), description="buckets jobs may write, comma-separated; empty: only OUTPUT_BUCKET"
    )

    @property
    def writable_buckets(self) -> frozenset[str]:
        """The buckets an output prefix may name."""
        return self.output_buckets or frozenset({self.output_bucket})

    @property
    def is_emulated(self) -> bool:
        """True if development servers replace both Pub/Sub and Cloud Storage."""
        return bool(self.pubsub_emulator_host and self.storage_emulator_host)


class EngineSettings(Group):
    """The engines, and the instance they run on."""

    enable_gpu_transcription: bool = Field(True, description="false: Parakeet is never used")
    parakeet_device: ParakeetDevice = Field(ParakeetDevice.CUDA, description="cuda, cpu or auto")
    parakeet_model_name: str = Field(
        "nvidia/parakeet-tdt-0.6b-v2",
        description="a hub name, a .nemo file or a folder of safetensors; null or null:200x: for load tests",
    )
    parakeet_languages: Languages = Field(
        frozenset(), description="languages of the model, comma-separated; empty: by its name or vocabulary"
    )
    parakeet_engine: Literal["auto", "native", "nemo"] = Field(
        "auto", description="native: the worker's own network; nemo; auto: native where it knows the model, else nemo"
    )
    gpu_batch_size: int | None = Field(
        None, ge=1, le=256, description="most windows of 30 s in one encoder pass; empty: as suits the GPU"
    )
    gpu_memory_limit_gb: float = Field(20, ge=2, description="hard cap on the process's GPU memory, GiB")
    gpu_precision: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="of the model on a GPU; on a CPU it is float32"
    )
    gpu_graphs: bool = Field(True, description="false: no CUDA graphs, the slower way to the same words")
    parakeet_overlap: bool = Field(
        True, description="false: encode and decode batches one after the other, the slower way to the same words"
    )
    # docs/BENCHMARKS.md has the table by weight.
    keyterm_weight: float = Field(
        3.5, ge=0, le=10, description="boost of a job's keyterms in Parakeet, in log-probability; 0: none"
    )
    enable_fallback: bool = Field(True, description="false: a chunk Parakeet cannot do fails the job")
    deepgram_api_key: SecretStr | None = Field(None, description="without it the fallback is off")
    deepgram_model: str = Field("nova-3", description="Deepgram model of the fallback")
    # All that four job slots with two chunks each can ask for; ten such workers stay below a project's limit of 100.
    deepgram_max_requests: int = Field(8, ge=1, le=100, description="requests to Deepgram at once, of one worker")
    deepgram_base_url: Url | None = Field(None, description="another address than Deepgram's, such as a stand-in's")
    instance_vcpus: float = Field(4, gt=0, description="vCPUs of the instance that runs the worker")
    instance_memory_gib: float = Field(16, gt=0, description="memory of that instance")


class RoutingSettings(Group):
    """The engine of a job."""

    transcription_method: Method = Field(Method.AUTO, description="method where the job does not force one")
    cost_optimization: bool = Field(True, description="auto picks the cheapest healthy method")
    short_file_threshold_hours: float = Field(2, ge=0, description="shorter goes to Parakeet")
    long_file_threshold_hours: float = Field(4, ge=0, description="at or above goes to Deepgram")
    parakeet_rollout_percent: float = Field(100, ge=0, le=100, description="share of videos that may use Parakeet")


class JobSettings(Group):
    """Jobs: how many, how large, and in what pieces."""

    # 10 minutes: a kill costs seconds of GPU time, and a long file has few enough checkpoints.
    chunk_duration_minutes: float = Field(10, ge=0.1, le=60, description="unit of checkpoint, retry and fallback")
    chunks_in_flight: int = Field(2, ge=1, le=16, description="chunks of one job worked on at once")
    enable_batch_processing: bool = Field(True, description="false: one job at a time")
    max_concurrent_jobs: int = Field(4, ge=1, le=64, description="job slots")
    max_parked: int = Field(
        4, ge=0, le=64, description="deliveries held while another worker does the job, or Deepgram is down"
    )
    max_file_size_gb: float = Field(2, gt=0, description="above: AUDIO_TOO_LARGE")
    # On Cloud Run the file system is memory: a quarter of the 16 GiB, and two files of the largest size.
    download_room_gb: float = Field(
        4, gt=0, description="audio on disk at once, all jobs together; a job beyond it waits in Pub/Sub"
    )
    max_audio_hours: float = Field(12, gt=0, le=99, description="above: AUDIO_TOO_LONG")
    max_job_attempts: int = Field(5, ge=1, description="failures with a verdict")
    max_crashes: int = Field(10, ge=1, description="starts that ended without verdict or new checkpoint")
    claim_ttl_seconds: float = Field(30, gt=0, description="a claim without a heartbeat for this long is stale")
    temp_dir: Path = Field(Path("/tmp"), description="where audio is downloaded to; memory on Cloud Run")  # noqa: S108
    progress_events: bool = Field(False, description="publish transcription.progress, at most one in 10 s a job")
    log_transcription_costs: bool = Field(True, description="one cost log event a job")

    @property
    def job_slots(self) -> int:
        """Number of jobs that run at once."""
        return self.max_concurrent_jobs if self.enable_batch_processing else 1


class TelemetrySettings(Group):
    """Health port, metrics, traces and logs."""

    health_port: int = Field(8080, ge=0, le=65535, description="port of the health endpoints; 0: any free one, logged")
    # The port shows job ids, so only the deployment opens it, for the platform's probes.
    health_host: str = Field("127.0.0.1", description="address they listen on; 0.0.0.0 for probes from outside")
    enable_performance_metrics: bool = Field(True, description="metrics on or off")
    metrics_exporter: Literal["none", "prometheus", "otlp", "gcp"] = Field(
        "prometheus", description="prometheus: /metrics on the health port; otlp: OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    traces_exporter: Literal["none", "otlp", "gcp", "file"] = Field("none", description="where traces go")
    traces_file: Path | None = Field(None, description="for TRACES_EXPORTER=file: one line of OTLP JSON a batch")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="debug, info, warning or error: the least severe events that are logged"
    )


class MoneySettings(Group):
    """The day's limit, and prices other than the price book's."""

    fallback_budget_usd_per_day: float | None = Field(None, ge=0, description="every Deepgram dollar of the pool a day")
    gpu_usd_per_second: float | None = Field(None, ge=0, description="overrides the price book")
    vcpu_usd_per_second: float | None = Field(None, ge=0, description="overrides the price book")
    gib_usd_per_second: float | None = Field(None, ge=0, description="overrides the price book")
    deepgram_usd_per_minute: float | None = Field(None, ge=0, description="overrides the price book")
    deepgram_keyterm_usd_per_minute: float | None = Field(
        None, ge=0, description="what keyterms add to it; overrides the price book"
    )


class Settings(BaseModel):
    """Every setting of the worker, by group."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cloud: CloudSettings = CloudSettings()
    engine: EngineSettings = EngineSettings()
    routing: RoutingSettings = RoutingSettings()
    jobs: JobSettings = JobSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    money: MoneySettings = MoneySettings()
    look_alikes: Mapping[str, str] = Field(default_factory=dict[str, str])
    """Variables that are no settings but look like one, each with that setting."""

    def changed(self) -> list[str]:
        """Return the settings that differ from their defaults, each as NAME=value, secrets hidden; for people."""
        shown, usual = self.masked(), Settings().masked()
        changed = {name: value for name, value in shown.items() if value != usual[name]}
        return [f"{name.upper()}={','.join(v) if isinstance(v, list) else v}" for name, v in changed.items()]

    def masked(self) -> dict[str, object]:
        """Return every setting as it is in effect, secrets hidden; for the log."""
        groups = self.model_dump(mode="json", exclude={"look_alikes"})
        return {
            name: sorted(value) if isinstance(value, list) else value  # a set has no order of its own
            for group in groups.values()
            for name, value in group.items()
        }


def read_settings(environment: Mapping[str, object]) -> Settings:
    """Read the variables. An empty one counts as not set, and capitals make no difference.

    Raises pydantic's `ValidationError` that names each bad variable, by its group and its field.
    """
    given = {name.upper(): value for name, value in environment.items() if value != ""}
    groups: dict[str, dict[str, object]] = {}
    for name, group, _ in fields():
        if name in given:
            groups.setdefault(group, {})[name.lower()] = given[name]
    return Settings.model_validate({**groups, "look_alikes": look_alikes(given)})


def problems(error: ValidationError) -> list[str]:
    """Return the name, the fault and, but for a secret, the value of each bad variable."""
    found = []
    for each in error.errors():
        name = ".".join(str(part) for part in each["loc"][1:]).upper()
        value = "a secret" if name in _SECRETS else repr(each["input"])
        found.append(f"{name}: {each['msg'].removeprefix('Value error, ')} (got {value})")
    return found


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield each setting: its variable, its group's name, and its field."""
    for group, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            for name, setting in field.annotation.model_fields.items():
                yield name.upper(), group, setting


def look_alikes(names: Mapping[str, object]) -> dict[str, str]:
    """Return the names that are no settings but resemble one, each with that setting."""
    known = [name for name, _, _ in fields()]
    found = {name: _resembled(name, known) for name in sorted(names.keys() - known - _FOREIGN)}
    return {name: setting for name, setting in found.items() if setting}


def _resembled(name: str, known: list[str]) -> str:
    """Return the known name that is alike by its letters, words or prefix, or an empty string."""
    if alike := get_close_matches(name, known, n=1, cutoff=_ALIKE):
        return alike[0]
    words = _words(name)
    for setting in known:
        own = _words(setting)
        if own == words or (len(own & words) > 1 and len(own ^ words) == 1):
            return setting
    if name.startswith(_OUR_PREFIXES):
        return get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return ""


def _words(name: str) -> set[str]:
    return {word.removesuffix("S") for word in name.split("_")}
