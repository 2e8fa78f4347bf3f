"""Renders the files of a finished job from its timeline (see `merging.merge`): a pure function, byte for byte.

The transcript has the shape of Deepgram's pre-recorded response, whichever engine recognised the words. The pipeline
reads the two CSV files with pandas: CRLF, UTF-8, seconds with three decimals. Captions are SubRip and WebVTT.
"""

import csv
import html
import io
import re
import textwrap
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TypeVar

from pydantic_core import to_json
from pysubs2 import SSAEvent, SSAFile

from schemas.codes import Artefact
from schemas.speech import Word
from worker.core.transcript.merging import EngineRun
from worker.core.transcript.spelling import closing_marks, raw_word

_Json = dict[str, object]

# Values that pandas.read_csv takes for missing by default (pandas 0.25 to 3.1).
READ_AS_MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip

LONGEST_SECONDS = 60.0
PAUSE_SECONDS = 0.8
# Deepgram's paragraphs have three to five sentences. A paragraph of at most 30 s fits whole into one of the pipeline's
# 60 s windows, whose starts are 30 s apart.
_MOST_SENTENCES = 5
_AMPLE_SECONDS = 30.0

# Captions
_LINE_CHARACTERS = 42
_LINES = 2
_LONGEST_MS = 7000
_SHORTEST_MS = 1000  # to be readable; a caption stays this long unless the next one begins
# pysubs2 would take these for line breaks; an invisible word joiner separates the letters.
_LINE_BREAK_CODE = re.compile(r"\\(?=[nNh])")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """One or more consecutive words of a timeline."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """The words joined by one space."""
        return " ".join(word.text for word in self.words)

    @property
    def start_seconds(self) -> float:
        """Start of the first word."""
        return self.words[0].start_seconds

    @property
    def end_seconds(self) -> float:
        """End of the last word."""
        return self.words[-1].end_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Paragraph(Sentence):
    """One or more consecutive sentences, and their words."""

    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtefactInfo:
    """Facts in the files besides the words; none depends on the run."""

    request_id: str
    """Derived from the job id, see `schemas.ids.request_id`."""
    created_at: datetime
    """Creation time of the audio object; timezone-aware."""
    audio_sha256: str
    """Hexadecimal, of the audio as submitted."""
    duration_seconds: float
    model_name: str
    model_version: str
    """Identifies one build of the model, for example by its fingerprint."""
    extra_outputs: frozenset[Artefact] = frozenset()
    """`SRT`, `VTT` or both."""
    is_calibrated: bool = False
    """The model's confidences are measured probabilities."""
    engines: tuple[tuple[EngineRun, ...], ...] = ()
    """The engines of the words of each channel, or of the mix."""


def render_artefacts(
    words: Sequence[Word], info: ArtefactInfo, channels: Sequence[Sequence[Word]] = ()
) -> tuple[dict[Artefact, bytes], int]:
    """Render a timeline (see `merging.merge`); return the files, and the number of paragraphs.

    `channels` are the timelines that `words` were merged of: each is an entry of the transcript's `results.channels`.
    """
    paragraphs = paragraphs_of(words)
    apart = [(channel, paragraphs_of(channel)) for channel in channels] or [(words, paragraphs)]
    files = {
        Artefact.WORDS: _csv("word", ((one.start_seconds, one.end_seconds, raw_word(one.text)) for one in words)),
        Artefact.PARAGRAPHS: _csv("text", ((one.start_seconds, one.end_seconds, one.text) for one in paragraphs)),
        Artefact.TRANSCRIPT: transcript_json(apart, info),
    }
    if Artefact.SRT in info.extra_outputs:
        files[Artefact.SRT] = srt(words)
    if Artefact.VTT in info.extra_outputs:
        files[Artefact.VTT] = vtt(words)
    return files, len(paragraphs)


def _csv(text_column: str, rows: Iterable[tuple[float, float, str]]) -> bytes:
    """Return the table, with a full stop appended to text that a reader would otherwise take for missing.

    Readers ignore quotes when they look for missing values, so quoting does not help.
    """
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("start_time", "end_time", text_column))
    writer.writerows(
        (f"{start:.3f}", f"{end:.3f}", f"{text}." if text in READ_AS_MISSING else text) for start, end, text in rows
    )
    return table.getvalue().encode()


def transcript_json(channels: Sequence[tuple[Sequence[Word], Sequence[Paragraph]]], info: ArtefactInfo) -> bytes:
    """Render UTF-8 JSON in a fixed order of keys, with every field that deepgram-sdk's response model requires.

    An alternative whose words are of several engines names them. Each channel's words must be a timeline's (see
    `merging.merge`): times are finite and have three decimals already.
    """
    # Deepgram names a model by a UUID; ours is derived from the model's name and version.
    model = str(uuid.uuid5(uuid.NAMESPACE_URL, f"klipstream:model:{info.model_name}:{info.model_version}"))
    # The architecture is the same for every engine, so that the shape does not depend on the engine.
    model_info = {"name": info.model_name, "version": info.model_version, "arch": "asr"}
    if info.is_calibrated:
        model_info["confidence"] = "calibrated"
    response = {
        "metadata": {
            "transaction_key": "deprecated",
            "request_id": info.request_id,
            "sha256": info.audio_sha256,
            "created": info.created_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": _rounded(info.duration_seconds),
            "channels": len(channels),
            "models": [model],
            "model_info": {model: model_info},
        },
        "results": {
            "channels": [
                {"alternatives": [_alternative(words, paragraphs, runs or ())]}
                for (words, paragraphs), runs in zip_longest(channels, info.engines)
            ]
        },
    }
    return to_json(response)  # four times as fast as the standard library for hours of words


def _alternative(words: Sequence[Word], paragraphs: Sequence[Paragraph], runs: Sequence[EngineRun]) -> _Json:
    mean = sum(word.confidence for word in words) / len(words) if words else 0.0
    alternative: _Json = {
        "transcript": " ".join(word.text for word in words),
        "confidence": _rounded(mean),
        "words": [
            {
                "word": raw_word(word.text),
                "start": word.start_seconds,
                "end": word.end_seconds,
                "confidence": _rounded(word.confidence),
                "punctuated_word": word.text,
            }
            for word in words
        ],
        "paragraphs": {
            "transcript": "\n".join(f"\n{paragraph.text}" for paragraph in paragraphs),
            "paragraphs": [
                {
                    "sentences": [
                        {"text": sentence.text, "start": sentence.start_seconds, "end": sentence.end_seconds}
                        for sentence in paragraph.sentences
                    ],
                    "start": paragraph.start_seconds,
                    "end": paragraph.end_seconds,
                    "num_words": len(paragraph.words),
                }
                for paragraph in paragraphs
            ],
        },
    }
    if len(runs) > 1:
        alternative["engines"] = [{"engine": run.engine, "num_words": run.words} for run in runs]
    return alternative


def _rounded(value: float) -> float:
    return round(float(value), 3)


def paragraphs_of(words: Sequence[Word]) -> tuple[Paragraph, ...]:
    """Split a timeline into paragraphs that contain every word once, in order.

    No paragraph is longer than 60 s, like each word of a timeline, or contains a pause of 0.8 s.
    """
    runs = _split(words, lambda _, i: _is_end(words[i - 1], words[i]))
    sentences = [sentence for run in runs for sentence in _not_too_long(run)]
    return tuple(
        Paragraph(words=tuple(word for sentence in part for word in sentence.words), sentences=tuple(part))
        for part in _split(sentences, lambda first, i: _starts_anew(sentences[first:i], sentences[i]))
    )


def _split(items: Sequence[T], ends: Callable[[int, int], bool]) -> Iterator[Sequence[T]]:
    """Yield the items in parts; `ends(first, i)` is True where the part that begins at `first` ends before item `i`."""
    first = 0
    for i in range(1, len(items) + 1):
        if i == len(items) or ends(first, i):
            yield items[first:i]
            first = i


def _starts_anew(current: Sequence[Sentence], following: Sentence) -> bool:
    return (
        len(current) >= _MOST_SENTENCES
        or following.end_seconds - current[0].start_seconds > _AMPLE_SECONDS
        or _is_pause(current[-1].words[-1], following.words[0])
    )


def _is_end(word: Word, following: Word) -> bool:
    return ends_sentence(word.text, following.text) or _is_pause(word, following)


def _is_pause(word: Word, following: Word) -> bool:
    """Return True where the silence between two adjacent words, in the files' milliseconds, ends a paragraph."""
    return round((following.start_seconds - word.end_seconds) * 1000) >= PAUSE_SECONDS * 1000


def _not_too_long(words: Sequence[Word]) -> Iterator[Sentence]:
    """Split at the widest gap of the second half minute until what is left fits."""
    while words[-1].end_seconds - words[0].start_seconds > LONGEST_SECONDS and len(words) > 1:
        begin = words[0].start_seconds
        fits = [i for i in range(1, len(words)) if words[i - 1].end_seconds - begin <= LONGEST_SECONDS] or [1]
        late = [i for i in fits if words[i].start_seconds - begin >= LONGEST_SECONDS / 2] or fits[-1:]
        cut = max(late, key=lambda i: words[i].start_seconds - words[i - 1].end_seconds)
        yield Sentence(words=tuple(words[:cut]))
        words = words[cut:]
    yield Sentence(words=tuple(words))


# Words that are written with a full stop, and never end a sentence by it ...
_OPENERS = frozenset(
    "mr mrs ms dr prof st vs sr jr gen sgt capt lt col rev hon mt fig approx e.g i.e cf".split()  # noqa: SIM905
)
# ... or end one only where the next word is not lower case.
_EITHER = frozenset("a.m p.m etc inc ltd co corp u.s u.k u.n e.u d.c ph.d".split())  # noqa: SIM905


def ends_sentence(text: str, following: str) -> bool:
    """Return True where a sentence ends with this word, judged by its punctuation and the following word."""
    marks = closing_marks(text)
    if any(mark in marks for mark in "?!…"):
        return True
    if "." not in marks:
        return False
    stem = raw_word(text)
    is_initial = len(stem) == 1 and stem.isalpha() and stem != "i"  # `J. Smith`; but `So do I.` is a sentence
    if stem in _OPENERS or is_initial or (stem == "no" and following[:1].isdigit()):
        return False
    return stem not in _EITHER or not following[:1].islower()


@dataclass(frozen=True, slots=True)
class Caption:
    """At most two lines of 42 characters, shown from `start_ms` to `end_ms`: for at most 7 s."""

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
    """Break a timeline into captions, one after the other, at sentence ends and pauses, and where one is full."""
    pieces = list(_short_words(words))
    runs = list(_split(pieces, lambda first, i: _is_full(pieces[first:i], pieces[i])))
    following = [_ms(run[0].start_seconds) for run in runs[1:]]
    return tuple(_caption(run, limit) for run, limit in zip_longest(runs, following))


def _short_words(words: Sequence[Word]) -> Iterator[Word]:
    """Yield the words; a word longer than a line is split into pieces that share its time."""
    for word in words:
        pieces = [word.text[i : i + _LINE_CHARACTERS] for i in range(0, len(word.text), _LINE_CHARACTERS)]
        share = (word.end_seconds - word.start_seconds) / len(pieces)
        for i, piece in enumerate(pieces):
            start = word.start_seconds + i * share
            yield Word(piece, start, start + share, word.confidence)


def _is_full(run: Sequence[Word], following: Word) -> bool:
    if _ms(following.start_seconds) == _ms(run[0].start_seconds):
        return False  # pieces of a word of a few milliseconds: a caption of no length would not be shown
    return (
        _is_end(run[-1], following)
        or _ms(following.end_seconds) - _ms(run[0].start_seconds) > _LONGEST_MS
        or len(_lines([*run, following])) > _LINES
    )


def _lines(run: Sequence[Word]) -> list[str]:
    text = " ".join(word.text for word in run)
    return textwrap.wrap(text, _LINE_CHARACTERS, break_on_hyphens=False)


def _caption(run: Sequence[Word], next_start_ms: int | None) -> Caption:
    start = _ms(run[0].start_seconds)
    end = min(max(_ms(run[-1].end_seconds), start + _SHORTEST_MS), start + _LONGEST_MS)
    return Caption(start, end if next_start_ms is None else min(end, next_start_ms), tuple(_lines(run)))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _render(captions: Sequence[Caption], format_name: str, escape: Callable[[str], str]) -> bytes:
    file = SSAFile()
    for caption in captions:
        text = r"\N".join(_LINE_BREAK_CODE.sub("\\\\\u2060", escape(line)) for line in caption.lines)
        file.append(SSAEvent(start=caption.start_ms, end=caption.end_ms, text=text))
    return file.to_string(format_name, keep_ssa_tags=True).encode()  # braces are text here, not markup
