"""Rows as jobs: derived ids, validation by the worker's own parser."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.ids import job_identity, request_fingerprint
from schemas.job import JobRejected, parse_job
from worker.client import attributes_of
from worker.commands.audio_file import video_id_of
from worker.commands.bulk.rows import BadRow, Row

ID_CHARACTERS, DIGEST_CHARACTERS = 100, 12
PLACEHOLDER = "id"
"""Replaced by the id that is derived from the parsed job."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkJob:
    """A job ready to be published."""

    number: int
    name: str
    job_id: str
    video_id: str
    request: str
    """The request's fingerprint: two jobs of one id must not differ in it."""
    identity: str
    """The job's identity in its events."""
    data: bytes
    attributes: Mapping[str, str]
    ignored: frozenset[str]
    """Names of fields that the worker ignores."""
    names_its_video: bool
    """The row has a video_id; otherwise it is derived from the name of the audio."""


def job_of(row: Row, defaults: Mapping[str, Any]) -> "BulkJob | BadRow":
    """Return the row's job; `defaults` are fields for rows that lack them.

    A row without a `job_id` has one that depends on its request alone, so that the same row is the same job whenever
    and from wherever it is submitted.
    """
    fields = {**defaults, **{name: value for name, value in row.fields.items() if value is not None}}
    audio_uri = fields.get("audio_uri")
    if isinstance(audio_uri, str):
        fields.setdefault("video_id", row.video_id or video_id_of(audio_uri))
        fields.setdefault("metadata", {"audio_uri": audio_uri})
    else:
        fields.setdefault("video_id", PLACEHOLDER)
    try:
        job, ignored = parse_job(json.dumps({"job_id": PLACEHOLDER, **fields}).encode())
    except JobRejected as exc:
        return BadRow(number=row.number, faults=exc.violations, name=row.name)
    request = request_fingerprint(job)
    job_id = str(fields.get("job_id") or f"{job.video_id[:ID_CHARACTERS]}-{request[:DIGEST_CHARACTERS]}")
    fields["job_id"] = job_id
    return BulkJob(
        number=row.number,
        name=row.name,
        job_id=job_id,
        video_id=job.video_id,
        request=request,
        identity=job_identity(job.model_copy(update={"job_id": job_id})),
        data=json.dumps(fields).encode(),
        attributes=attributes_of(job),
        ignored=ignored,
        names_its_video=row.fields.get("video_id") is not None,
    )
