"""Sentences and paragraphs of a timeline."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.speech import Word
from worker.core.transcript.spelling import closing_marks, raw_word

LONGEST_SECONDS = 60.0
PAUSE_SECONDS = 0.8
# Deepgram's paragraphs have three to five sentences. A paragraph of at most 30 s fits whole into one of the pipeline's
# 60 s windows, whose starts are 30 s apart.
_MOST_SENTENCES = 5
_AMPLE_SECONDS = 30.0


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
class Paragraph:
    """One or more consecutive sentences."""

    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """The sentences joined by one space."""
        return " ".join(sentence.text for sentence in self.sentences)

    @property
    def start_seconds(self) -> float:
        """Start of the first sentence."""
        return self.sentences[0].start_seconds

    @property
    def end_seconds(self) -> float:
        """End of the last sentence."""
        return self.sentences[-1].end_seconds

    @property
    def word_count(self) -> int:
        """Number of words."""
        return sum(len(sentence.words) for sentence in self.sentences)


def paragraphs_of(words: Sequence[Word]) -> tuple[Paragraph, ...]:
    """Split a timeline (see `merging.merge`) into paragraphs that contain every word once, in order.

    No paragraph is longer than 60 s, like each word of a timeline, or contains a pause of 0.8 s.
    """
    return tuple(_paragraphs(_sentences(words)))


def _paragraphs(sentences: Iterator[Sentence]) -> Iterator[Paragraph]:
    current: list[Sentence] = []
    for sentence in sentences:
        if current and _starts_anew(current, sentence):
            yield Paragraph(sentences=tuple(current))
            current = []
        current.append(sentence)
    if current:
        yield Paragraph(sentences=tuple(current))


def _starts_anew(current: Sequence[Sentence], following: Sentence) -> bool:
    return (
        len(current) >= _MOST_SENTENCES
        or following.end_seconds - current[0].start_seconds > _AMPLE_SECONDS
        or is_pause(current[-1].words[-1], following.words[0])
    )


def is_pause(word: Word, following: Word) -> bool:
    """Return True where the silence between two adjacent words, in the files' milliseconds, ends a paragraph."""
    return round((following.start_seconds - word.end_seconds) * 1000) >= PAUSE_SECONDS * 1000


def _sentences(words: Sequence[Word]) -> Iterator[Sentence]:
    first = 0
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else None
        if following is None or ends_sentence(word.text, following.text) or is_pause(word, following):
            yield from _not_too_long(words[first : i + 1])
            first = i + 1


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
    if not marks:
        return False
    if any(mark in marks for mark in "?!…"):
        return True
    if "." not in marks:
        return False
    stem = raw_word(text)
    if stem in _OPENERS or _is_initial(stem) or (stem == "no" and following[:1].isdigit()):
        return False
    return stem not in _EITHER or not following[:1].islower()


def _is_initial(stem: str) -> bool:
    """Return True for an initial, as in `J. Smith`; the `I.` of `So do I.` is none."""
    return len(stem) == 1 and stem.isalpha() and stem != "i"
