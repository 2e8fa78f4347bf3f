"""Endless training batches: clips joined, pitched, padded, drowned a little in noise, and sorted by length."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from corpus import Recording
from model_config import FRAME_SECONDS
from narrow_band import narrow_band_file
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor
from stages import Stage
from tokenizer import WORD_START
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from voices import SAMPLE_RATE_HZ, Samples

BATCH_SECONDS = 64.0
SHORT_CLIP_SECONDS = 3.3
LONGEST_EXAMPLE_SECONDS = 32.0
# Shares of the examples: sped up or slowed down, over noise, over another voice; and of the silences the digital ones.
OTHER_SPEED, OVER_NOISE, OVER_VOICE, DIGITAL_SILENCE = 0.5, 0.52, 0.13, 0.3
_LONGEST_WORD_SECONDS = 1.6
_ANYWHERE = (-1, 10**6)


@dataclass(frozen=True, kw_only=True)
class SpokenClip:
    """One recording and its audio, as it is and through the pipeline's MP3."""

    recording: Recording
    wide: NDArray[np.int16]
    narrow: NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded tensors: `windows` are the frames (first, last) on which each token may be emitted."""

    audio: Tensor
    audio_lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    windows: Tensor


@dataclass(frozen=True, kw_only=True)
class _Example:
    audio: Samples
    tokens: list[int]
    windows: list[tuple[int, int]]


def load(corpus: Path) -> list[SpokenClip]:
    """Every clip of a corpus; `narrow` is the same as `wide` where the twin was not made."""
    wide = np.load(corpus.with_suffix(".npy"))
    narrow = np.load(narrow_band_file(corpus)) if narrow_band_file(corpus).exists() else wide
    recordings = [Recording(**json.loads(line)) for line in corpus.with_suffix(".jsonl").read_text().splitlines()]
    spans = [(recording, slice(recording.offset, recording.offset + recording.length)) for recording in recordings]
    return [SpokenClip(recording=recording, wide=wide[span], narrow=narrow[span]) for recording, span in spans]


class Batches:
    """Batches for one stage, a function of the seed; `clean` ones are short single clips as they were recorded."""

    def __init__(self, clips: Sequence[SpokenClip], pieces: SentencePieceProcessor, stage: Stage, seed: int) -> None:
        self._clips, self._pieces, self._stage = clips, pieces, stage
        self._rng = np.random.default_rng(seed)
        white = self._rng.standard_normal(60 * SAMPLE_RATE_HZ).astype(np.float32)
        brown = np.cumsum(white)
        brown -= np.convolve(brown, np.ones(400) / 400, "same")
        self._noises: tuple[Samples, Samples] = (white, brown / brown.std())

    def clean(self) -> Iterator[Batch]:
        """Without end."""
        short = [n for n, clip in enumerate(self._clips) if len(clip.wide) < SHORT_CLIP_SECONDS * SAMPLE_RATE_HZ]
        while True:
            for batch in self._sorted([[n] for n in self._rng.permutation(short)]):
                yield _padded([self._joined(group) for group in batch])

    def full(self) -> Iterator[Batch]:
        """Without end, with everything the stage asks for."""
        while True:
            for batch in self._sorted(list(self._groups())):
                yield _padded([self._example(group) for group in batch])

    def _groups(self) -> Iterator[list[int]]:
        order = [int(n) for n in self._rng.permutation(len(self._clips))]
        while order:
            several = self._rng.random() < self._stage.joined
            count = int(self._rng.integers(2, self._stage.most_joined + 1)) if several else 1
            group, order = order[:count], order[count:]
            while self._seconds(group) > LONGEST_EXAMPLE_SECONDS and len(group) > 1:
                order.append(group.pop())
            yield group

    def _sorted(self, groups: list[list[int]]) -> list[list[list[int]]]:
        """Yield groups of similar length, as many clips as fit into a batch, in random order."""
        groups.sort(key=lambda group: self._seconds(group) * self._rng.uniform(0.9, 1.1))
        batches: list[list[list[int]]] = [[]]
        for group in groups:
            longest = max(map(self._seconds, [*batches[-1], group]))
            if batches[-1] and longest * (len(batches[-1]) + 1) > BATCH_SECONDS:
                batches.append([])
            batches[-1].append(group)
        return [batches[n] for n in self._rng.permutation(len(batches))]

    def _seconds(self, group: Sequence[int]) -> float:
        pauses = (len(group) - 1) * self._stage.longest_pause_seconds / 2
        return sum(len(self._clips[n].wide) for n in group) / SAMPLE_RATE_HZ + pauses

    def _example(self, group: Sequence[int]) -> _Example:
        if self._rng.random() < self._stage.silent:
            return _Example(audio=self._silence(), tokens=[], windows=[])
        example = self._joined(group)
        return _Example(audio=self._soiled(example.audio), tokens=example.tokens, windows=example.windows)

    def _joined(self, group: Sequence[int]) -> _Example:
        """Join the clips of a group with pauses between them, all at the same bandwidth."""
        narrow = self._rng.random() < self._stage.narrow_band
        parts: list[Samples] = []
        tokens: list[int] = []
        windows: list[tuple[int, int]] = []
        for n in group:
            if parts:
                parts.append(_zeros(self._rng.uniform(0, self._stage.longest_pause_seconds)))
            clip, seconds = self._clips[n], sum(map(len, parts)) / SAMPLE_RATE_HZ
            audio, speed, lead = self._varied(clip.narrow if narrow else clip.wide)
            ids = self._pieces.encode(clip.recording.text)
            parts.append(audio)
            tokens += ids
            windows += self._windows(ids, clip.recording, seconds + lead, speed)
        return _Example(audio=np.concatenate(parts), tokens=tokens, windows=windows)

    def _varied(self, samples: NDArray[np.int16]) -> tuple[Samples, float, float]:
        """Return a clip at some speed and level, the speed, and the seconds of silence before it."""
        rng = self._rng
        audio, speed = samples.astype(np.float32) / 32768, 1.0
        if rng.random() < OTHER_SPEED:
            speed = rng.uniform(0.88, 1.14)
            audio = np.interp(np.arange(0, len(audio) - 1, speed), np.arange(len(audio)), audio).astype(np.float32)
        audio *= np.float32(10 ** (-rng.uniform(0, self._stage.level_range_db) / 20))
        lead, trail = rng.uniform(0, 0.35, 2)
        return np.concatenate((_zeros(lead), audio, _zeros(trail))), speed, lead

    def _windows(self, ids: Sequence[int], recording: Recording, start: float, speed: float) -> list[tuple[int, int]]:
        """Return the frames allowed for each token: from one before its word to two after the next word starts."""
        words = np.cumsum([self._pieces.id_to_piece(piece).startswith(WORD_START) for piece in ids]) - 1
        starts = [start + second / speed for _, second in recording.word_starts]
        if not self._stage.aligned or len(starts) != words[-1] + 1:
            return [_ANYWHERE] * len(ids)
        ends = [
            min(following, begin + _LONGEST_WORD_SECONDS)
            for begin, following in zip(starts, [*starts[1:], np.inf], strict=True)
        ]
        return [(int(starts[n] / FRAME_SECONDS) - 1, int(ends[n] / FRAME_SECONDS) + 2) for n in words]

    def _silence(self) -> Samples:
        length = int(self._rng.uniform(0.5, self._stage.longest_silence_seconds) * SAMPLE_RATE_HZ)
        level = 0.0 if self._rng.random() < DIGITAL_SILENCE else 10 ** (-self._rng.uniform(20, 70) / 20)
        return self._noise(length) * np.float32(level)

    def _soiled(self, audio: Samples) -> Samples:
        """At some level, mostly over noise, sometimes over another voice."""
        rng = self._rng
        power = np.sqrt((audio**2).mean()) + 1e-6
        kind = rng.random()
        if kind < OVER_NOISE:
            audio = audio + self._noise(len(audio)) * power * np.float32(10 ** (-rng.uniform(8, 35) / 20))
        elif kind < OVER_NOISE + OVER_VOICE:
            audio = audio + self._babble(len(audio)) * power * np.float32(10 ** (-rng.uniform(14, 35) / 20))
        return audio * np.float32(10 ** (rng.uniform(-14, 4) / 20))

    def _noise(self, length: int) -> Samples:
        noise = self._noises[int(self._rng.integers(2))]
        start = int(self._rng.integers(0, len(noise) - length))
        return noise[start : start + length]

    def _babble(self, length: int) -> Samples:
        voice = self._clips[int(self._rng.integers(len(self._clips)))].wide.astype(np.float32) / 32768
        return np.resize(voice / (voice.std() + np.float32(1e-6)), length)


def _zeros(seconds: float) -> Samples:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), np.float32)


def _padded(examples: Sequence[_Example]) -> Batch:
    windows = [torch.tensor(example.windows).reshape(-1, 2) for example in examples]
    return Batch(
        audio=pad_sequence([torch.from_numpy(example.audio) for example in examples], batch_first=True),
        audio_lengths=torch.tensor([len(example.audio) for example in examples]),
        tokens=pad_sequence([torch.tensor(example.tokens, dtype=torch.long) for example in examples], batch_first=True),
        token_lengths=torch.tensor([len(example.tokens) for example in examples]),
        windows=pad_sequence(windows, batch_first=True),
    )
