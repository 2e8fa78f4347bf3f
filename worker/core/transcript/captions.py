"""Captions: at most two lines of 42 characters for at most 7 s, one after the other."""

import html
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from pysubs2 import SSAEvent, SSAFile

from schemas.speech import Word
from worker.core.transcript.paragraphs import ends_sentence, is_pause

LINE_CHARACTERS = 42
LINES = 2
LONGEST_MS = 7000
# A shorter caption cannot be read; a caption stays this long unless the next one begins.
SHORTEST_MS = 1000

# pysubs2 would take these for line breaks; an invisible word joiner separates the letters.
_LINE_BREAK_CODE = re.compile(r"\\(?=[nNh])")


@dataclass(frozen=True, slots=True)
class Caption:
    """Lines of text shown from `start_ms` to `end_ms`."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def srt(words: Sequence[Word]) -> bytes:
    """Render SubRip, UTF-8. The format has no escapes, so `-->` in the text, which separates times, becomes `->`."""
    return _render(captions_of(words), "srt", lambda text: text.replace("-->", "->"))


def vtt(words: Sequence[Word]) -> bytes:
    """Render WebVTT, UTF-8, with `&`, `<` and `>` escaped."""
    return _render(captions_of(words), "vtt", lambda text: html.escape(text, quote=False))


def captions_of(words: Sequence[Word]) -> tuple[Caption, ...]:
    """Break a timeline (see `merging.merge`) into captions at sentence ends and pauses, and where one is full."""
    runs = list(_runs(list(_short_words(words))))
    following = [_ms(run[0].start_seconds) for run in runs[1:]]
    return tuple(_caption(run, limit) for run, limit in zip_longest(runs, following))


def _short_words(words: Sequence[Word]) -> Iterator[Word]:
    """Yield the words; a word longer than a line is split into pieces that share its time."""
    size = LINE_CHARACTERS
    for word in words:
        pieces = [word.text[i : i + size] for i in range(0, len(word.text), size)]
        share = (word.end_seconds - word.start_seconds) / len(pieces)
        for i, piece in enumerate(pieces):
            start = word.start_seconds + i * share
            yield Word(piece, start, start + share, word.confidence)


def _runs(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    first = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or _breaks(words[first:i], words[i]):
            yield words[first:i]
            first = i


def _breaks(run: Sequence[Word], following: Word) -> bool:
    if _ms(following.start_seconds) == _ms(run[0].start_seconds):
        return False  # pieces of a word of a few milliseconds: a caption of no length would not be shown
    return (
        ends_sentence(run[-1].text, following.text)
        or is_pause(run[-1], following)
        or _ms(following.end_seconds) - _ms(run[0].start_seconds) > LONGEST_MS
        or len(_lines([*run, following])) > LINES
    )


def _lines(run: Sequence[Word]) -> list[str]:
    text = " ".join(word.text for word in run)
    return textwrap.wrap(text, LINE_CHARACTERS, break_on_hyphens=False)


def _caption(run: Sequence[Word], next_start_ms: int | None) -> Caption:
    start = _ms(run[0].start_seconds)
    end = min(max(_ms(run[-1].end_seconds), start + SHORTEST_MS), start + LONGEST_MS)
    return Caption(start, end if next_start_ms is None else min(end, next_start_ms), tuple(_lines(run)))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _render(captions: Sequence[Caption], format_name: str, escape: Callable[[str], str]) -> bytes:
    file = SSAFile()
    for caption in captions:
        text = r"\N".join(_LINE_BREAK_CODE.sub("\\\\\u2060", escape(line)) for line in caption.lines)
        file.append(SSAEvent(start=caption.start_ms, end=caption.end_ms, text=text))
    return file.to_string(format_name, keep_ssa_tags=True).encode()  # braces are text here, not markup
