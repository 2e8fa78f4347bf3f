"""Merges the words of many windows into one timeline of the whole file.

All arithmetic is in whole milliseconds of the file: nothing drifts, and rounding cannot break the order.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import accumulate, groupby

from schemas.speech import WindowTranscript, Word
from worker.core.transcript.spelling import clean, is_spoken

_SAMPLES_PER_MS = 16
# Two engines place one word within a few frames of 80 ms of each other.
_SAME_WORD_MS = 400
# No syllable is shorter. Separates words that a transducer emitted on one frame.
_LEAST_WORD_MS = 20
# An unhurried word ends within this; a transducer's last token may stretch over the pause after it.
_LONGEST_WORD_MS = 1000
_PER_LETTER_MS = 100
_PER_DIGIT_MS = 500  # a digit may be a word of its own when spoken
_LONGEST_MS = 60_000  # as long as a paragraph may be


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timed:
    """A word with its times in milliseconds of the file; `latest_end` is its window's end."""

    text: str
    start: int
    end: int
    latest_end: int
    confidence: float
    engine: str = ""

    @property
    def centre(self) -> float:
        return (self.start + self.end) / 2


@dataclass(frozen=True, slots=True)
class EngineSpan:
    """Samples `[start, end)` of the file whose words an engine made."""

    start_sample: int
    end_sample: int
    engine: str


@dataclass(frozen=True, slots=True)
class EngineRun:
    """Words in a row by one engine."""

    engine: str
    words: int


class WordTimeline:
    """Incremental merge, so that little is left to do at the end of a long file."""

    def __init__(self) -> None:
        self._words: list[_Timed] = []
        self._covered_to = 0

    def add(self, transcripts: Iterable[WindowTranscript], engine: str = "", others: Sequence[EngineSpan] = ()) -> None:
        """Merge more windows, in any order; all must follow the windows merged before.

        `engine` made the words, except those whose middle is in a span of `others`.
        """
        for transcript in sorted(transcripts, key=lambda one: (one.span.start_sample, one.span.end_sample)):
            words = [
                replace(word, engine=_engine_of(word, engine, others))
                for word in _join_punctuation(_on_file_clock(transcript))
            ]
            begin, end = _ms(transcript.span.start_sample), _ms(transcript.span.end_sample)
            keep, skip = _seam(self._words, words, begin, min(self._covered_to, end))
            self._words[keep:] = words[skip:]
            self._covered_to = max(self._covered_to, end)

    def words(self) -> tuple[Word, ...]:
        """Return the words in order, with times in seconds of the file to three decimals.

        For any input: `start[i] < start[i + 1]`, `end[i] <= start[i + 1]`, `end > start`; no word is empty or only
        punctuation; each word is inside its window, if the window is long enough for its words; and a word that two
        overlapping windows contain appears once.
        """
        return _in_strict_order(self._words)

    def engines(self) -> tuple[EngineRun, ...]:
        """Return the engines of the words, in runs of words in a row."""
        runs = groupby(word.engine for word in self._words)
        return tuple(EngineRun(engine, sum(1 for _ in words)) for engine, words in runs)


def merge(transcripts: Iterable[WindowTranscript]) -> tuple[Word, ...]:
    """Return the words of a `WordTimeline` of all these windows."""
    timeline = WordTimeline()
    timeline.add(transcripts)
    return timeline.words()


def merge_channels(channels: Sequence[Sequence[Word]]) -> tuple[Word, ...]:
    """Return the words of several channels' timelines as one, by start and then by channel, in a timeline's order.

    Where channels speak at once a word ends at the latest where the next one starts; words that start together are
    moved apart by 20 ms.
    """
    words = sorted(
        (round(word.start_seconds * 1000), number, round(word.end_seconds * 1000), word)
        for number, channel in enumerate(channels)
        for word in channel
    )
    latest = max((end for _, _, end, _ in words), default=0) + _LEAST_WORD_MS * len(channels)
    return _in_strict_order(
        [
            _Timed(text=word.text, start=start, end=end, latest_end=latest, confidence=word.confidence)
            for start, _, end, word in words
        ]
    )


def _ms(samples: int) -> int:
    return samples // _SAMPLES_PER_MS


def _on_file_clock(transcript: WindowTranscript) -> list[_Timed]:
    """Return the window's words sorted by start, cleaned and clamped to the window."""
    first, last = _ms(transcript.span.start_sample), _ms(transcript.span.end_sample)
    offset, last = transcript.span.start_sample / _SAMPLES_PER_MS, max(last, first + 1)
    words = []
    for word in transcript.words:
        if text := clean(word.text):
            start = min(_whole(offset + word.start_seconds * 1000, first, last), last - 1)
            end = max(_whole(offset + word.end_seconds * 1000, first, last), start + 1)
            end = min(end, start + _longest_ms(text))
            confidence = min(max(word.confidence, 0.0), 1.0) if math.isfinite(word.confidence) else 0.0
            words.append(_Timed(text=text, start=start, end=end, latest_end=last, confidence=confidence))
    return sorted(words, key=lambda word: word.start)


def _engine_of(word: _Timed, engine: str, others: Sequence[EngineSpan]) -> str:
    middle = word.centre * _SAMPLES_PER_MS
    return next((one.engine for one in others if one.start_sample <= middle < one.end_sample), engine)


def _whole(ms: float, first: int, last: int) -> int:
    return first if math.isnan(ms) else round(min(max(ms, first), last))


def _longest_ms(text: str) -> int:
    digits = 0 if text.isalpha() else sum(char.isdigit() for char in text)
    return min(_LONGEST_WORD_MS + _PER_LETTER_MS * (len(text) - digits) + _PER_DIGIT_MS * digits, _LONGEST_MS)


def _join_punctuation(words: Sequence[_Timed]) -> list[_Timed]:
    """Append tokens without a letter or digit to the preceding word; drop those before the first word."""
    joined: list[_Timed] = []
    for word in words:
        if is_spoken(word.text):
            joined.append(word)
        elif joined:
            joined[-1] = replace(joined[-1], text=joined[-1].text + word.text)
    return joined


def _seam(before: Sequence[_Timed], after: Sequence[_Timed], begin: int, end: int) -> tuple[int, int]:
    """Return how many words to keep of the earlier run and to skip of the later one; they share `[begin, end)`."""
    if begin >= end:
        return len(before), 0
    return _common_word(before, after, begin, end) or _middle(before, after, (begin + end) / 2)


def _common_word(before: Sequence[_Timed], after: Sequence[_Timed], begin: int, end: int) -> tuple[int, int] | None:
    """Return a seam after a word that both runs contain, the nearest to the middle of the overlap; None without one."""
    first = _count_before(before, begin - _SAME_WORD_MS)
    left = before[first:]
    right = [word for word in after if word.start <= end + _SAME_WORD_MS]
    one, other = (["".join(filter(str.isalnum, word.text.casefold())) for word in run] for run in (left, right))
    pairs = [
        (abs(left[i].centre - (begin + end) / 2), first + i + 1, j + 1)
        for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
        for i, j in ((block.a + step, block.b + step) for step in range(block.size))
        if abs(left[i].start - right[j].start) <= _SAME_WORD_MS
    ]
    return min(pairs)[1:] if pairs else None


def _count_before(words: Sequence[_Timed], moment: float) -> int:
    """Return the number of words up to the last one whose centre is before the moment."""
    return next((count for count in range(len(words), 0, -1) if words[count - 1].centre < moment), 0)


def _middle(before: Sequence[_Timed], after: Sequence[_Timed], middle: float) -> tuple[int, int]:
    """Return a seam in the middle; words of the later run behind the end of the earlier run are kept."""
    keep = _count_before(before, middle)
    spoken_to = before[keep - 1].end if keep else 0
    return keep, _count_before(after, min(middle, spoken_to))


def _in_strict_order(words: Sequence[_Timed]) -> tuple[Word, ...]:
    """Separate equal starts (forwards, then back from the window's end), then bound the ends by the next start."""
    starts = _apart((word.start for word in words), _LEAST_WORD_MS)
    latest = math.inf
    for i in range(len(words) - 1, -1, -1):
        latest = min(latest - 1, words[i].latest_end - 1)
        starts[i] = int(min(starts[i], latest))
    starts = _apart(starts, 1)
    following = [*starts, math.inf][1:]
    return tuple(
        Word(word.text, start / 1000, int(min(max(word.end, start + 1), limit)) / 1000, word.confidence)
        for word, start, limit in zip(words, starts, following, strict=True)
    )


def _apart(starts: Iterable[int], least: int) -> list[int]:
    spread = accumulate(starts, lambda before, start: max(start, before + least), initial=-least)  # from 0 on
    return list(spread)[1:]
