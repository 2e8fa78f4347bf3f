"""Words and windows, shared by engines, checkpoints and the timeline; dataclasses, since there are thousands."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its punctuation and case, and its times.

    The owner defines the origin of times: for an engine the start of its input, for a timeline the start of the file.
    An engine guarantees `0 <= start_seconds <= end_seconds` and nothing about adjacent words.
    """

    text: str
    start_seconds: float
    end_seconds: float
    confidence: float


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """Samples `[start_sample, end_sample)` of one window, counted from the start of the file at 16 kHz.

    `overlaps_previous`: it was cut without a pause, and begins before the previous window's end.
    """

    start_sample: int
    end_sample: int
    overlaps_previous: bool = False


@dataclass(frozen=True, slots=True)
class WindowTranscript:
    """Words of one window, with times relative to the window's first sample."""

    span: WindowSpan
    words: tuple[Word, ...]
