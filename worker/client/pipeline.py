"""The pipeline's transcription call on the worker: `transcribe`, and `transcribe_async` as its router awaits it.

    try:
        files = await transcribe_async(audio_path, video_id, output_dir)
    except Exception:           # the worker is down, too slow, or failed: today's path takes over
        files = await router.transcribe(audio_path, video_id, output_dir)

Needs Python 3.10 on, `pip install 'klipstream-worker[client]'`, and these variables:

| variable | default | meaning |
|---|---|---|
| `PROJECT_ID` | | project of topics and subscription |
| `AUDIO_BUCKET` | | bucket the audio is uploaded to; the worker's `INPUT_BUCKETS` must hold it |
| `JOBS_TOPIC` | `transcription-jobs` | |
| `PIPELINE_SUBSCRIPTION` | | subscription on the completion topic that these calls alone read. Unset: one is made while calls wait, which needs the right to create subscriptions |
| `COMPLETION_TOPIC` | `transcription-completions` | topic of the subscription that is made |
| `TRANSCRIPTION_TIMEOUT` | 1800 | seconds a call may take, upload included |

`STORAGE_EMULATOR_HOST` and `PUBSUB_EMULATOR_HOST` are honoured, as `klipstream-worker emulators` prints them.

**Repetition is free.** The audio's checksum is part of the job id, so a second call with the same audio returns what
the worker has. If that is a failure that is retryable, or came from a deadline, the call asks for the job's next run.

**Deadline.** The job's `expires_at` is the end of the call's time. A job that was not begun by then, or whose call was
cancelled, expires and costs nothing; a job that was begun is finished, and the next call returns its result.
"""  # noqa: E501 - a table

import asyncio
import base64
import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.codes import ErrorCode
from schemas.events import CompletedEvent, FailedEvent, StoredArtefact
from schemas.job import JobRejected, TranscriptionJob, encode_job, parse_job
from schemas.uris import GcsUri
from worker.client import own_subscription, submit
from worker.client.connections import AwaitedJob, EventReader, EventSubscription, JobEnd, subscriber_client
from worker.client.pipeline_settings import PipelineMisconfigured, PipelineSettings, check_emulators, transcripts_folder

if TYPE_CHECKING:
    from google.cloud.storage import Client

__all__ = ["ArtefactChanged", "PipelineMisconfigured", "TranscriptionFailed", "transcribe", "transcribe_async"]

TRANSFER_SECONDS = 300
MOST_OF_A_VIDEO_ID = 115
"""Characters of a video id in a job id, which has room for 128."""
DIGEST_CHARACTERS = 12
MOST_RUNS_OF_A_CALL = 3
"""A call's own run, and the runs that replace failures of earlier calls."""


class TranscriptionFailed(Exception):
    """The worker gave up on the job; `code` and `suggested_action` say why and what to do, `event` has the rest."""

    def __init__(self, event: FailedEvent) -> None:
        self.event = event
        self.code, self.suggested_action = str(event.error.error_code), event.error.suggested_action
        super().__init__(f"{self.code}: {event.error.error_message}")


class ArtefactChanged(Exception):
    """An artefact's content is not the one that the worker wrote."""


def transcribe(
    audio_file_path: str | os.PathLike[str],
    video_id: str,
    output_dir: str | os.PathLike[str] | None = None,
    *,
    timeout_seconds: float | None = None,
    keyterms: Sequence[str] = (),
) -> dict[str, Any]:
    """Transcribe an audio file on the worker and write the artefacts to `output_dir`. Blocks.

    The default folder is where the pipeline looks for transcripts: `Raw/Transcripts` beside an audio file in
    `Raw/Audio`, otherwise `output/Raw/Transcripts` below its `BASE_DIR` (/tmp on Cloud Run, else the working
    directory). The default timeout is `TRANSCRIPTION_TIMEOUT`. `keyterms` are names and terms to prefer; the same audio
    with other keyterms is another job, whose artefacts replace the former ones.

    Returns `words_file`, `paragraphs_file` and `transcript_json_file` as `pathlib.Path`, and `transcription_metadata`
    with `cost_estimate` in dollars. Raises `TranscriptionFailed`, `TimeoutError`, `PipelineMisconfigured` for a
    variable that is missing or wrong, `schemas.job.JobRejected` for a bad `video_id` or keyterm, `ArtefactChanged`,
    `OSError` for an unreadable audio file, or what Google's clients raise. No half-written file is left.
    """
    call = _Call(audio_file_path, video_id, output_dir, timeout_seconds, keyterms)
    call.upload()
    retry_of: FailedEvent | None = None
    while True:
        end = call.begin(retry_of)
        try:
            event = end.result(timeout=call.seconds_left)
        except FutureTimeout as exc:
            raise call.timed_out() from exc
        finally:
            end.cancel()
        retry_of = call.failure_to_replace(event)
        if retry_of is None:
            return call.finish(event)


async def transcribe_async(
    audio_file_path: str | os.PathLike[str],
    video_id: str,
    output_dir: str | os.PathLike[str] | None = None,
    *,
    timeout_seconds: float | None = None,
    keyterms: Sequence[str] = (),
) -> dict[str, Any]:
    """Do the same as `transcribe` without blocking the event loop; a waiting call occupies no thread.

    When the task is cancelled the wait ends at once, and the job is not submitted any more. A submitted job cannot be
    recalled; it expires if the worker has not begun it by the call's deadline.
    """
    call = await asyncio.to_thread(_Call, audio_file_path, video_id, output_dir, timeout_seconds, keyterms)
    try:
        await asyncio.to_thread(call.upload)
        retry_of: FailedEvent | None = None
        while True:
            end = asyncio.wrap_future(await asyncio.to_thread(call.begin, retry_of))
            try:
                event = await asyncio.wait_for(end, call.seconds_left)
            except asyncio.TimeoutError as exc:
                raise call.timed_out() from exc
            retry_of = call.failure_to_replace(event)
            if retry_of is None:
                return await asyncio.to_thread(call.finish, event)
    finally:
        call.abandon()


class _Call:
    """One call: its job, its deadline, and the steps, each of which blocks."""

    def __init__(
        self,
        audio_file_path: str | os.PathLike[str],
        video_id: str,
        output_dir: str | os.PathLike[str] | None,
        timeout_seconds: float | None,
        keyterms: Sequence[str],
    ) -> None:
        started_at, started = datetime.now(timezone.utc), time.monotonic()
        self._settings = PipelineSettings.read(timeout_seconds)
        check_emulators()
        self._audio = Path(audio_file_path)
        self._folder = transcripts_folder(self._audio) if output_dir is None else Path(output_dir)
        self._ends_at = started + self._settings.timeout_seconds
        self._job = _job(self._audio, video_id, self._settings, started_at, keyterms)
        self._submitted_at, self._runs = started_at, 0
        self._end: JobEnd | None = None
        self._abandoned = threading.Event()

    @property
    def seconds_left(self) -> float:
        """Seconds until the call's deadline, not below 0."""
        return max(0.0, self._ends_at - time.monotonic())

    def timed_out(self) -> TimeoutError:
        """Return the error of a call whose deadline has passed."""
        return TimeoutError(f"job {self._job.job_id} has not ended within {self._settings.timeout_seconds:g} s")

    def upload(self) -> None:
        """Upload the audio unless it is there already: its name holds the checksum."""
        from google.api_core.exceptions import PreconditionFailed

        uri = self._job.audio
        with _storage(self._settings) as client, _explained("AUDIO_BUCKET", f"bucket {uri.bucket!r}"):
            blob = client.bucket(uri.bucket).blob(uri.name)
            with suppress(PreconditionFailed):
                blob.upload_from_filename(self._audio, if_generation_match=0, timeout=TRANSFER_SECONDS)

    def begin(self, retry_of: FailedEvent | None) -> JobEnd:
        """Start to wait for the job's end, then submit it. Returns a cancelled future after `abandon`.

        Raises `TimeoutError` without submitting when the upload has used up the call's time.
        """
        if not self.seconds_left:
            raise self.timed_out()
        settings, run = self._settings, 0 if retry_of is None else retry_of.run + 1
        self._end = end = _reader_of(settings).end_of(AwaitedJob.of(self._job, run))
        if self._abandoned.is_set():
            end.cancel()
        if end.done():  # abandoned, or the subscription cannot be read
            return end
        self._submitted_at, self._runs = datetime.now(timezone.utc), self._runs + 1
        with ExitStack() as undo:
            undo.callback(end.cancel)
            with _explained("JOBS_TOPIC", f"topic {settings.jobs_topic!r} in project {settings.project_id!r}"):
                submit(self._job, project_id=settings.project_id, topic=settings.jobs_topic, retry_of=retry_of)
            undo.pop_all()
        return end

    def abandon(self) -> None:
        """End the wait, if any, and do not submit the job."""
        self._abandoned.set()
        if self._end is not None:
            self._end.cancel()

    def failure_to_replace(self, event: CompletedEvent | FailedEvent) -> FailedEvent | None:
        """Return the failure of an earlier call that the job's next run may replace.

        It is retryable and older than this submission, or `EXPIRED` before this call's deadline has passed.
        """
        if isinstance(event, CompletedEvent) or self._runs >= MOST_RUNS_OF_A_CALL:
            return None
        expired = event.error.error_code == ErrorCode.EXPIRED and self.seconds_left > 0
        repeated = event.error.is_retryable and event.occurred_at < self._submitted_at
        return event if expired or repeated else None

    def finish(self, event: CompletedEvent | FailedEvent) -> dict[str, Any]:
        """Download the artefacts, and return what `transcribe` returns. Raises `TranscriptionFailed`."""
        if isinstance(event, FailedEvent):
            raise TranscriptionFailed(event)
        self._folder.mkdir(parents=True, exist_ok=True)
        metadata = event.transcription_metadata.model_dump(mode="json")
        artefacts = event.artefacts
        with _storage(self._settings) as client:
            return {
                "words_file": _download(client, artefacts.words, self._folder),
                "paragraphs_file": _download(client, artefacts.paragraphs, self._folder),
                "transcript_json_file": _download(client, artefacts.transcript, self._folder),
                "transcription_metadata": {
                    **metadata,
                    "cost_estimate": metadata["cost_estimate_usd"],
                    "flags": event.flags.model_dump(),
                },
            }


def _job(
    audio: Path, video_id: str, settings: PipelineSettings, started_at: datetime, keyterms: Sequence[str]
) -> TranscriptionJob:
    checksum = hashlib.sha256()
    with audio.open("rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    request = digest = checksum.hexdigest()[:DIGEST_CHARACTERS]
    if keyterms:  # the same audio with other keyterms is another job
        parts = json.dumps([digest, *sorted(map(str, keyterms))])
        request = hashlib.sha256(parts.encode()).hexdigest()[:DIGEST_CHARACTERS]
    document = {
        "job_id": f"{str(video_id)[:MOST_OF_A_VIDEO_ID]}-{request}",
        "video_id": video_id,
        "audio_uri": f"gs://{settings.audio_bucket}/{video_id}/{digest}{audio.suffix}",
        "expires_at": (started_at + timedelta(seconds=settings.timeout_seconds)).isoformat(),
        **({"keyterms": keyterms if isinstance(keyterms, str) else [*keyterms]} if keyterms else {}),
    }
    try:
        return parse_job(encode_job(document))[0]
    except JobRejected as exc:  # the other fields are made from the id, and would repeat its fault
        faults = tuple(fault for fault in exc.violations if fault.startswith(("video_id", "keyterms")))
        raise JobRejected(faults or exc.violations) from None


@contextmanager
def _storage(settings: PipelineSettings) -> "Iterator[Client]":
    try:
        from google.cloud.storage import Client
    except ImportError as exc:
        raise ImportError("google-cloud-storage is missing: pip install 'klipstream-worker[client]'") from exc
    from google.auth.exceptions import DefaultCredentialsError

    try:
        client = Client(project=settings.project_id)
    except DefaultCredentialsError as exc:
        remedy = "run `gcloud auth application-default login`, or set it to a service account's key file"
        raise PipelineMisconfigured(f"GOOGLE_APPLICATION_CREDENTIALS: no credentials found; {remedy}") from exc
    with client:
        yield client


@contextmanager
def _explained(variable: str, resource: str) -> Iterator[None]:
    """Name the variable to correct where Google refuses."""
    from google.api_core.exceptions import Forbidden, NotFound

    try:
        yield
    except NotFound as exc:
        raise PipelineMisconfigured(f"{variable}: there is no {resource}; create it or correct the variable") from exc
    except Forbidden as exc:
        remedy = "grant it (PIPELINE_MEMBER of deploy/provision.sh) or correct the variable"
        raise PipelineMisconfigured(f"{variable}: this account may not use {resource}; {remedy}") from exc


def _download(client: "Client", artefact: StoredArtefact, folder: Path) -> Path:
    """Download the object, and compare its checksum with the event's.

    The generation is not pinned: the pipeline itself uploads copies to the same address.
    """
    import google_crc32c

    uri = GcsUri.parse(artefact.uri)
    path = folder / Path(uri.name).name
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        client.bucket(uri.bucket).blob(uri.name).download_to_filename(partial, timeout=TRANSFER_SECONDS)
        checksum = base64.b64encode(google_crc32c.value(partial.read_bytes()).to_bytes(4, "big")).decode()
        if checksum != artefact.crc32c:
            raise ArtefactChanged(
                f"{artefact.uri} was overwritten with other content: its CRC32C is {checksum}, the worker wrote "
                f"{artefact.crc32c}; delete the object and call again to have it written anew"
            )
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# The one state of the module: calls share a reader without passing it around.
_READERS: dict[tuple[object, ...], EventReader] = {}
_READERS_LOCK = threading.Lock()


def _reader_of(settings: PipelineSettings) -> EventReader:
    """Return the reader of the settings' subscription; a forked process gets readers of its own."""
    names = (os.getpid(), settings.project_id, settings.subscription, settings.completion_topic)
    with _READERS_LOCK:
        if names not in _READERS:
            stale_seconds = max(settings.timeout_seconds, settings.usual_timeout_seconds)
            _READERS[names] = EventReader(lambda: _subscription(settings), stale_seconds=stale_seconds)
        return _READERS[names]


@contextmanager
def _subscription(settings: PipelineSettings) -> Iterator[EventSubscription]:
    from google.api_core.exceptions import Forbidden

    project, name, topic = settings.project_id, settings.subscription, settings.completion_topic
    with ExitStack() as stack:
        subscriber = stack.enter_context(subscriber_client(None))
        if name is not None:
            stack.enter_context(_explained("PIPELINE_SUBSCRIPTION", f"subscription {name!r} in project {project!r}"))
        else:
            with _explained("COMPLETION_TOPIC", f"topic {topic!r} in project {project!r}"):
                try:
                    name = stack.enter_context(own_subscription(project_id=project, topic=topic))
                except Forbidden as exc:
                    raise PipelineMisconfigured(
                        "PIPELINE_SUBSCRIPTION is not set, and this account may not make a subscription: set it to the "
                        "one of deploy/provision.sh, transcription-completions-pipeline"
                    ) from exc
        path = f"projects/{project}/subscriptions/{name}"
        yield EventSubscription(subscriber, path, exclusive=settings.subscription is None)
