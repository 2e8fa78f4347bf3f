"""What a speech engine said, on the seam between engines, checkpoints and the timeline.

Plain frozen dataclasses: they are made by the thousand, and they carry no arrays.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word as written, with its punctuation and case, on some clock.

    Whose clock is said by the owner: an engine counts from the start of what it was handed, a timeline from the
    start of the file. An engine promises `0 <= start_seconds <= end_seconds` and nothing about neighbours.
    """

    text: str
    start_seconds: float
    end_seconds: float
    confidence: float


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """The samples of one window in the whole file, at 16 kHz: `[start_sample, end_sample)`.

    A window that was cut where there is no pause shares audio with its neighbour: `overlaps_previous` is true for the
    later of the two, and `start_sample` then lies before the earlier one's `end_sample`.
    """

    start_sample: int
    end_sample: int
    overlaps_previous: bool = False


@dataclass(frozen=True, slots=True)
class WindowTranscript:
    """The words of one window, timed from the window's own first sample."""

    span: WindowSpan
    words: tuple[Word, ...]
