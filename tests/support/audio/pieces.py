"""Files made of known pieces: recordings joined end to end, in every way that people join them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.audio.media import MediaKit, babble, lag_samples
from worker.ports import SAMPLE_RATE_HZ, Pcm


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of speech-like sound, and how it is encoded."""

    seconds: float
    rate: int
    channels: int
    seed: int

    @property
    def samples(self) -> Pcm:
        return babble(self.seconds, self.seed)

    @property
    def options(self) -> tuple[str, ...]:
        return ("-ar", str(self.rate), "-ac", str(self.channels))


@dataclass(frozen=True, kw_only=True)
class Joint:
    """A way to join pieces: each is encoded as `suffix` by `codec`, their bytes follow each other, and then they may be
    copied into another container."""

    suffix: str
    codec: tuple[str, ...]
    rates: tuple[int, ...]
    channels: tuple[int, ...] = (1, 2)
    copied_to: str | None = None

    def __str__(self) -> str:
        return "-".join((self.suffix.strip("."), self.codec[-1] if self.codec else "", self.copied_to or "")).strip("-")

    def write(self, media: MediaKit, pieces: Sequence[Piece]) -> Path:
        encoded = [
            media.encode(f"piece{self.suffix}", piece.samples, *piece.options, *self.codec).read_bytes()
            for piece in pieces
        ]
        name = "-".join(f"{piece.seed}.{piece.rate}.{piece.channels}" for piece in pieces)
        joined = media.write(f"joined-{name}{self.suffix}", b"".join(encoded))
        if self.copied_to is None:
            return joined
        copy = joined.with_suffix(self.copied_to)
        media.run("-i", str(joined), "-map", "0:a", "-c", "copy", str(copy))
        return copy


MP3 = ("-c:a", "libmp3lame", "-b:a", "64k")
JOINTS = (
    Joint(suffix=".mp3", codec=MP3, rates=(8_000, 16_000, 22_050, 44_100, 48_000)),
    Joint(suffix=".mp2", codec=("-c:a", "mp2"), rates=(22_050, 32_000, 48_000)),
    Joint(suffix=".aac", codec=("-c:a", "aac"), rates=(16_000, 22_050, 44_100, 48_000), channels=(1, 2, 6)),
    Joint(suffix=".ac3", codec=("-c:a", "ac3"), rates=(32_000, 44_100, 48_000), channels=(1, 2, 6)),
    Joint(suffix=".ogg", codec=("-c:a", "libvorbis"), rates=(16_000, 32_000, 44_100, 48_000)),
    Joint(suffix=".opus", codec=("-c:a", "libopus"), rates=(48_000,)),
    Joint(suffix=".oga", codec=("-c:a", "flac"), rates=(16_000, 44_100, 48_000)),
    Joint(suffix=".flac", codec=("-c:a", "flac"), rates=(16_000, 44_100, 48_000)),
    Joint(suffix=".ts", codec=("-c:a", "aac"), rates=(22_050, 44_100, 48_000)),
    Joint(suffix=".ts", codec=("-c:a", "mp2"), rates=(32_000, 48_000)),
    Joint(suffix=".ac3", codec=("-c:a", "ac3"), rates=(48_000,), channels=(1, 2, 6), copied_to=".mkv"),
    Joint(suffix=".ac3", codec=("-c:a", "ac3"), rates=(32_000, 48_000), channels=(2, 6), copied_to=".ts"),
    Joint(suffix=".mp3", codec=MP3, rates=(44_100,), copied_to=".mkv"),
    Joint(suffix=".mp3", codec=MP3, rates=(44_100,), copied_to=".mp4"),
    Joint(suffix=".aac", codec=("-c:a", "aac"), rates=(44_100, 48_000), copied_to=".ts"),
)


def starts(pieces: Sequence[Piece], gap_seconds: float = 0.0) -> list[float]:
    """Return the start of each piece, with the given gaps between them."""
    return [0.0, *itertools.accumulate(piece.seconds + gap_seconds for piece in pieces[:-1])]


def lateness(heard: Pcm, truth: Pcm, at_seconds: float, *, around_seconds: float = 1.0) -> float:
    """By how many seconds `truth` comes later in `heard` than at that time; it is looked for so far around it."""
    around = round(around_seconds * SAMPLE_RATE_HZ)
    first = max(0, round(at_seconds * SAMPLE_RATE_HZ) - around)
    stretch = heard[first : first + len(truth) + 2 * around]
    assert len(stretch) > len(truth) // 2, f"nothing is left at {at_seconds} s"
    return (first + lag_samples(stretch, truth)) / SAMPLE_RATE_HZ - at_seconds


def likeness(heard: Pcm, truth: Pcm, at_seconds: float) -> float:
    """Return the similarity there, from 0 to 1, regardless of loudness."""
    first = round(at_seconds * SAMPLE_RATE_HZ)
    there = heard[first : first + len(truth)].astype(float)
    known = truth[: len(there)].astype(float)
    return float(abs(np.dot(there, known)) / (np.linalg.norm(there) * np.linalg.norm(known) + 1e-9))
