"""Settings of the pipeline's call, read from the environment, and the folder in which the pipeline expects files."""

import math
import os
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from schemas.uris import is_bucket

CONNECT_SECONDS = 1.0
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9._~%+-]{2,254}")


class PipelineMisconfigured(ValueError):
    """A variable of the pipeline's call is missing or wrong; the message names it, its value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """Names in Google Cloud, and the time that a call may take."""

    project_id: str
    audio_bucket: str
    jobs_topic: str
    completion_topic: str
    subscription: str | None
    """None: the process makes one while calls wait."""
    timeout_seconds: float
    usual_timeout_seconds: float
    """The timeout of calls without their own: other processes may await an event as long."""

    @classmethod
    def read(
        cls, timeout_seconds: float | None = None, environment: Mapping[str, str] = os.environ
    ) -> "PipelineSettings":
        """Read the variables. Raises `PipelineMisconfigured` for the first one that is missing or wrong."""
        usual = _seconds("TRANSCRIPTION_TIMEOUT", environment.get("TRANSCRIPTION_TIMEOUT") or "1800")
        return cls(
            project_id=_required(environment, "PROJECT_ID", "the Google Cloud project of the topics"),
            audio_bucket=_bucket(environment),
            jobs_topic=_resource(environment, "JOBS_TOPIC", "transcription-jobs"),
            completion_topic=_resource(environment, "COMPLETION_TOPIC", "transcription-completions"),
            subscription=_resource(environment, "PIPELINE_SUBSCRIPTION", "") or None,
            timeout_seconds=usual if timeout_seconds is None else _seconds("timeout_seconds", timeout_seconds),
            usual_timeout_seconds=usual,
        )


def check_emulators(environment: Mapping[str, str] = os.environ) -> None:
    """Connect to the development servers that the environment names: Google's clients would retry silently for minutes.

    Raises `PipelineMisconfigured` if one is down.
    """
    for variable in ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"):
        if address := environment.get(variable, ""):
            server = urlsplit(address if "://" in address else f"//{address}")
            try:
                socket.create_connection((server.hostname or "", server.port or 80), CONNECT_SECONDS).close()
            except (OSError, ValueError) as exc:
                remedy = "start `klipstream-worker emulators`, or unset the variable to use Google Cloud"
                raise PipelineMisconfigured(f"{variable}: nothing answers at {address!r}; {remedy}") from exc


def transcripts_folder(audio: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder in which the pipeline looks for the transcripts of an audio file.

    It keeps audio in `Raw/Audio` and transcripts in `Raw/Transcripts` of one output folder: for audio elsewhere
    `output` below its `BASE_DIR`, which is /tmp on Cloud Run and the working directory otherwise.
    """
    if audio.parent.parts[-2:] == ("Raw", "Audio"):
        return audio.parent.with_name("Transcripts")
    default = "/tmp" if "K_SERVICE" in environment else "."  # noqa: S108 - the pipeline's own
    return Path(environment.get("BASE_DIR", default)) / "output" / "Raw" / "Transcripts"


def _required(environment: Mapping[str, str], variable: str, meaning: str) -> str:
    value = environment.get(variable, "").strip()
    if not value:
        raise PipelineMisconfigured(f"{variable} is not set: it must be {meaning}")
    return value


def _bucket(environment: Mapping[str, str]) -> str:
    name = _required(environment, "AUDIO_BUCKET", "the bucket from which the worker reads audio, such as my-audio")
    if not is_bucket(name):
        raise PipelineMisconfigured(
            f"AUDIO_BUCKET must be a bucket's name, such as my-audio, without gs:// (got {name!r})"
        )
    return name


def _resource(environment: Mapping[str, str], variable: str, default: str) -> str:
    name = environment.get(variable, "").strip() or default
    if name and not _RESOURCE.fullmatch(name):
        raise PipelineMisconfigured(f"{variable} must be a short name, such as transcription-jobs (got {name!r})")
    return name


def _seconds(name: str, value: str | float) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise PipelineMisconfigured(f"{name} must be seconds above 0, such as 1800 (got {value!r})")
    return seconds
