"""Everything that the buckets know of one job: the page and the `job` command read it here."""

import asyncio
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.events import CompletedEvent
from schemas.job import Id
from schemas.state import Checkpoint, ClaimRecord, ResultMarker
from schemas.uris import GcsUri
from worker.adapters.web.views import Transcript
from worker.app.page.results import JobResult, StateBucket
from worker.app.page.transcript import read_transcript
from worker.core.costs.report import events_in
from worker.core.jobs.state.files import StateFiles
from worker.errors import ObjectNotFound
from worker.ports import ObjectFacts, ObjectRef, ObjectStore

MOST_CHECKPOINTS = 500
SHORTEST_BEGINNING = 4
"""Ids that begin with fewer characters are too many to list."""
CUT_AT_ONCE = 2
MOST_CUTS = 4
MOST_NEAR = 8


@dataclass(frozen=True, kw_only=True)
class JobReader:
    """Reads job state and artefacts; every method may raise `StorageServiceError`.

    `objects` is the folder that holds the objects of the development servers: only there transcripts and audio are
    read whole.
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
        """Return at most eight ids of the bucket that begin as this one does; without any, as most of this one does."""
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
