"""Everything that the page and the `job` command read in the buckets: ended jobs, and all traces of one job."""

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from schemas.dead_letter import DeadLetter, DeadLetterUnreadable, parse_dead_letter
from schemas.events import CompletedEvent, CostEvent, Event, FailedEvent
from schemas.job import Id
from schemas.state import Checkpoint, ClaimRecord, ResultMarker
from schemas.uris import GcsUri
from worker.adapters.gcs import open_object_store
from worker.adapters.web.views import SpokenParagraph, SpokenWord, Transcript
from worker.core.costs.report import events_in
from worker.core.jobs.state.files import StateFiles
from worker.errors import ObjectNotFound, WorkerError
from worker.ports import ObjectFacts, ObjectRef, ObjectStore

PREFIX = "results/"
KEPT_DAYS = 14
MOST_RESULTS = 5_000
READS_AT_ONCE = 6
SHARE_OF_TIME = 20
"""A look that takes a second is followed by twenty without one: a full bucket is not listed without pause."""
LEAST_SECONDS = 1.0
PATIENCE_SECONDS = 2.0
"""A page does not wait longer for a look."""
MOST_CHECKPOINTS = 500
SHORTEST_BEGINNING = 4
"""Ids that begin with fewer characters are too many to list."""
CUT_AT_ONCE = 2
MOST_CUTS = 4
MOST_NEAR = 8


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The end of one job's last run."""

    marker: ResultMarker
    events: Sequence[Event]

    @property
    def ended(self) -> CompletedEvent | FailedEvent | None:
        """The terminal event; None where this version cannot read it."""
        found = [event for event in self.events if isinstance(event, CompletedEvent | FailedEvent)]
        return found[-1] if found else None

    @property
    def cost(self) -> CostEvent | None:
        """The cost event of the same run."""
        found = [event for event in self.events if isinstance(event, CostEvent) and event.run == self.marker.run]
        return found[-1] if found else None

    @property
    def dead_letter(self) -> DeadLetter | None:
        """The failed run's letter."""
        for message in self.marker.messages:
            if message.topic == "dead_letter":
                with suppress(DeadLetterUnreadable):
                    return parse_dead_letter(message.data.encode())
        return None


@dataclass(kw_only=True)
class Results:
    """The results of the last two weeks, at most 5,000. Belongs to one event loop."""

    store: ObjectStore
    bucket: str
    problem: str = "The state bucket is being read."
    """The reason why the results may be incomplete; empty after a look that succeeded."""
    _found: dict[str, tuple[int, JobResult | None]] = field(default_factory=dict)
    _next_at: float = 0.0
    _looking: asyncio.Task[None] | None = None

    async def newest(self) -> Sequence[JobResult]:
        """Return the results, the newest first; those of the last look where the bucket takes long to list."""
        if self._looking is None and time.monotonic() >= self._next_at:
            self._looking = asyncio.create_task(self._timed_look(), name="results")
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=PATIENCE_SECONDS)
        found = [result for _, result in self._found.values() if result is not None]
        return sorted(found, key=lambda result: result.marker.concluded_at, reverse=True)

    async def _timed_look(self) -> None:
        began = time.monotonic()
        try:
            await self._look()
        finally:
            took = time.monotonic() - began
            self._next_at, self._looking = time.monotonic() + max(LEAST_SECONDS, SHARE_OF_TIME * took), None

    async def _look(self) -> None:
        since = datetime.now(UTC) - timedelta(days=KEPT_DAYS)
        try:
            listed = await self.store.list(self.bucket, PREFIX)
            recent = sorted(listed, key=lambda facts: facts.created_at)[-MOST_RESULTS:]
            recent = [facts for facts in recent if facts.created_at >= since]
            await self._read(recent)
            self.problem = ""
        except WorkerError as exc:
            self.problem = f"The state bucket cannot be read: {exc}"

    async def _read(self, recent: Sequence[ObjectFacts]) -> None:
        known, slots = self._found, asyncio.Semaphore(READS_AT_ONCE)

        async def read(facts: ObjectFacts) -> tuple[int, JobResult | None]:
            async with slots:
                try:
                    data, stored = await self.store.read(facts.ref)
                except ObjectNotFound:  # deleted since it was listed
                    return facts.generation, None
            return stored.generation, parsed(data)

        names = {facts.ref.name: facts for facts in recent}
        fresh = [facts for name, facts in names.items() if name not in known or known[name][0] != facts.generation]
        read_now = await asyncio.gather(*(read(facts) for facts in fresh))
        kept: Mapping[str, tuple[int, JobResult | None]] = {name: known[name] for name in names if name in known}
        self._found = {**kept, **{facts.ref.name: result for facts, result in zip(fresh, read_now, strict=True)}}


def parsed(data: bytes) -> JobResult | None:
    """Return the marker with its events; None for content that is no marker."""
    try:
        marker = ResultMarker.model_validate_json(data)
    except ValidationError:
        return None
    return JobResult(marker=marker, events=events_in(marker))


@dataclass(kw_only=True)
class StateBucket:
    """The state bucket, opened when it is needed first. Belongs to one event loop."""

    project: str
    name: str
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _results: Results | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Close on leaving what was opened in between."""
        async with self._stack:
            yield

    async def results(self) -> Results:
        """Return the results. Raises `StorageServiceError` where no client can be made."""
        async with self._opening:
            if self._results is None:
                store = await self._stack.enter_async_context(open_object_store(project=self.project))
                self._results = Results(store=store.impatient(), bucket=self.name)
            return self._results


@dataclass(frozen=True, kw_only=True)
class JobReader:
    """Reads job state and artefacts; every method may raise `StorageServiceError`.

    `objects` is the folder of the development servers' objects: only there transcripts and audio are read whole.
    """

    bucket: StateBucket
    objects: Path | None = None

    async def read(self, job_id: str) -> Mapping[str, Any]:
        """Return the fields of `JobTraces` that the state bucket knows."""
        files = await self._files()
        result, claim = await asyncio.gather(self._result(job_id), files.load(files.claim(job_id), ClaimRecord))
        found: dict[str, Any] = {"result": result, "claim": claim.content}
        if result is None or result.marker.outcome == "failed":
            found["checkpoints"] = await _checkpoints(files, await files.checkpoints(job_id))
        if result is not None and self.objects is not None and isinstance(result.ended, CompletedEvent):
            found["transcript"] = await self._transcript(files.store, job_id, result.ended)
        return found

    async def near(self, job_id: str) -> Sequence[str]:
        """Return at most eight ids that begin as this one does; if there are none, as most of this one does."""
        files = await self._files()
        for cut in range(MOST_CUTS + 1):
            beginning = job_id[: len(job_id) - cut * CUT_AT_ONCE]
            if len(beginning) < SHORTEST_BEGINNING:
                break
            refs = (files.result(beginning), files.claim(beginning))
            listed = await asyncio.gather(*(files.store.list(ref.bucket, ref.name[: -len(".json")]) for ref in refs))
            if names := {Path(facts.ref.name).stem for found in listed for facts in found}:
                return sorted(names)[:MOST_NEAR]
        return ()

    async def beginning(self, ended: CompletedEvent, most_characters: int) -> str:
        """Return the first words of the transcript. Raises `ObjectNotFound` and `ObjectForbidden`, too."""
        data = await _artefact((await self._files()).store, ended.artefacts.paragraphs.uri)
        rows = csv.DictReader(io.StringIO(data.decode("utf-8", "replace")))
        text = ""
        for row in rows:
            text = f"{text} {row.get('text') or ''}".strip()
            if len(text) > most_characters:
                return text[:most_characters].rsplit(" ", 1)[0] + " ..."
        return text

    async def audio_file(self, job_id: str) -> Path | None:
        """Return the file of the development server; None elsewhere."""
        result = await self._result(job_id)
        return self._audio_file(result.ended) if result and isinstance(result.ended, CompletedEvent) else None

    async def _result(self, job_id: str) -> JobResult | None:
        files = await self._files()
        marker = (await files.load(files.result(job_id), ResultMarker)).content
        return JobResult(marker=marker, events=events_in(marker)) if marker is not None else None

    async def _files(self) -> StateFiles:
        results = await self.bucket.results()
        return StateFiles(store=results.store, bucket=results.bucket)

    async def _transcript(self, store: ObjectStore, job_id: str, ended: CompletedEvent) -> Transcript | None:
        try:
            document = json.loads(await _artefact(store, ended.artefacts.transcript.uri))
        except (ObjectNotFound, ValueError):  # deleted or damaged since
            return None
        has_audio = self._audio_file(ended) is not None
        return read_transcript(document, audio_src=f"/jobs/{job_id}/audio" if has_audio else "")

    def _audio_file(self, ended: CompletedEvent) -> Path | None:
        uri = (ended.job.metadata or {}).get("audio_uri")
        if self.objects is None or not isinstance(uri, str) or not uri.startswith("gs://"):
            return None
        path = (self.objects / uri.removeprefix("gs://")).resolve()
        return path if path.is_relative_to(self.objects.resolve()) and path.is_file() else None


def is_job_id(text: str) -> bool:
    """Return True for a job id; anything else must not become a part of an object's name."""
    try:
        TypeAdapter(Id).validate_python(text)
    except ValidationError:
        return False
    return True


async def _artefact(store: ObjectStore, address: str) -> bytes:
    uri = GcsUri.parse(address)
    data, _ = await store.read(ObjectRef(uri.bucket, uri.name))
    return data


async def _checkpoints(files: StateFiles, standing: Sequence[ObjectFacts]) -> Sequence[tuple[Checkpoint, datetime]]:
    listed = sorted(standing, key=lambda facts: facts.ref.name)[:MOST_CHECKPOINTS]
    found = await asyncio.gather(*(files.load(facts.ref, Checkpoint) for facts in listed))
    return [
        (stored.content.without_windows(), facts.created_at)
        for facts, stored in zip(listed, found, strict=True)
        if stored.content is not None
    ]


class _Word(BaseModel):
    punctuated_word: str
    start: float
    confidence: float


class _Paragraph(BaseModel):
    start: float
    num_words: int


class _Paragraphs(BaseModel):
    paragraphs: tuple[_Paragraph, ...]


class _Alternative(BaseModel):
    words: tuple[_Word, ...]
    paragraphs: _Paragraphs


class _Channel(BaseModel):
    alternatives: tuple[_Alternative, ...]


class _Results(BaseModel):
    channels: tuple[_Channel, ...]


class _Metadata(BaseModel):
    duration: float


class _Response(BaseModel):
    metadata: _Metadata
    results: _Results


def read_transcript(document: Any, *, audio_src: str = "") -> Transcript | None:
    """Return the paragraphs of all channels by their start; None for a document of another shape."""
    try:
        response = _Response.model_validate(document)
        alternatives = [channel.alternatives[0] for channel in response.results.channels]
    except (ValidationError, IndexError):
        return None
    if not alternatives:
        return None
    numbers = range(1, len(alternatives) + 1) if len(alternatives) > 1 else [None]
    apart = [_paragraphs(one, number) for one, number in zip(alternatives, numbers, strict=True)]
    paragraphs = sorted((paragraph for channel in apart for paragraph in channel), key=lambda one: one.start_seconds)
    return Transcript(paragraphs=paragraphs, duration_seconds=response.metadata.duration, audio_src=audio_src)


def _paragraphs(alternative: _Alternative, channel: int | None) -> Iterator[SpokenParagraph]:
    words = iter(alternative.words)
    for paragraph in alternative.paragraphs.paragraphs:
        yield SpokenParagraph(
            start_seconds=paragraph.start,
            words=[
                SpokenWord(text=word.punctuated_word, start_seconds=word.start, confidence=word.confidence)
                for word in islice(words, paragraph.num_words)
            ],
            channel=channel,
        )
