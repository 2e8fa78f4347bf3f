"""Renders the files of a finished job from its timeline: a pure function, byte for byte."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from schemas.artefacts import Artefact
from schemas.speech import Word
from worker.core.transcript import captions, deepgram_json, tables
from worker.core.transcript.merging import EngineRun
from worker.core.transcript.paragraphs import paragraphs_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtefactFile:
    """One file: its name under the output prefix and its bytes."""

    kind: Artefact
    file_name: str
    content_type: str
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """All files of a job."""

    files: tuple[ArtefactFile, ...]
    paragraphs_count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtefactInfo:
    """Facts in the files besides the words. Nothing depends on the run: two runs of one job render the same bytes."""

    video_id: str
    request_id: str
    """Derived from the job id, see `schemas.ids.request_id`."""
    created_at: datetime
    """Creation time of the audio object; timezone-aware."""
    audio_sha256: str
    """Hexadecimal, of the audio as submitted."""
    duration_seconds: float
    model_name: str
    model_version: str
    """Identifies one build of the model, for example by its fingerprint."""
    model_arch: str
    extra_outputs: frozenset[Artefact] = frozenset()
    """`SRT`, `VTT` or both."""
    is_calibrated: bool = False
    """The model's confidences are measured probabilities."""
    engines: tuple[tuple[EngineRun, ...], ...] = ()
    """The engines of the words of each channel, or of the mix."""


def render_artefacts(words: Sequence[Word], info: ArtefactInfo, channels: Sequence[Sequence[Word]] = ()) -> Rendered:
    """Render a timeline (see `merging.merge`) to the three standard files and the extra ones asked for.

    `channels` are the timelines that `words` were merged of: each is an entry of the transcript's `results.channels`.
    """
    paragraphs = paragraphs_of(words)
    apart = [(channel, paragraphs_of(channel)) for channel in channels] or [(words, paragraphs)]
    contents = {
        Artefact.WORDS: tables.words_csv(words),
        Artefact.PARAGRAPHS: tables.paragraphs_csv(paragraphs),
        Artefact.TRANSCRIPT: deepgram_json.transcript_json(apart, _metadata(info), info.engines),
    }
    if Artefact.SRT in info.extra_outputs:
        contents[Artefact.SRT] = captions.srt(words)
    if Artefact.VTT in info.extra_outputs:
        contents[Artefact.VTT] = captions.vtt(words)
    files = tuple(
        ArtefactFile(kind=kind, file_name=kind.file_name(info.video_id), content_type=kind.content_type, data=data)
        for kind, data in contents.items()
    )
    return Rendered(files=files, paragraphs_count=len(paragraphs))


def _metadata(info: ArtefactInfo) -> deepgram_json.ResponseMetadata:
    return deepgram_json.ResponseMetadata(
        request_id=info.request_id,
        sha256=info.audio_sha256,
        created_at=info.created_at,
        duration_seconds=info.duration_seconds,
        model_name=info.model_name,
        model_version=info.model_version,
        model_arch=info.model_arch,
        is_calibrated=info.is_calibrated,
    )
