"""Holes in a chunk's words that hold speech: where they are, which window to recognise again, and how to fill them.

Pure functions of words and samples. Silence, music and noise are no holes: see `voicing.phrases`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from schemas.speech import WindowSpan, WindowTranscript, Word
from worker.core.transcript.loudness import FRAME_SAMPLES, SAMPLE_RATE_HZ, frame_levels
from worker.core.transcript.merging import merge
from worker.core.transcript.planning import Chunk
from worker.core.transcript.spelling import is_spoken, raw_word
from worker.core.transcript.voicing import phrases

GAPS_VERSION = 1
"""Part of the key of Parakeet's checkpoints: raised when the same words and samples would be mended otherwise."""


_LEAST_ACTIVE_FRAMES = 20  # two syllables


@dataclass(frozen=True, kw_only=True, slots=True)
class GapRules:
    """Lengths in seconds. A false alarm costs up to three short windows, and perhaps seconds of a Deepgram request."""

    shortest: float = 1.5
    # The other half of a hole at a chunk's end may be in the next chunk.
    shortest_at_end_of_chunk: float = 0.9
    # A transducer often ends a word before its sound ends, and starts the next one late: that sound is no hole.
    tail: float = 0.5
    onset: float = 0.25
    rounds: int = 3
    # Windows of the rounds, then Deepgram's: how long before the hole's speech and after it. Starting before the hole,
    # at a word that is known, is surest; but the tiny model mended most where it started at the speech itself.
    lead: tuple[float, ...] = (0.0, 1.0, 0.0, 1.0)
    ahead: tuple[float, ...] = (5.0, 10.0, 0.5, 1.0)
    longest: float = 30.0
    # A chunk that needs more is the quality gates' case.
    most_share: float = 0.25
    least_allowance: float = 60.0
    # Two windows place one word within a few frames of 80 ms of each other.
    same_word: float = 0.4

    def allowance(self, chunk: Chunk) -> int:
        """Return the number of samples of a chunk that may be recognised again, all rounds together."""
        own = (chunk.end_sample - chunk.start_sample) / SAMPLE_RATE_HZ
        return int(max(self.least_allowance, self.most_share * own) * SAMPLE_RATE_HZ)


RULES = GapRules()


@dataclass(frozen=True, slots=True)
class Hole:
    """Samples `[start, end)` of the file without a word, with speech in `[speech_start, speech_end)`."""

    start: int
    end: int
    speech_start: int
    speech_end: int

    def overlaps(self, other: "Hole") -> bool:
        """Return True where both have a sample in common."""
        return self.start < other.end and other.start < self.end


def holes(chunk: Chunk, windows: Sequence[WindowTranscript], rules: GapRules = RULES) -> tuple[Hole, ...]:
    """Return the holes of a chunk in order, at its ends and those of its windows too."""
    words = merge(windows)
    found = (_speech_in(chunk, *gap) for gap in _gaps(chunk, windows, words, rules))
    return tuple(hole for hole in found if hole is not None)


def second_window(chunk: Chunk, hole: Hole, number: int, rules: GapRules = RULES) -> WindowSpan:
    """Return the window of round `number`, which counts from 0; `rounds` is Deepgram's.

    It starts at the quietest moment before the hole's speech: a window that starts inside a word gives a wrong one.
    """
    lead, ahead = (int(seconds[number] * SAMPLE_RATE_HZ) for seconds in (rules.lead, rules.ahead))
    last = chunk.first_sample + len(chunk.samples)
    start = max(chunk.first_sample, _on_frame(chunk, _quietest(chunk, hole) - lead))
    end = min(last, hole.speech_end + ahead, start + int(rules.longest * SAMPLE_RATE_HZ))
    return WindowSpan(start, max(end, min(last, start + SAMPLE_RATE_HZ)))


def filled(
    windows: Sequence[WindowTranscript], hole: Hole, heard: WindowTranscript, rules: GapRules = RULES
) -> tuple[WindowTranscript, ...]:
    """Return the windows with those words of a second window that lie in the hole and are not beside it already.

    A word goes to every window that contains it, so that windows which overlap agree on it at their seam.
    """
    new = [word for word in _on_file_clock(heard) if _is_inside(word, hole)]
    around = merge(windows)
    before = [word for word in around if word.end_seconds * SAMPLE_RATE_HZ <= hole.start + FRAME_SAMPLES]
    after = [word for word in around if word.start_seconds * SAMPLE_RATE_HZ >= hole.end - FRAME_SAMPLES]
    while new and before and _is_same(new[0], before[-1], rules):
        new.pop(0)
    while new and after and _is_same(new[-1], after[0], rules):
        new.pop()
    return tuple(_with(window, [word for word in new if _is_of(word, window.span)]) for window in windows)


def _gaps(
    chunk: Chunk, windows: Sequence[WindowTranscript], words: Sequence[Word], rules: GapRules
) -> Iterator[tuple[int, int, int, int]]:
    """Yield start and end of each long stretch without words, and how much at its ends belongs to words."""
    tail, onset = round(rules.tail * SAMPLE_RATE_HZ), round(rules.onset * SAMPLE_RATE_HZ)
    for first, last in _covered(windows):
        inside = [
            (_samples(word.start_seconds), _samples(word.end_seconds))
            for word in words
            if _samples(word.end_seconds) > first and _samples(word.start_seconds) < last
        ]
        clock = [(first, first), *inside, (last, last)]
        for place, ((_, start), (end, _)) in enumerate(pairwise(clock)):
            at_start, at_end = place == 0, place == len(clock) - 2
            is_cut = (at_start and first <= chunk.start_sample) or (at_end and last >= chunk.end_sample)
            least = rules.shortest_at_end_of_chunk if is_cut else rules.shortest
            if end - start >= least * SAMPLE_RATE_HZ:
                yield start, end, 0 if at_start else tail, 0 if at_end else onset


def _covered(windows: Sequence[WindowTranscript]) -> list[tuple[int, int]]:
    """Return the stretches that windows cover, overlaps with the chunk's neighbours included.

    A hole in such an overlap is mended in both chunks, so that their seam finds the same words on both sides.
    """
    joined: list[tuple[int, int]] = []
    for first, last in sorted((window.span.start_sample, window.span.end_sample) for window in windows):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _speech_in(chunk: Chunk, start: int, end: int, tail: int, onset: int) -> Hole | None:
    first, last = start + tail, end - onset
    if first >= last or _is_quiet(chunk, first, last):
        return None
    spoken = phrases(chunk.samples_of(WindowSpan(first, last)))
    if not spoken:
        return None
    return Hole(start, end, first + _samples(spoken[0][0]), first + _samples(spoken[-1][1]))


def _is_quiet(chunk: Chunk, first: int, last: int) -> bool:
    """Return True where too little rises above the noise floor to be speech, as in most pauses: cheap to see."""
    begin, end = ((sample - chunk.start_sample) // FRAME_SAMPLES for sample in (first, last))
    is_known = begin >= 0 and end <= len(chunk.active)
    return is_known and int(chunk.active[begin:end].sum()) < _LEAST_ACTIVE_FRAMES


def _quietest(chunk: Chunk, hole: Hole) -> int:
    """Return the latest of the quietest moments between the hole's start and its speech."""
    first = max(chunk.first_sample, hole.start - 5 * FRAME_SAMPLES)
    levels = frame_levels(chunk.samples_of(WindowSpan(first, hole.speech_start)))[1]
    if not len(levels):
        return first
    return first + (len(levels) - 1 - int(np.argmin(levels[::-1]))) * FRAME_SAMPLES


def _on_frame(chunk: Chunk, sample: int) -> int:
    """Return the last frame's start before the sample, on the frames of the chunk's windows."""
    return sample - (sample - chunk.start_sample) % FRAME_SAMPLES


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)


def _on_file_clock(heard: WindowTranscript) -> list[Word]:
    offset = heard.span.start_sample / SAMPLE_RATE_HZ
    moved = (
        replace(word, start_seconds=word.start_seconds + offset, end_seconds=word.end_seconds + offset)
        for word in heard.words
        if is_spoken(word.text)
    )
    return sorted(moved, key=lambda word: word.start_seconds)


def _is_inside(word: Word, hole: Hole) -> bool:
    return hole.start <= _centre(word) < hole.end


def _is_of(word: Word, span: WindowSpan) -> bool:
    return span.start_sample <= _centre(word) < span.end_sample


def _centre(word: Word) -> int:
    return _samples((word.start_seconds + word.end_seconds) / 2)


def _is_same(one: Word, other: Word, rules: GapRules) -> bool:
    """Return True for one word that two windows contain: alike, and as near as two windows place it, or overlapping."""
    first, second = sorted((one, other), key=lambda word: word.start_seconds)
    near = second.start_seconds < max(first.start_seconds + rules.same_word, first.end_seconds)
    return near and raw_word(one.text) == raw_word(other.text)


def _with(window: WindowTranscript, new: Sequence[Word]) -> WindowTranscript:
    if not new:
        return window
    offset = window.span.start_sample / SAMPLE_RATE_HZ
    moved = (
        replace(
            word,
            start_seconds=max(0.0, word.start_seconds - offset),
            end_seconds=max(0.0, word.end_seconds - offset),
        )
        for word in new
    )
    return replace(window, words=tuple(sorted((*window.words, *moved), key=lambda word: word.start_seconds)))
