"""Holes on recorded speech: dropped words are found, and pauses, music and noise are none."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from schemas.speech import WindowSpan, WindowTranscript, Word
from tests.support.audio.made_sounds import MUSIC, NOISES
from tests.support.audio.speech_bank import Clip, bank
from worker.core.transcript.planning import Chunk, ChunkCutter
from worker.core.transcript.quality import filled, holes, second_window
from worker.core.transcript.sound import phrases
from worker.ports import SAMPLE_RATE_HZ, Pcm

PAUSE = np.zeros(SAMPLE_RATE_HZ, np.int16)
SOUND_SECONDS, SEEDS = 28, range(12)
EARLY_END_SECONDS = 0.4
"""The tiny model ends a word up to half a second before its sound ends."""


def timed() -> list[Clip]:
    return [clip for clip in bank() if len(clip.utterance.word_starts) >= 8][:60]


def words_of(clip: Clip, at: float) -> list[Word]:
    one = clip.utterance
    first = one.start_sample / SAMPLE_RATE_HZ
    ends = [*one.word_starts[1:], one.end_sample / SAMPLE_RATE_HZ]
    return [
        Word(text, start - first + at, max(start + 0.08, end - EARLY_END_SECONDS) - first + at, 0.9)
        for text, start, end in zip(one.text.split(), one.word_starts, ends, strict=True)
    ]


def chunk_of(audio: Pcm) -> Chunk:
    cutter = ChunkCutter(60)
    (chunk,) = (*cutter.push(audio), *cutter.finish())
    return chunk


def spoken(clip: Clip) -> tuple[Chunk, list[Word]]:
    """An utterance between two pauses, and its words."""
    return chunk_of(np.concatenate((PAUSE, clip.samples, PAUSE))), words_of(clip, 1.0)


def heard(chunk: Chunk, words: Sequence[Word]) -> list[WindowTranscript]:
    (span,) = chunk.windows
    offset = span.start_sample / SAMPLE_RATE_HZ
    moved = (
        replace(word, start_seconds=word.start_seconds - offset, end_seconds=word.end_seconds - offset)
        for word in words
    )
    return [WindowTranscript(span, tuple(moved))]


@pytest.mark.campaign
def test_speech_without_holes_has_none() -> None:
    found = [
        clip.utterance.text for clip in timed() for chunk, words in [spoken(clip)] if holes(chunk, heard(chunk, words))
    ]

    assert found == []


@pytest.mark.campaign
@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_dropped_words_are_a_hole(where: str) -> None:
    clips = [clip for clip in timed() if len(clip.samples) > 4 * SAMPLE_RATE_HZ]
    missed = []
    for clip in clips:
        chunk, words = spoken(clip)
        first, last = {"start": (0, 2.8), "middle": (1.0, 3.8), "end": (len(clip.samples) / SAMPLE_RATE_HZ - 2.8, 99)}[
            where
        ]
        kept = [word for word in words if not first <= word.start_seconds - 1.0 < last]
        if not holes(chunk, heard(chunk, kept)):
            missed.append(clip.utterance.text)

    assert len(clips) > 10
    assert missed == []


@pytest.mark.campaign
@pytest.mark.parametrize("kind", [*MUSIC, *NOISES])
def test_music_and_noise_are_no_holes(kind: str) -> None:
    sound = {**MUSIC, **NOISES}[kind]

    spoken_in = [seed for seed in SEEDS if phrases(sound(SOUND_SECONDS, seed))]

    assert spoken_in == []


def test_a_second_window_begins_at_the_speech_and_on_a_frame() -> None:
    chunk, words = spoken(timed()[0])
    (hole,) = holes(chunk, heard(chunk, words[:2]))

    spans = [second_window(chunk, hole, number) for number in range(3)]

    assert all(hole.start - SAMPLE_RATE_HZ - 1600 <= span.start_sample <= hole.speech_start for span in spans)
    assert all(hole.speech_end <= span.end_sample <= len(chunk.samples) for span in spans)
    assert [span.start_sample % 320 for span in spans] == [0, 0, 0]
    assert len(set(spans)) == 3


def test_words_of_a_second_window_fill_the_hole_once() -> None:
    chunk, words = spoken(next(clip for clip in timed() if len(clip.samples) > 4 * SAMPLE_RATE_HZ))
    windows = heard(chunk, [*words[:2], words[-1]])
    (hole,) = holes(chunk, windows)
    start = round((words[1].start_seconds - 0.1) * SAMPLE_RATE_HZ)
    again = WindowTranscript(
        WindowSpan(start, len(chunk.samples)),
        tuple(
            replace(
                word,
                start_seconds=word.start_seconds + 0.05 - start / SAMPLE_RATE_HZ,
                end_seconds=word.end_seconds + 0.3 - start / SAMPLE_RATE_HZ,
            )
            for word in words[1:]
        ),
    )

    (window,) = filled(windows, hole, again)

    assert [word.text for word in window.words] == [word.text for word in words]
