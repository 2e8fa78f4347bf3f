"""Names and locations of a job's artefacts (contract, section 2)."""

from enum import Enum

from schemas.job import TranscriptionJob
from schemas.uris import GcsUri


class Artefact(str, Enum):
    """A file of a completed job; the value is the part of its name after `audio_{video_id}`."""

    WORDS = "_words.csv"
    PARAGRAPHS = "_paragraphs.csv"
    TRANSCRIPT = "_transcript.json"
    SRT = ".srt"
    VTT = ".vtt"

    def file_name(self, video_id: str) -> str:
        """Return the artefact's name within the output prefix."""
        return f"audio_{video_id}{self.value}"

    def uri(self, prefix: GcsUri, video_id: str) -> GcsUri:
        """Return the artefact's address below an output prefix."""
        return prefix.child(self.file_name(video_id))

    @property
    def content_type(self) -> str:
        """Media type of the stored object."""
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    Artefact.WORDS: "text/csv; charset=utf-8",
    Artefact.PARAGRAPHS: "text/csv; charset=utf-8",
    Artefact.TRANSCRIPT: "application/json",
    Artefact.SRT: "application/x-subrip; charset=utf-8",
    Artefact.VTT: "text/vtt; charset=utf-8",
}


def output_prefix(job: TranscriptionJob, output_bucket: str) -> GcsUri:
    """Return the folder of a job's artefacts: the job's own, or `gs://{output_bucket}/{video_id}/`.

    The caller must check that the worker may write to that bucket.
    """
    return job.output_prefix or GcsUri(output_bucket, f"{job.video_id}/")
