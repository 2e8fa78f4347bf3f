"""The job message (contract, section 1).

`parse_job` is the only parser of message bytes. It accepts unknown fields, takes `null` for a field that was left out,
and reports all violations of any other message at once.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import to_jsonable_python

from schemas.codes import CaptionFormat, Channels, ErrorCode, Method
from schemas.uris import GcsUri
from schemas.wire import Deadline, TolerantModel, load_object, violations

NEWEST_SCHEMA_VERSION = 1
MAX_JOB_BYTES = 1024 * 1024
"""Far above any real job; its events and its dead letter still fit into a Pub/Sub message."""

MAX_INTEGER = 2**63 - 1
"""The largest generation, and far above any version."""

MAX_OUTPUTS = 1_000
"""Upper bound of a list's items."""

MAX_KEYTERMS, MAX_KEYTERM_CHARACTERS, MAX_KEYTERM_WORDS = 100, 60, 6

MAX_LANGUAGE_CHARACTERS = 100
"""RFC 5646 sets no limit and recommends buffers of 35 characters."""

MAX_ECHO_DEPTH = 32
"""JSON parsers have a depth limit, and an event nests its job's fields deeper."""

URGENT = "urgent"
"""The only `priority` with an effect: the client repeats it as an attribute of the message."""

URGENT_FILTER = f'attributes.priority = "{URGENT}"'
"""Filter of the subscription that JOBS_SUBSCRIPTION_URGENT names."""

_CONTROL = frozenset({"Cc", "Cs", "Zl", "Zp"})

_ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

ANY_LANGUAGE = "auto"
"""The language of a job whose engine finds out which is spoken."""

_LANGUAGE_PATTERN = (
    "(auto|[A-Za-z]{2,3}(-[A-Za-z]{3}){0,3}"  # language, extended language
    "(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?"  # script, region
    "(-([A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3}))*"  # variants
    "(-[A-WYZa-wyz0-9](-[A-Za-z0-9]{2,8})+)*(-[Xx](-[A-Za-z0-9]{1,8})+)?)"  # extensions, private use
)


def _id(text: str) -> str:
    if not re.fullmatch(_ID_PATTERN, text):
        raise ValueError("must be 1 to 128 characters of A-Z a-z 0-9 . _ - and start with a letter or digit")
    return text


def _language(text: str) -> str:
    if len(text) > MAX_LANGUAGE_CHARACTERS or not re.fullmatch(_LANGUAGE_PATTERN, text):
        raise ValueError("must be a BCP-47 tag such as 'en' or 'pt-BR'")
    return text


def _keyterm(text: str) -> str:
    """Return the term composed (NFC), with single spaces between its words. Raises `ValueError` with all its faults."""
    if any(unicodedata.category(char) in _CONTROL for char in text):
        raise ValueError("must not contain control characters")
    words = unicodedata.normalize("NFC", text).split()
    term = " ".join(words)
    if not term:
        raise ValueError("must not be empty")
    sizes = ((MAX_KEYTERM_CHARACTERS, "characters", len(term)), (MAX_KEYTERM_WORDS, "words", len(words)))
    faults = [f"at most {most} {of_what}, not {count}" for most, of_what, count in sizes if count > most]
    if faults:
        raise ValueError(f"must have {' and '.join(faults)}")
    return term


def _each_once(terms: tuple[str, ...]) -> tuple[str, ...]:
    """Return the terms sorted; of terms that differ in case alone, the first one of the list."""
    first: dict[str, str] = {}
    for term in terms:
        first.setdefault(term.casefold(), term)
    return tuple(first[folded] for folded in sorted(first))


def _at_most(items: int) -> BeforeValidator:
    """Refuse a longer list before its items are validated: describing every wrong one takes pydantic seconds."""

    def check(value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) > items:
            raise ValueError(f"must have at most {items} items, not {len(value)}")
        return value

    return BeforeValidator(check)


def _shallow(value: JsonValue) -> JsonValue:
    containers: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_ECHO_DEPTH):
        containers = [
            member
            for each in containers
            for member in (each.values() if isinstance(each, dict) else each)
            if isinstance(member, (dict, list))
        ]
    if containers:
        raise ValueError(f"must be nested at most {MAX_ECHO_DEPTH} deep")
    return value


def _pattern(expression: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{expression}$"})


Id = Annotated[str, AfterValidator(_id), _pattern(_ID_PATTERN)]
Language = Annotated[str, AfterValidator(_language), _pattern(_LANGUAGE_PATTERN)]
ObjectUri = Annotated[str, AfterValidator(lambda text: str(GcsUri.parse(text))), _pattern("gs://[^/]+/.*[^/]")]
PrefixUri = Annotated[str, AfterValidator(lambda text: str(GcsUri.parse_prefix(text))), _pattern("gs://[^/]+/(.*/)?")]
Echoed = Annotated[JsonValue, AfterValidator(_shallow)]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(_shallow)]
Keyterm = Annotated[
    str,
    AfterValidator(_keyterm),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": MAX_KEYTERM_CHARACTERS, "pattern": r"^\S+( \S+){0,5}$"}
    ),
]
Keyterms = Annotated[
    tuple[Keyterm, ...],
    Field(strict=False, json_schema_extra={"maxItems": MAX_KEYTERMS}),  # a tuple is written as a list
    _at_most(MAX_KEYTERMS),
    AfterValidator(_each_once),
]
_NotStrict = Field(strict=False)  # an enum is written as its value, a tuple as a list


class JobEcho(TolerantModel):
    """Fields of the job that every event repeats, unchanged.

    `job_id` and `video_id` are null only in events about a message that was no job and had no readable ids.
    """

    job_id: Id | None = None
    video_id: Id | None = None
    created_at: Echoed = None
    priority: Echoed = None
    convex_video_id: Echoed = None
    team_id: Echoed = None
    callback_url: Echoed = None
    """Never called by the worker."""
    metadata: Metadata = Field(default_factory=dict)


class TranscriptionConfig(TolerantModel):
    """Restrictions of one job; true allows no more than the worker's own settings."""

    model_config = ConfigDict(strict=True)

    enable_gpu: bool = True
    enable_fallback: bool = True
    cost_optimization: bool = True
    method: Annotated[Method, _NotStrict] | None = None
    """Alias of the job's `force_method`; read that field instead."""


class TranscriptionJob(TolerantModel):
    """One file to transcribe. `force_method` includes the alias in `transcription_config`."""

    model_config = ConfigDict(strict=True)

    schema_version: Annotated[int, Field(ge=1, le=NEWEST_SCHEMA_VERSION)] = NEWEST_SCHEMA_VERSION
    job_id: Id
    """Idempotency key: the same id with another request is refused."""
    video_id: Id
    """Names the artefacts."""
    audio_uri: ObjectUri
    audio_generation: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    """Pins the object's generation."""
    output_uri_prefix: PrefixUri | None = None
    """Folder of the artefacts; default: `gs://{OUTPUT_BUCKET}/{video_id}/`."""
    language: Language = "en"
    force_method: Annotated[Method, _NotStrict] = Method.AUTO
    """Beats every other routing rule."""
    transcription_config: TranscriptionConfig = TranscriptionConfig()
    outputs: Annotated[tuple[Annotated[CaptionFormat, _NotStrict], ...], _NotStrict, _at_most(MAX_OUTPUTS)] = ()
    """Captions besides the three artefacts that are always written; sorted, without duplicates."""
    keyterms: Keyterms = ()
    """Names and terms to prefer, taken literally; sorted, each once whatever its case."""
    channels: Annotated[Channels, _NotStrict] = Channels.MIX
    """`apart`: each channel is transcribed by itself and has its own entry in the transcript."""
    duration_seconds: Annotated[float, Field(ge=0)] | None = None
    """A hint for routing; the decoded audio is the truth."""
    expires_at: Deadline | None = None
    """Deadline for the start: a job not begun by then fails with `EXPIRED`; a job that was begun is finished."""
    created_at: Echoed = None
    priority: Echoed = None
    convex_video_id: Echoed = None
    team_id: Echoed = None
    callback_url: Echoed = None
    """Never called by the worker."""
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _take_method_from_its_alias(cls, values: Any) -> Any:
        config = values.get("transcription_config") if isinstance(values, dict) else None
        alias = config.get("method") if isinstance(config, dict) else getattr(config, "method", None)
        if alias not in tuple(Method) or values.get("force_method") is not None:
            return values
        return {**values, "force_method": alias}

    @field_validator("transcription_config")
    @classmethod
    def _same_method(cls, config: TranscriptionConfig, info: ValidationInfo) -> TranscriptionConfig:
        forced = info.data.get("force_method")
        if config.method is not None and forced is not None and config.method is not forced:
            raise ValueError(f"method {config.method.value!r} must equal force_method {forced.value!r} or be left out")
        return config

    @field_validator("outputs")
    @classmethod
    def _in_order_each_once(cls, outputs: tuple[CaptionFormat, ...]) -> tuple[CaptionFormat, ...]:
        return tuple(sorted(set(outputs)))

    @property
    def audio(self) -> GcsUri:
        """The audio object's address."""
        return GcsUri.parse(self.audio_uri)

    def output_prefix(self, output_bucket: str) -> GcsUri:
        """Return the folder of the artefacts: the job's own, or `gs://{output_bucket}/{video_id}/`.

        The caller must check that the worker may write there.
        """
        own = self.output_uri_prefix
        return GcsUri.parse_prefix(own) if own else GcsUri(output_bucket, f"{self.video_id}/")

    @property
    def team(self) -> str:
        """The team whose jobs share one turn at the engine: `team_id` as text; empty if there is none."""
        if self.team_id is None:
            return ""
        return self.team_id if isinstance(self.team_id, str) else json.dumps(self.team_id, sort_keys=True)

    def echo(self) -> JobEcho:
        """Return the fields that every event repeats, without validating them a second time."""
        return JobEcho.model_construct(**{name: getattr(self, name) for name in JobEcho.model_fields})


class JobRejected(ValueError):
    """The message is not a job that this version can do.

    `violations` lists all its faults. `unsupported_version` is a `schema_version` newer than `NEWEST_SCHEMA_VERSION`,
    which is then the only violation; otherwise None. `job` has the ids and echoed fields that are valid by themselves,
    so that events about the failure can be addressed.
    """

    def __init__(
        self, violations: tuple[str, ...], job: JobEcho | None = None, unsupported_version: int | None = None
    ) -> None:
        self.violations = violations
        self.job = job or JobEcho()
        self.unsupported_version = unsupported_version
        super().__init__("; ".join(violations))

    @property
    def code(self) -> ErrorCode:
        """`UNSUPPORTED_SCHEMA_VERSION` or `INVALID_JOB`."""
        newer = self.unsupported_version is not None
        return ErrorCode.UNSUPPORTED_SCHEMA_VERSION if newer else ErrorCode.INVALID_JOB


def parse_job(data: bytes) -> tuple[TranscriptionJob, frozenset[str]]:
    """Parse a job message; return the job and the names of ignored fields. Raises `JobRejected` only."""
    if len(data) > MAX_JOB_BYTES:
        raise JobRejected((f"message: must have at most {MAX_JOB_BYTES} bytes (got {len(data)})",))
    try:
        document = load_object(data)
    except ValueError as exc:
        raise JobRejected((f"message: {exc}",)) from exc
    version = document.get("schema_version")
    if type(version) is int and NEWEST_SCHEMA_VERSION < version <= MAX_INTEGER:
        violation = f"schema_version: must be at most {NEWEST_SCHEMA_VERSION} (got {version})"
        raise JobRejected((violation,), _salvage(document), version)
    try:
        job = TranscriptionJob.model_validate(document)
    except ValidationError as exc:
        raise JobRejected(violations(exc), _salvage(document)) from exc
    config = document.get("transcription_config") or {}
    nested = {f"transcription_config.{name}" for name in config.keys() - TranscriptionConfig.model_fields.keys()}
    return job, frozenset(document.keys() - TranscriptionJob.model_fields.keys() | nested)


def encode_job(job: TranscriptionJob | Mapping[str, Any]) -> bytes:
    """Return the job as message data: the fields that were set, which `parse_job` parses to an equal job.

    A mapping is written unchecked; it may hold a `datetime`. Raises `JobRejected` for what JSON cannot hold.
    """
    if not isinstance(job, TranscriptionJob):
        try:
            return json.dumps(job, default=_jsonable).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise JobRejected((f"message: cannot be written as JSON: {exc}",)) from exc
    versioned = job.model_copy(update={"schema_version": job.schema_version})  # an updated field counts as set
    return versioned.model_dump_json(exclude_unset=True).encode()


def _jsonable(value: object) -> Any:
    return dict(value) if isinstance(value, Mapping) else to_jsonable_python(value)


def _salvage(document: dict[str, Any]) -> JobEcho:
    try:
        return JobEcho.model_validate(document)
    except ValidationError as exc:
        unreadable = {details["loc"][0] for details in exc.errors()}
        return JobEcho.model_validate({name: value for name, value in document.items() if name not in unreadable})
