"""Faults in an engine's words: gates that a bad window fails, and holes that hold speech.

Both are conservative: a false alarm costs second passes, then money.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from statistics import fmean

import numpy as np

from schemas.speech import WindowSpan, WindowTranscript, Word
from worker.core.transcript.merging import merge
from worker.core.transcript.planning import Chunk, WindowRules, recut
from worker.core.transcript.sound import (
    FRAME_SAMPLES,
    FRAMES_PER_SECOND,
    FrameFlags,
    frame_levels,
    phrases,
    talking_seconds,
)
from worker.core.transcript.spelling import is_spoken, raw_word
from worker.ports import SAMPLE_RATE_HZ, Pcm


class Gate(StrEnum):
    """A reason to distrust a window's words."""

    NO_TEXT = "no_text"
    """Speech, and no word."""
    GAP = "gap"
    """Long speech without words between two words, before the first or after the last."""
    WORD_RATE = "word_rate"
    """More words than can be spoken in the time, or far fewer than the speech must contain."""
    REPETITION = "repetition"
    """A word or phrase repeated many times, or a few times on silence: a keyterm in a loop, for example."""
    LOW_CONFIDENCE = "low_confidence"
    """The engine's own confidences are low."""


# Well beyond real speech, and well within what a failed decoder produces.
# Voiced, gliding seconds: two are about ten syllables; and music strays into them for under 7 % of its time.
_TALKING_SECONDS = 2.0
_TALKING_SHARE = 0.15
# Ten words fit in 4 s; a thoughtful pause with a cough in it does not reach the two limits above.
_GAP_SECONDS = 4.0
# Auctioneers and rap reach 6 words a second of sound; conversation has 2 to 4.
_MOST_WORDS_PER_SECOND = 8.0
# Slow dictation has 1 word a second of sound; _TALKING_SECONDS distinguishes music and games, which are sound too.
_LEAST_WORDS_PER_SECOND = 0.5
# Below these a rate or a mean is not significant.
_LEAST_WORDS = 8
_LEAST_SOUND_SECONDS = 10.0
# "No no no no no", "let's go" five times are normal on a stream; a stuck decoder fills the window.
_REPEATED_WORDS = 12
_REPEATS = 4
_LONGEST_PHRASE_WORDS = 8
# Times are off by 0.2 s at most, so no two spoken words in a row lie on silence.
_REPEATS_ON_SILENCE = 3
# Calibrated, this means that half of the words are wrong: windows with 7 of 10 words right stayed above 0.65, those
# with fewer came down to 0.51 (docs/measured.md). Not calibrated, even wrong words hardly come down to it.
_LEAST_MEAN_CONFIDENCE = 0.5


def failed_gates(chunk: Chunk, window: WindowTranscript) -> tuple[Gate, ...]:
    """Return the gates that a window of the chunk fails, in the order of `Gate`; empty for a good window."""
    words = sorted((word for word in window.words if is_spoken(word.text)), key=lambda word: word.start_seconds)
    samples = chunk.samples_of(window.span)
    seconds = len(samples) / SAMPLE_RATE_HZ
    first, last = window.span.start_sample - chunk.start_sample, window.span.end_sample - chunk.start_sample
    active = chunk.active[max(0, first // FRAME_SAMPLES) : last // FRAME_SAMPLES]
    sound_seconds = int(active.sum()) / FRAMES_PER_SECOND
    is_hasty = len(words) >= _LEAST_WORDS and len(words) > _MOST_WORDS_PER_SECOND * max(sound_seconds, 1.0)
    is_scant = sound_seconds >= _LEAST_SOUND_SECONDS and 0 < len(words) < _LEAST_WORDS_PER_SECOND * sound_seconds
    failed = {
        Gate.NO_TEXT: not words and _talks(samples, 0, seconds),
        Gate.GAP: any(_talks(samples, start, end) for start, end in _wordless(words, seconds)),
        Gate.WORD_RATE: is_hasty or (is_scant and _talks(samples, 0, seconds)),
        Gate.REPETITION: _repeats(words, active),
        Gate.LOW_CONFIDENCE: len(words) >= _LEAST_WORDS
        and fmean(word.confidence for word in words) < _LEAST_MEAN_CONFIDENCE,
    }
    return tuple(gate for gate in Gate if failed[gate])


def other_cuts(chunk: Chunk) -> tuple[WindowSpan, ...]:
    """Cut the chunk into windows of at most 20 s: other context for each word, and less to go wrong."""
    return recut(chunk, WindowRules(longest_frames=20 * FRAMES_PER_SECOND, ample_frames=10 * FRAMES_PER_SECOND))


def _talks(samples: Pcm, start_seconds: float, end_seconds: float) -> bool:
    """Return True where a substantial share of that part of the window is speech."""
    part = samples[int(start_seconds * SAMPLE_RATE_HZ) : int(end_seconds * SAMPLE_RATE_HZ)]
    enough = max(_TALKING_SECONDS, _TALKING_SHARE * (end_seconds - start_seconds))
    return end_seconds - start_seconds >= enough and talking_seconds(part) >= enough


def _wordless(words: Sequence[Word], seconds: float) -> Iterator[tuple[float, float]]:
    """Yield the long stretches without words of a window that has words."""
    spoken_to = 0.0
    for start, end in [*((word.start_seconds, word.end_seconds) for word in words), (seconds, seconds)]:
        if words and start - spoken_to >= _GAP_SECONDS:
            yield spoken_to, start
        spoken_to = max(spoken_to, end)


def _repeats(words: Sequence[Word], active: FrameFlags) -> bool:
    tokens = [raw_word(word.text) for word in words]
    silent = list(tokens)
    for place, word in enumerate(words):
        first, last = (int(seconds * FRAMES_PER_SECOND) for seconds in (word.start_seconds, word.end_seconds))
        if active[first : last + 1].any():
            silent[place] += f" {place}"  # a name of its own, which repeats nothing
    return any(
        _longest_run_of_phrase(tokens, size) >= max(_REPEATED_WORDS, _REPEATS * size)
        or _longest_run_of_phrase(silent, size) >= _REPEATS_ON_SILENCE * size
        for size in range(1, _LONGEST_PHRASE_WORDS + 1)
    )


def _longest_run_of_phrase(tokens: Sequence[str], size: int) -> int:
    """Return the length in words of the longest run of repeats of a phrase of `size` words."""
    longest = run = 0
    for token, later in zip(tokens, tokens[size:], strict=False):
        run = run + 1 if token == later else 0
        longest = max(longest, run)
    return longest + size if longest else 0


GAPS_VERSION = 1
"""Part of the key of Parakeet's checkpoints: raised when the same words and samples would be mended otherwise."""

ROUNDS = 3
"""Number of rounds of windows for Parakeet, before Deepgram's."""

# Lengths of and around holes, in seconds.
_SHORTEST = 1.5
# The other half of a hole at a chunk's end may be in the next chunk.
_SHORTEST_AT_END_OF_CHUNK = 0.9
# A transducer often ends a word before its sound ends, and starts the next one late: that sound is no hole.
_TAIL, _ONSET = 0.5, 0.25
# Windows of the rounds, then Deepgram's: how long before the hole's speech and after it. Starting before the hole,
# at a word that is known, is surest; but the tiny model mended most where it started at the speech itself.
_LEAD = (0.0, 1.0, 0.0, 1.0)
_AHEAD = (5.0, 10.0, 0.5, 1.0)
_LONGEST_WINDOW = 30.0
# A chunk that needs more is the quality gates' case.
_MOST_SHARE, _LEAST_ALLOWANCE = 0.25, 60.0
# Two windows place one word within a few frames of 80 ms of each other.
_SAME_WORD = 0.4

_LEAST_ACTIVE_FRAMES = 20  # two syllables


@dataclass(frozen=True, slots=True)
class Hole:
    """Samples `[start, end)` of the file without a word, with speech in `[speech_start, speech_end)`.

    Silence, music and noise are no holes.
    """

    start: int
    end: int
    speech_start: int
    speech_end: int

    def overlaps(self, other: "Hole") -> bool:
        """Return True where both have a sample in common."""
        return self.start < other.end and other.start < self.end


def allowance_of(chunk: Chunk) -> int:
    """Return the number of samples of a chunk that may be recognised again, all rounds together."""
    own = (chunk.end_sample - chunk.start_sample) / SAMPLE_RATE_HZ
    return int(max(_LEAST_ALLOWANCE, _MOST_SHARE * own) * SAMPLE_RATE_HZ)


def holes(chunk: Chunk, windows: Sequence[WindowTranscript]) -> tuple[Hole, ...]:
    """Return the holes of a chunk in order, at its ends and those of its windows too."""
    found = (_speech_in(chunk, *gap) for gap in _gaps(chunk, windows))
    return tuple(hole for hole in found if hole is not None)


def second_window(chunk: Chunk, hole: Hole, number: int) -> WindowSpan:
    """Return the window of round `number`, which counts from 0; `ROUNDS` is Deepgram's.

    It starts at the quietest moment before the hole's speech: a window that starts inside a word gives a wrong one.
    """
    last = chunk.first_sample + len(chunk.samples)
    start = _quietest(chunk, hole) - _samples(_LEAD[number])
    # on the frames of the chunk's windows
    start = max(chunk.first_sample, start - (start - chunk.start_sample) % FRAME_SAMPLES)
    end = min(last, hole.speech_end + _samples(_AHEAD[number]), start + _samples(_LONGEST_WINDOW))
    return WindowSpan(start, max(end, min(last, start + SAMPLE_RATE_HZ)))


def filled(windows: Sequence[WindowTranscript], hole: Hole, heard: WindowTranscript) -> tuple[WindowTranscript, ...]:
    """Return the windows with those words of a second window that lie in the hole and are not beside it already.

    A word goes to every window that contains it, so that overlapping windows agree on it.
    """
    words = _moved([word for word in heard.words if is_spoken(word.text)], heard.span.start_sample)
    new = [word for word in words if hole.start <= _centre(word) < hole.end]
    around = merge(windows)
    before = [word for word in around if word.end_seconds * SAMPLE_RATE_HZ <= hole.start + FRAME_SAMPLES]
    after = [word for word in around if word.start_seconds * SAMPLE_RATE_HZ >= hole.end - FRAME_SAMPLES]
    while new and before and _is_same(new[0], before[-1]):
        new.pop(0)
    while new and after and _is_same(new[-1], after[0]):
        new.pop()
    return tuple(_with(window, new) for window in windows)


def _gaps(chunk: Chunk, windows: Sequence[WindowTranscript]) -> Iterator[tuple[int, int, int, int]]:
    """Yield start and end of each long stretch without words, and of the sound in it that belongs to no word."""
    words = [(_samples(word.start_seconds), _samples(word.end_seconds)) for word in merge(windows)]
    for first, last in _covered(windows):
        clock = [(first, first), *(word for word in words if word[1] > first and word[0] < last), (last, last)]
        for place, ((_, start), (end, _)) in enumerate(pairwise(clock)):
            at_start, at_end = place == 0, place == len(clock) - 2
            is_cut = (at_start and first <= chunk.start_sample) or (at_end and last >= chunk.end_sample)
            if end - start >= (_SHORTEST_AT_END_OF_CHUNK if is_cut else _SHORTEST) * SAMPLE_RATE_HZ:
                tail, onset = 0 if at_start else _samples(_TAIL), 0 if at_end else _samples(_ONSET)
                yield start, end, start + tail, end - onset


def _covered(windows: Sequence[WindowTranscript]) -> list[tuple[int, int]]:
    """Return the stretches that windows cover.

    A hole in the overlap of two chunks is mended in both, so that their seam finds the same words on both sides.
    """
    joined: list[tuple[int, int]] = []
    for first, last in sorted((window.span.start_sample, window.span.end_sample) for window in windows):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _speech_in(chunk: Chunk, start: int, end: int, first: int, last: int) -> Hole | None:
    if first >= last or _is_quiet(chunk, first, last):
        return None
    spoken = phrases(chunk.samples_of(WindowSpan(first, last)))
    return Hole(start, end, first + _samples(spoken[0][0]), first + _samples(spoken[-1][1])) if spoken else None


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


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)


def _centre(word: Word) -> int:
    return _samples((word.start_seconds + word.end_seconds) / 2)


def _is_same(one: Word, other: Word) -> bool:
    """Return True for one word that two windows contain: alike, and as near as two windows place it, or overlapping."""
    first, second = sorted((one, other), key=lambda word: word.start_seconds)
    near = second.start_seconds < max(first.start_seconds + _SAME_WORD, first.end_seconds)
    return near and raw_word(one.text) == raw_word(other.text)


def _moved(words: Sequence[Word], samples: int) -> list[Word]:
    """Return the words in order of their starts, with the samples added to their times."""
    seconds = samples / SAMPLE_RATE_HZ
    moved = (
        replace(
            word,
            start_seconds=max(0.0, word.start_seconds + seconds),
            end_seconds=max(0.0, word.end_seconds + seconds),
        )
        for word in words
    )
    return sorted(moved, key=lambda word: word.start_seconds)


def _with(window: WindowTranscript, new: Sequence[Word]) -> WindowTranscript:
    first, last = window.span.start_sample, window.span.end_sample
    moved = _moved([word for word in new if first <= _centre(word) < last], -first)
    words = sorted((*window.words, *moved), key=lambda word: word.start_seconds)
    return replace(window, words=tuple(words)) if moved else window
