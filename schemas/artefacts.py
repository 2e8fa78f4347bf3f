"""Where a job's artefacts lie (contract, section 2)."""

from enum import Enum

from schemas.job import TranscriptionJob
from schemas.uris import GcsUri


class Artefact(str, Enum):
    """A file that a completed job leaves; the value is what follows `audio_{video_id}` in its name."""

    WORDS = "_words.csv"
    PARAGRAPHS = "_paragraphs.csv"
    TRANSCRIPT = "_transcript.json"
    SRT = ".srt"
    VTT = ".vtt"

    def file_name(self, video_id: str) -> str:
        """The artefact's name within the output prefix."""
        return f"audio_{video_id}{self.value}"

    def uri(self, prefix: GcsUri, video_id: str) -> GcsUri:
        """The artefact's address below an output prefix."""
        return prefix.child(self.file_name(video_id))

    @property
    def content_type(self) -> str:
        """The media type to store it with."""
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    Artefact.WORDS: "text/csv; charset=utf-8",
    Artefact.PARAGRAPHS: "text/csv; charset=utf-8",
    Artefact.TRANSCRIPT: "application/json",
    Artefact.SRT: "application/x-subrip; charset=utf-8",
    Artefact.VTT: "text/vtt; charset=utf-8",
}


def output_prefix(job: TranscriptionJob, output_bucket: str) -> GcsUri:
    """The folder a job's artefacts go to: its own, or `gs://{output_bucket}/{video_id}/`.

    Whether the worker may write to that bucket is the caller's to check.
    """
    return job.output_prefix or GcsUri(output_bucket, f"{job.video_id}/")
