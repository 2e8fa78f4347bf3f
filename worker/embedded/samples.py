"""The audio and the model that come with the package: for the demo and for tests.

Synthetic speech of a small grammar, by voices that the model was not trained on; examples/tiny_model makes all of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One utterance between two samples of the file, counted at 16 kHz."""

    text: str
    speaker: str
    start_sample: int
    end_sample: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One conversation of several minutes, with its text."""

    path: Path
    media_type: str
    seconds: float
    utterances: tuple[Utterance, ...]

    @property
    def text(self) -> str:
        """The whole reference transcript, with case and punctuation."""
        return " ".join(utterance.text for utterance in self.utterances)

    @property
    def speakers(self) -> frozenset[str]:
        """Speakers of the conversation."""
        return frozenset(utterance.speaker for utterance in self.utterances)


def samples() -> tuple[Sample, ...]:
    """Every conversation, by file name: an 8 kHz MP3 as the pipeline makes them, an M4A and an Ogg Opus file."""
    return tuple(_sample(index) for index in sorted(_data().glob("*-voices.json")))


def tiny_model() -> Path:
    """Return the path of a NeMo model of Parakeet's classes, 4 MB, that knows only the grammar of the samples."""
    return _data() / "tiny-parakeet-tdt.nemo"


def _data() -> Path:
    return Path(str(files("worker.embedded"))) / "data"


def _sample(index: Path) -> Sample:
    content = json.loads(index.read_text("utf-8"))
    return Sample(
        path=index.with_name(content["file"]),
        media_type=content["media_type"],
        seconds=content["seconds"],
        utterances=tuple(_utterance(row) for row in content["utterances"]),
    )


def _utterance(row: Mapping[str, Any]) -> Utterance:
    return Utterance(
        text=row["text"], speaker=row["speaker"], start_sample=row["start_sample"], end_sample=row["end_sample"]
    )
