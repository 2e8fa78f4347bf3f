"""Cuts a stream of audio into chunks (the unit of checkpoint) and windows (the unit of recognition), at pauses."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from schemas.speech import WindowSpan
from worker.core.transcript import cutting
from worker.core.transcript.cutting import WindowRules
from worker.core.transcript.loudness import (
    FRAME_SAMPLES,
    FRAMES_PER_SECOND,
    FrameFlags,
    Loudness,
    Pcm,
    SilenceRules,
    measure,
)

LEAST_CHUNK_SECONDS = 6
"""The least CHUNK_DURATION_MINUTES. In chunks of 4 s windows of neighbours could start in the wrong order."""

_PAUSE_SEARCH_FRAMES = 30 * FRAMES_PER_SECOND


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chunk:
    """A stretch of the file and its windows. Positions are samples from the beginning of the file.

    The stretches `[start_sample, end_sample)` of a file's chunks tile the file. A window may reach beyond its chunk by
    the overlap of a forced cut. Samples in no window are silence, or belong to a file shorter than 20 ms.
    """

    index: int
    start_sample: int
    end_sample: int
    windows: tuple[WindowSpan, ...]
    samples: Pcm
    """The chunk's own samples, with those that its windows need before and after; shape (samples,)."""
    first_sample: int
    """Position of `samples[0]` in the file."""
    active: FrameFlags
    """One flag for each whole 20 ms from `start_sample` on: True where the sound rises above the noise floor."""
    starts_in_voice: bool
    """True where no pause was found at the start: the first window overlaps the last one of the previous chunk."""
    ends_in_voice: bool

    def samples_of(self, span: WindowSpan) -> Pcm:
        """Return a view of the audio of one of `windows`."""
        return self.samples[span.start_sample - self.first_sample : span.end_sample - self.first_sample]


class ChunkCutter:
    """Cuts a stream of samples into chunks of at most `chunk_seconds`, each ending at a pause where there is one.

    The chunks are a function of the audio alone, however it is split into blocks. The cutter buffers about one chunk
    of audio. Raises `ValueError` for `chunk_seconds` below `LEAST_CHUNK_SECONDS`.
    """

    def __init__(
        self,
        chunk_seconds: float,
        *,
        window_rules: WindowRules | None = None,
        silence_rules: SilenceRules | None = None,
    ) -> None:
        self._window_rules = window_rules or WindowRules()
        self._silence_rules = silence_rules or SilenceRules()
        self._chunk_frames = int(chunk_seconds * FRAMES_PER_SECOND)
        if chunk_seconds < LEAST_CHUNK_SECONDS:
            raise ValueError(f"chunk_seconds must be at least {LEAST_CHUNK_SECONDS}, got {chunk_seconds}")
        self._margin = self._window_rules.forced_margin_frames * FRAME_SAMPLES
        self._index = 0
        self._start = 0
        self._starts_in_voice = False
        self._covered_to = 0
        self._lead_in = 0
        self._buffer = self._new_buffer()
        self._filled = 0

    @property
    def total_samples(self) -> int:
        """Number of samples pushed so far."""
        return self._start - self._lead_in + self._filled

    @property
    def room(self) -> int:
        """Number of samples that complete the next chunk; pushing fewer only copies them."""
        return len(self._buffer) - self._filled

    def push(self, block: Pcm) -> tuple[Chunk, ...]:
        """Copy the next samples and return the chunks that they complete, usually none."""
        return tuple(self._push(block))

    def finish(self) -> tuple[Chunk, ...]:
        """Return the last chunk, or nothing where every sample is in an earlier chunk or the audio is empty."""
        owned = self._filled - self._lead_in
        if not owned:
            return ()
        loudness = measure(self._buffer[self._lead_in : self._filled], self._silence_rules)
        return (self._chunk(loudness, owned, ends_in_voice=False),)

    def _push(self, block: Pcm) -> Iterator[Chunk]:
        while len(block):
            taken = block[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            block = block[len(taken) :]
            if self._filled == len(self._buffer):
                yield self._cut()

    def _cut(self) -> Chunk:
        loudness = measure(self._buffer[self._lead_in :], self._silence_rules)
        search = min(_PAUSE_SEARCH_FRAMES, self._chunk_frames // 2)
        end = cutting.best_pause(loudness, self._chunk_frames - search, self._chunk_frames)
        chunk = self._chunk(loudness, end * FRAME_SAMPLES, ends_in_voice=bool(loudness.in_voice[end]))
        self._carry_over(chunk)
        return chunk

    def _chunk(self, loudness: Loudness, owned: int, *, ends_in_voice: bool) -> Chunk:
        place = _Place(self._start, self._start + owned, self._starts_in_voice, ends_in_voice)
        windows = tuple(_spans(loudness, place, self._covered_to, self._window_rules))
        self._covered_to = windows[-1].end_sample if windows else self._covered_to
        return Chunk(
            index=self._index,
            start_sample=place.start_sample,
            end_sample=place.end_sample,
            windows=windows,
            samples=self._buffer[: self._filled],
            first_sample=self._start - self._lead_in,
            active=~loudness.silent[: owned // FRAME_SAMPLES],
            starts_in_voice=place.starts_in_voice,
            ends_in_voice=place.ends_in_voice,
        )

    def _carry_over(self, chunk: Chunk) -> None:
        self._index += 1
        self._start = chunk.end_sample
        self._starts_in_voice = chunk.ends_in_voice
        self._lead_in = min(self._margin, self._start)
        rest = self._buffer[self._start - self._lead_in - chunk.first_sample :]
        self._buffer = self._new_buffer()
        self._buffer[: len(rest)] = rest
        self._filled = len(rest)

    def _new_buffer(self) -> Pcm:
        return np.empty(self._lead_in + self._chunk_frames * FRAME_SAMPLES + self._margin, np.int16)


@dataclass(frozen=True, slots=True)
class _Place:
    start_sample: int
    end_sample: int
    starts_in_voice: bool
    ends_in_voice: bool


def _spans(loudness: Loudness, place: _Place, covered_to: int, rules: WindowRules) -> Iterator[WindowSpan]:
    owned = place.end_sample - place.start_sample
    frames = owned // FRAME_SAMPLES
    for window in cutting.windows(
        loudness, frames, rules, forced_start=place.starts_in_voice, forced_end=place.ends_in_voice
    ):
        start = place.start_sample + window.first * FRAME_SAMPLES
        end = place.start_sample + (owned if window.last == frames else window.last * FRAME_SAMPLES)
        if end > covered_to:  # otherwise the overlap of the previous window contains this one
            yield WindowSpan(start, end, overlaps_previous=start < covered_to)
            covered_to = end


def recut(chunk: Chunk, rules: WindowRules) -> tuple[WindowSpan, ...]:
    """Cut a chunk into windows again, by other rules than before; the overlaps with its neighbours are kept."""
    loudness = measure(chunk.samples[chunk.start_sample - chunk.first_sample :], SilenceRules())
    place = _Place(chunk.start_sample, chunk.end_sample, chunk.starts_in_voice, chunk.ends_in_voice)
    shared = chunk.windows and chunk.windows[0].overlaps_previous
    covered_to = chunk.start_sample + rules.forced_margin_frames * FRAME_SAMPLES if shared else chunk.first_sample
    return tuple(_spans(loudness, place, covered_to, rules))
