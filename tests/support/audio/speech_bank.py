"""Long speech files with known words, built from the bank of single utterances in tests/data/speech."""

import functools
import json
import random
import subprocess
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from worker.ports import SAMPLE_RATE_HZ, Pcm

BANK = Path(__file__).parents[2] / "data" / "speech"
PIPELINE_MP3 = ("-ar", "8000", "-ac", "1", "-c:a", "libmp3lame", "-b:a", "32k")

LONG_SILENCES = 0.02  # of all pauses
NOISE_LEVELS = (0.0, 0.0, 0.0005, 0.002)  # root mean square of full scale: none, none, -66 dB, -54 dB


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """`samples[start_sample:end_sample]` of its file; `word_starts` in seconds from the start of that file.

    `word_starts` has one entry a word of `text`, or none if the synthesiser gives no times.
    """

    text: str
    speaker: str
    start_sample: int
    end_sample: int
    word_starts: tuple[float, ...]

    def moved(self, start_sample: int) -> "Utterance":
        """The same utterance at another place."""
        shift = (start_sample - self.start_sample) / SAMPLE_RATE_HZ
        return Utterance(
            text=self.text,
            speaker=self.speaker,
            start_sample=start_sample,
            end_sample=start_sample + self.end_sample - self.start_sample,
            word_starts=tuple(start + shift for start in self.word_starts),
        )


@dataclass(frozen=True)
class Clip:
    """One utterance of the bank and its audio."""

    utterance: Utterance
    samples: Pcm


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The sentences of a built file and their positions."""

    utterances: tuple[Utterance, ...]
    seconds: float

    @property
    def text(self) -> str:
        """The whole text, with case and punctuation."""
        return " ".join(utterance.text for utterance in self.utterances)


@functools.cache
def bank() -> tuple[Clip, ...]:
    """Every utterance: 28 by each of eight voices, none of them met by the model, 13 minutes in all; decoded once."""
    index = json.loads((BANK / "index.json").read_text("utf-8"))
    audio = {speaker: decode(BANK / file) for speaker, file in index["files"].items()}
    utterances = [_utterance(row) for row in index["utterances"]]
    return tuple(Clip(one, audio[one.speaker][one.start_sample : one.end_sample]) for one in utterances)


def build_long_file(seed: int, seconds: float, path: Path) -> Reference:
    """Write a 16-bit WAV of about `seconds`, a pure function of the seed.

    Scenes of 2-5 minutes, in each two or three voices at their own levels over silence or light noise, taking turns of
    one to four utterances; pauses of 0.3-2.5 s, now and then 10-40 s of silence. A voice repeats itself only after all
    of its utterances.
    """
    rng = random.Random(seed)
    noise = np.random.default_rng(seed)
    pieces, utterances, length = [], [], 0
    for line in _programme(bank(), rng):
        if length >= seconds * SAMPLE_RATE_HZ:
            break
        piece = np.concatenate((np.zeros(line.pause_samples, np.float32), line.clip.samples * np.float32(line.gain)))
        piece += np.float32(line.noise * 32767) * noise.standard_normal(len(piece), dtype=np.float32)
        pieces.append(np.clip(piece, -32768, 32767).astype(np.int16))
        utterances.append(line.clip.utterance.moved(length + line.pause_samples))
        length += len(piece)
    write_wave(path, np.concatenate(pieces))
    return Reference(utterances=tuple(utterances), seconds=length / SAMPLE_RATE_HZ)


def decode(path: Path) -> Pcm:
    """The whole file at 16 kHz mono, by ffmpeg and none of our own code."""
    output = _ffmpeg("-i", str(path), "-f", "s16le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1", "-")
    return np.frombuffer(output, dtype=np.int16)


def transcode(source: Path, destination: Path, options: Sequence[str] = PIPELINE_MP3) -> None:
    """Write `source` again in another format."""
    _ffmpeg("-i", str(source), *options, str(destination))


def _ffmpeg(*arguments: str) -> bytes:
    quiet = ("-hide_banner", "-loglevel", "error", "-nostdin", "-y")
    return subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *quiet, *arguments], check=True, capture_output=True).stdout


def _utterance(row: Mapping[str, Any]) -> Utterance:
    starts = tuple(start for _, start in row["word_starts"])
    complete = len(starts) == len(row["text"].split())
    return Utterance(
        text=row["text"],
        speaker=row["speaker"],
        start_sample=row["start_sample"],
        end_sample=row["end_sample"],
        word_starts=starts if complete else (),
    )


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One clip in the programme, with the pause before it, and the noise behind both."""

    clip: Clip
    pause_samples: int
    gain: float
    noise: float


def _programme(clips: Sequence[Clip], rng: random.Random) -> Iterator[_Line]:
    """Scenes without end."""
    speakers = sorted({clip.utterance.speaker for clip in clips})
    decks = {speaker: _deck([clip for clip in clips if clip.utterance.speaker == speaker], rng) for speaker in speakers}
    while True:
        gains = {speaker: rng.uniform(0.4, 1.0) for speaker in rng.sample(speakers, rng.choice((2, 3)))}
        noise, seconds_left = rng.choice(NOISE_LEVELS), rng.uniform(120, 300)
        while seconds_left > 0:
            speaker = rng.choice(list(gains))
            for clip in islice(decks[speaker], rng.randint(1, 4)):
                pause = round(_pause_seconds(rng) * SAMPLE_RATE_HZ)
                yield _Line(clip=clip, pause_samples=pause, gain=gains[speaker], noise=noise)
                seconds_left -= (pause + len(clip.samples)) / SAMPLE_RATE_HZ


def _deck(clips: Sequence[Clip], rng: random.Random) -> Iterator[Clip]:
    """All of them in random order, then again in another."""
    while True:
        yield from rng.sample(clips, len(clips))


def _pause_seconds(rng: random.Random) -> float:
    return rng.uniform(10, 40) if rng.random() < LONG_SILENCES else rng.uniform(0.3, 2.5)


def write_wave(path: Path, samples: Pcm) -> None:
    """Write a 16-bit mono WAV at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(samples.itemsize)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.tobytes())
