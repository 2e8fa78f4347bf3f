"""Gates that tell a bad transcript from a good one; for now none fires: they are being written."""

from enum import StrEnum

from schemas.speech import WindowSpan, WindowTranscript
from worker.core.transcript.planning import Chunk


class Gate(StrEnum):
    """What can look wrong with a window's words."""

    NO_TEXT = "no_text"


def failed_gates(chunk: Chunk, window: WindowTranscript) -> tuple[Gate, ...]:
    """The gates that the window's words fail, given the chunk's audio."""
    del chunk, window
    return ()


def other_cuts(chunk: Chunk) -> tuple[WindowSpan, ...]:
    """Windows of the same chunk, cut at other places."""
    return chunk.windows
