"""From a transcribed file to durable artefacts under the job's output prefix."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from schemas.codes import Artefact, CaptionFormat, EventType
from schemas.events import Artefacts, CompletedEvent, EventUnreadable, Flags, StoredArtefact, parse_event
from schemas.ids import request_id
from schemas.job import TranscriptionJob
from schemas.speech import Word
from schemas.state import ResultMarker
from schemas.uris import GcsUri
from worker.core.jobs.audio_input import AudioInput
from worker.core.jobs.job_message import LARGE_BYTES, collections_paused
from worker.core.jobs.reporting import JobOutput, KeytermFields
from worker.core.jobs.transcription import Transcribed
from worker.core.tasks import together
from worker.core.transcript.artefacts import ArtefactInfo, render_artefacts
from worker.core.transcript.spelling import keyterms_in, with_sound
from worker.errors import ClaimLost, ObjectNotFound, PreconditionFailed, Undiagnosed
from worker.ports import EngineFacts, ObjectFacts, ObjectRef, ObjectStore, WindowRecogniser
from worker.telemetry.spans import stage

ANALYSIS_WINDOW_SECONDS = 59
"""The pipeline analyses windows of 60 s; speech that ends before this fills none."""

log = structlog.get_logger(__name__)

CAPTIONS = {CaptionFormat.SRT: Artefact.SRT, CaptionFormat.VTT: Artefact.VTT}


@dataclass(frozen=True, kw_only=True)
class Author:
    """Model of the words, for the transcript's metadata."""

    name: str
    version: str
    is_calibrated: bool = False

    @classmethod
    def of(cls, name: str, engine: EngineFacts) -> "Author":
        """Return the model of that name with its version; Deepgram states no version of its models."""
        if name != engine.model_name:
            return cls(name=name, version=name)
        return cls(name=name, version=engine.model_fingerprint, is_calibrated=engine.is_calibrated)


class OutputWriter:
    """Writes artefacts into `writable_buckets` only; `output_bucket` is where a job that names no prefix gets them."""

    def __init__(self, store: ObjectStore, *, output_bucket: str, writable_buckets: frozenset[str]) -> None:
        self._store, self._output_bucket, self._writable = store, output_bucket, writable_buckets

    def bucket_of(self, job: TranscriptionJob) -> str:
        """Return the bucket of the job's artefacts."""
        return job.output_prefix(self._output_bucket).bucket

    def violations(self, job: TranscriptionJob) -> tuple[str, ...]:
        """Empty where the job's output may be written, else what is wrong with it."""
        prefix = job.output_prefix(self._output_bucket)
        if prefix.bucket in self._writable:
            return ()
        allowed = ", ".join(sorted(self._writable))
        return (f"output_uri_prefix: must be in a bucket of OUTPUT_BUCKETS ({allowed}) (got {str(prefix)!r})",)

    async def write(
        self, job: TranscriptionJob, audio: AudioInput, transcribed: Transcribed, author: Author
    ) -> JobOutput:
        """Render every artefact and write them concurrently; all are durable on return.

        Raises `StorageServiceError`, or `ClaimLost` if another writer keeps writing the same names.
        """
        info = _info(job, audio.facts, await audio.sha256, transcribed, author)
        with stage("render"):
            files, paragraphs_count = await asyncio.to_thread(
                render_artefacts, transcribed.words, info, transcribed.channels
            )
        prefix = job.output_prefix(self._output_bucket)
        with stage("upload"):
            async with together() as group:
                puts = {kind: group.create_task(self._put(kind, data, prefix, job)) for kind, data in files.items()}
        written = {kind: put.result() for kind, put in puts.items()}
        return JobOutput(
            artefacts=Artefacts(
                words=written[Artefact.WORDS],
                paragraphs=written[Artefact.PARAGRAPHS],
                transcript=written[Artefact.TRANSCRIPT],
                srt=written.get(Artefact.SRT),
                vtt=written.get(Artefact.VTT),
            ),
            flags=flags_of(transcribed),
            words_count=len(transcribed.words),
            paragraphs_count=paragraphs_count,
        )

    async def missing(self, marker: ResultMarker) -> tuple[str, ...]:
        """Return the URIs of a completed job's artefacts that do not exist any more: one `stat` each, side by side.

        Its events may be published again as long as they exist, in any generation: the pipeline overwrites them itself.
        Empty for a failed job, and for a marker whose event this version cannot read. An artefact that cannot be looked
        at counts as there: a doubt is no reason to do a job again.
        """
        told = (one.data.encode() for one in marker.messages if one.attributes.get("event_type") == EventType.COMPLETED)
        if (data := next(told, None)) is None:
            return ()
        large = len(data) > LARGE_BYTES  # for the job's echo is in it
        uris = await asyncio.to_thread(_uris_in_large, data) if large else _uris_in(data)
        are_there = await asyncio.gather(*map(self._is_there, uris))
        return tuple(uri for uri, is_there in zip(uris, are_there, strict=True) if not is_there)

    async def _is_there(self, uri: str) -> bool:
        address = GcsUri.parse(uri)
        try:
            await self._store.stat(ObjectRef(address.bucket, address.name))
        except ObjectNotFound:
            return False
        except Undiagnosed as exc:
            log.warning("artefact.not_looked_at", uri=uri, reason=str(exc))
        return True

    async def _put(self, kind: Artefact, data: bytes, prefix: GcsUri, job: TranscriptionJob) -> StoredArtefact:
        ref = ObjectRef(prefix.bucket, prefix.name + kind.file_name(job.video_id))
        write = partial(self._store.write, ref, data, content_type=kind.content_type)
        try:
            facts = await write(if_generation=0)
        except PreconditionFailed:  # an earlier run or attempt was here
            try:
                facts = await write(if_generation=(await self._store.stat(ref)).generation)
            except (PreconditionFailed, ObjectNotFound) as exc:
                raise ClaimLost(job.job_id) from exc
        return StoredArtefact(
            uri=facts.ref.uri, generation=facts.generation, crc32c=facts.crc32c, bytes=facts.size_bytes
        )


def _uris_in_large(event: bytes) -> Sequence[str]:
    with collections_paused():
        return _uris_in(event)


def _uris_in(event: bytes) -> Sequence[str]:
    try:
        parsed = parse_event(event)
    except EventUnreadable:
        return ()
    return parsed.artefacts.uris if isinstance(parsed, CompletedEvent) else ()


def _info(
    job: TranscriptionJob, audio: ObjectFacts, audio_sha256: str, transcribed: Transcribed, author: Author
) -> ArtefactInfo:
    return ArtefactInfo(
        request_id=request_id(job.job_id),
        created_at=audio.created_at,
        audio_sha256=audio_sha256,
        duration_seconds=transcribed.duration_seconds,
        model_name=author.name,
        model_version=author.version,
        is_calibrated=author.is_calibrated,
        extra_outputs=frozenset(CAPTIONS[wanted] for wanted in job.outputs),
        engines=transcribed.engines,
    )


def flags_of(transcribed: Transcribed) -> Flags:
    """Return the facts about the audio that explain its transcript."""
    words = transcribed.words
    return Flags(
        no_speech=not words,
        shorter_than_analysis_window=bool(words) and words[-1].end_seconds < ANALYSIS_WINDOW_SECONDS,
        truncated_audio=transcribed.truncated,
        other_tracks=transcribed.other_tracks,
    )


async def keyterm_fields(
    keyterms: tuple[str, ...], transcribed: Transcribed, recogniser: WindowRecogniser
) -> KeytermFields:
    """Look a job's keyterms up in its transcript.

    A term without a letter or digit is unspeakable for every engine; one that the model cannot spell is so where
    Parakeet did a chunk.
    """
    if not keyterms:
        return KeytermFields(keyterms_found=(), keyterms_unspeakable=())
    audible = with_sound(keyterms)
    by_parakeet = any(chunk.engine == "parakeet" for chunk in transcribed.chunks)
    unspelt = recogniser.unspeakable(audible) if by_parakeet else ()
    found = await asyncio.to_thread(_found, keyterms, transcribed.channels or (transcribed.words,))
    return KeytermFields(
        keyterms_found=tuple(term for term in keyterms if term in found),
        keyterms_unspeakable=tuple(term for term in keyterms if term not in audible or term in unspelt),
    )


def _found(keyterms: tuple[str, ...], channels: Sequence[Sequence[Word]]) -> frozenset[str]:
    """Return the terms in the words of any channel: merged words of two speakers may interrupt each other."""
    return frozenset(term for words in channels for term in keyterms_in([word.text for word in words], keyterms))
