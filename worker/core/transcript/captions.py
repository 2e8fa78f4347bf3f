"""Captions: at most two lines of 42 characters for at most 7 s, one after the other."""

import html
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pysubs2 import SSAEvent, SSAFile

from schemas.speech import Word
from worker.core.transcript.paragraphs import PAUSE_SECONDS, ends_sentence

LINE_CHARACTERS = 42
LINES = 2
LONGEST_MS = 7000


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands on the screen from `start_ms` to `end_ms`."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def srt(words: Sequence[Word]) -> bytes:
    """SubRip, UTF-8. The format knows no escapes: an arrow in the text is written `->`, since `-->` divides times."""
    return _render(captions_of(words), "srt", lambda text: text.replace("-->", "->"))


def vtt(words: Sequence[Word]) -> bytes:
    """WebVTT, with `&`, `<` and `>` escaped."""
    return _render(captions_of(words), "vtt", lambda text: html.escape(text, quote=False))


def captions_of(words: Sequence[Word]) -> tuple[Caption, ...]:
    """Break a timeline (see `merging.merge`) into captions at sentence ends and pauses, and where one is full."""
    return tuple(_caption(run) for run in _runs(list(_short_words(words))))


def _short_words(words: Sequence[Word]) -> Iterator[Word]:
    """The words; one that fills more than a caption comes in pieces that share its time."""
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
    return (
        ends_sentence(run[-1].text, following.text)
        or following.start_seconds - run[-1].end_seconds >= PAUSE_SECONDS
        or _ms(following.end_seconds) - _ms(run[0].start_seconds) > LONGEST_MS
        or len(_lines([*run, following])) > LINES
    )


def _lines(run: Sequence[Word]) -> list[str]:
    text = " ".join(word.text for word in run)
    return textwrap.wrap(text, LINE_CHARACTERS, break_on_hyphens=False)


def _caption(run: Sequence[Word]) -> Caption:
    start = _ms(run[0].start_seconds)
    return Caption(start, min(_ms(run[-1].end_seconds), start + LONGEST_MS), tuple(_lines(run)))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _render(captions: Sequence[Caption], format_name: str, escape: Callable[[str], str]) -> bytes:
    file = SSAFile()
    for caption in captions:
        # pysubs2 takes \N for a line break; tags are kept as text, since nothing here is markup.
        text = r"\N".join(escape(line) for line in caption.lines)
        file.append(SSAEvent(start=caption.start_ms, end=caption.end_ms, text=text))
    return file.to_string(format_name, keep_ssa_tags=True).encode()
