"""Cuts a stream of audio into chunks (the unit of checkpoint) and windows (the unit of recognition), at pauses.

The windows of a chunk are found by dynamic programming over its pauses.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from schemas.speech import WindowSpan
from worker.core.transcript.sound import FRAME_SAMPLES, FRAMES_PER_SECOND, FrameFlags, Loudness, measure, stretches
from worker.ports import Pcm

LEAST_CHUNK_SECONDS = 6
"""The least CHUNK_DURATION_MINUTES. In chunks of 4 s windows of neighbours could start in the wrong order."""

Frames = NDArray[np.int64]
"""Frame numbers, or lengths in frames of 20 ms."""

_PAUSE_SEARCH_FRAMES = 30 * FRAMES_PER_SECOND
# Two windows share 2 s where there is no pause: each reaches 1 s past the cut, longer than any word.
_FORCED_MARGIN_FRAMES = FRAMES_PER_SECOND
_FORCED_MARGIN_SAMPLES = _FORCED_MARGIN_FRAMES * FRAME_SAMPLES
# Weak onsets and trailing fricatives lie up to 0.3 s outside what rises above the noise.
_SILENCE_MARGIN_FRAMES = 2 * FRAMES_PER_SECOND // 5
# Silence shorter than 1.5 s is never left out: it could not be distinguished from quiet speech (see sound).
_SHORTEST_SKIP_FRAMES = 3 * FRAMES_PER_SECOND // 2
# Costs, relative to each other. A cut through a word costs about two errors; a short window next to none.
_CUT_WEIGHT = 5
_FORCED_COST = 2000
_WINDOW_COST = 50
# For skippable silence inside a window: 4 s of it are worth joining two scraps of speech.
_SILENT_FRAME_COST = 4
_IMPOSSIBLE = 1 << 40
_OUT_OF_REACH = 1 << 50
# One candidate for a cut in each 0.4 s, about the length of a word.
_CANDIDATE_STEP_FRAMES = 2 * FRAMES_PER_SECOND // 5


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowRules:
    """Lengths of good windows, in frames."""

    # The model was trained on clips up to 40 s; attention makes longer windows slower and less accurate.
    longest_frames: int = 30 * FRAMES_PER_SECOND
    # From 20 s on a longer window gains nothing; below, it wastes batches and gives the model little to normalise on.
    ample_frames: int = 20 * FRAMES_PER_SECOND


_RULES = WindowRules()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chunk:
    """A stretch of the file and its windows. Positions are samples from the beginning of the file.

    The stretches `[start_sample, end_sample)` of a file's chunks tile the file. A window may reach beyond its chunk by
    the overlap of a forced cut. Samples in no window are silence, or belong to a file shorter than 20 ms.
    """

    index: int
    start_sample: int
    end_sample: int
    windows: tuple[WindowSpan, ...] = ()
    samples: Pcm
    """With those that windows need before and after the chunk; shape (samples,)."""
    first_sample: int
    """Position of `samples[0]` in the file."""
    active: FrameFlags
    """For each whole 20 ms from `start_sample` on, True where sound rises above the noise floor."""
    starts_in_voice: bool
    """No pause was found at the start: the first window overlaps the last one of the previous chunk."""
    ends_in_voice: bool

    def samples_of(self, span: WindowSpan) -> Pcm:
        """Return a view of the audio of one of `windows`."""
        return self.samples[span.start_sample - self.first_sample : span.end_sample - self.first_sample]


class ChunkCutter:
    """Cuts samples into chunks of at most `chunk_seconds`, each ending at a pause where there is one.

    The chunks do not depend on the blocks in which the audio comes. About one chunk of audio is buffered. Raises
    `ValueError` for `chunk_seconds` below `LEAST_CHUNK_SECONDS`.
    """

    def __init__(self, chunk_seconds: float) -> None:
        if chunk_seconds < LEAST_CHUNK_SECONDS:
            raise ValueError(f"chunk_seconds must be at least {LEAST_CHUNK_SECONDS}, got {chunk_seconds}")
        self._chunk_frames = int(chunk_seconds * FRAMES_PER_SECOND)
        self._index = self._start = self._covered_to = self._lead_in = self._filled = 0
        self._starts_in_voice = False
        self._buffer = self._new_buffer()

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
        chunks: list[Chunk] = []
        while len(block):
            taken, block = block[: self.room], block[self.room :]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            if not self.room:
                chunks.append(self._cut())
        return tuple(chunks)

    def finish(self) -> tuple[Chunk, ...]:
        """Return the last chunk, if any sample is in none yet."""
        owned = self._filled - self._lead_in
        if not owned:
            return ()
        loudness = measure(self._buffer[self._lead_in : self._filled])
        return (self._chunk(loudness, owned, ends_in_voice=False),)

    def _cut(self) -> Chunk:
        loudness = measure(self._buffer[self._lead_in :])
        first = self._chunk_frames - min(_PAUSE_SEARCH_FRAMES, self._chunk_frames // 2)
        costs = loudness.cut_cost[first : self._chunk_frames + 1]
        end = self._chunk_frames - int(np.argmin(costs[::-1]))  # the latest of the cheapest
        chunk = self._chunk(loudness, end * FRAME_SAMPLES, ends_in_voice=bool(loudness.in_voice[end]))
        self._carry_over(chunk)
        return chunk

    def _chunk(self, loudness: Loudness, owned: int, *, ends_in_voice: bool) -> Chunk:
        chunk = Chunk(
            index=self._index,
            start_sample=self._start,
            end_sample=self._start + owned,
            samples=self._buffer[: self._filled],
            first_sample=self._start - self._lead_in,
            active=~loudness.silent[: owned // FRAME_SAMPLES],
            starts_in_voice=self._starts_in_voice,
            ends_in_voice=ends_in_voice,
        )
        windows = tuple(_spans(loudness, chunk, self._covered_to, _RULES))
        self._covered_to = windows[-1].end_sample if windows else self._covered_to
        return replace(chunk, windows=windows)

    def _carry_over(self, chunk: Chunk) -> None:
        self._index += 1
        self._start = chunk.end_sample
        self._starts_in_voice = chunk.ends_in_voice
        self._lead_in = min(_FORCED_MARGIN_SAMPLES, self._start)
        rest = self._buffer[self._start - self._lead_in - chunk.first_sample :]
        self._buffer = self._new_buffer()
        self._buffer[: len(rest)] = rest
        self._filled = len(rest)

    def _new_buffer(self) -> Pcm:
        return np.empty(self._lead_in + self._chunk_frames * FRAME_SAMPLES + _FORCED_MARGIN_SAMPLES, np.int16)


def recut(chunk: Chunk, rules: WindowRules) -> tuple[WindowSpan, ...]:
    """Cut a chunk into windows by other rules; the overlaps with its neighbours are kept."""
    loudness = measure(chunk.samples[chunk.start_sample - chunk.first_sample :])
    shared = chunk.windows and chunk.windows[0].overlaps_previous
    covered_to = chunk.start_sample + _FORCED_MARGIN_SAMPLES if shared else chunk.first_sample
    return tuple(_spans(loudness, chunk, covered_to, rules))


def _spans(loudness: Loudness, chunk: Chunk, covered_to: int, rules: WindowRules) -> Iterator[WindowSpan]:
    """Yield windows that contain everything but skippable silence; `loudness` begins at the chunk's start.

    No window is longer than `longest_frames`; where two touch without a pause they overlap.
    """
    owned = chunk.end_sample - chunk.start_sample
    frames = owned // FRAME_SAMPLES
    if loudness.silent[:frames].all():
        return
    cuts = _candidates(loudness, frames, forced_start=chunk.starts_in_voice, forced_end=chunk.ends_in_voice)
    for i, j in _cheapest_path(cuts, rules):
        start = chunk.start_sample + int(cuts.first[i]) * FRAME_SAMPLES
        end = chunk.start_sample + (owned if cuts.last[j] == frames else int(cuts.last[j]) * FRAME_SAMPLES)
        # A window may be silence, or lie in the overlap of the previous one.
        if cuts.speech_from[i] < cuts.speech_to[j] and end > covered_to:
            yield WindowSpan(start, end, overlaps_previous=start < covered_to)
            covered_to = end


@dataclass(frozen=True, slots=True, eq=False)
class _Cuts:
    """Candidate cuts in order, and the window that would start or end at each; arrays of shape (candidates,)."""

    position: Frames
    cost: Frames
    first: Frames
    """First frame of a window that starts here, its overlap included; may be before the chunk."""
    last: Frames
    """One past the last frame of a window that ends here."""
    silence_to_first: Frames
    silence_to_last: Frames
    speech_from: Frames
    speech_to: Frames


def _candidates(loudness: Loudness, end: int, *, forced_start: bool, forced_end: bool) -> _Cuts:
    position = _positions(loudness, end)
    inner = position[1:-1]
    forced = np.concatenate(([forced_start], loudness.in_voice[inner], [forced_end]))
    inner_cost = loudness.cut_cost[inner] * _CUT_WEIGHT + np.where(forced[1:-1], _FORCED_COST, 0)
    skip = _skippable(loudness.silent[:end])
    speech_from, speech_to = _speech_bounds(skip)
    margin = np.where(forced, _FORCED_MARGIN_FRAMES, 0)
    silence = np.concatenate(([0], np.cumsum(skip)))
    begins, ends = speech_from[position], speech_to[position]
    return _Cuts(
        position=position,
        cost=np.concatenate(([0], inner_cost, [0])) + _WINDOW_COST,
        first=begins - np.where(begins == position, margin, 0),
        last=ends + np.where(ends == position, margin, 0),
        silence_to_first=silence[begins],
        silence_to_last=silence[ends],
        speech_from=begins,
        speech_to=ends,
    )


def _positions(loudness: Loudness, end: int) -> Frames:
    """Return frame 0, the cheapest frame of every step, and the end."""
    step = _CANDIDATE_STEP_FRAMES
    grid = loudness.cut_cost[: end // step * step].reshape(-1, step)
    best = np.arange(len(grid)) * step + grid.argmin(axis=1)
    return np.unique(np.concatenate(([0], best, [end])))


def _skippable(silent: FrameFlags) -> FrameFlags:
    """Return the frames that may be left out: long silence, less a margin beside speech."""
    mask = np.zeros(len(silent), np.bool_)
    for begin, end in stretches(silent):
        if end - begin >= _SHORTEST_SKIP_FRAMES:
            first = begin + (_SILENCE_MARGIN_FRAMES if begin else 0)
            last = end - (_SILENCE_MARGIN_FRAMES if end < len(silent) else 0)
            mask[first:last] = True
    return mask


def _speech_bounds(skip: FrameFlags) -> tuple[Frames, Frames]:
    """Return, for each position 0..n, the first frame kept from there on, and one past the last frame kept before."""
    frames = np.arange(len(skip) + 1)
    following = np.minimum.accumulate(np.where(np.append(~skip, True), frames, len(skip))[::-1])[::-1]
    before = np.maximum.accumulate(np.where(np.insert(~skip, 0, False), frames, 0))
    return following, before


def _cheapest_path(cuts: _Cuts, rules: WindowRules) -> list[tuple[int, int]]:
    """Return the cheapest chain of candidate pairs from the first to the last; a pair is a window or silence."""
    costs = _window_costs(cuts, rules)
    count, band = costs.shape
    total = np.zeros(band + count, np.int64)  # of candidate i at band + i
    back = np.zeros(count, np.int64)
    for j in range(1, count):
        through = total[j : j + band] + costs[j]
        best = through.argmin()
        total[band + j], back[j] = through[best], j - band + best
    path = []
    j = count - 1
    while j > 0:
        path.append((int(back[j]), j))
        j = int(back[j])
    return path[::-1]


def _window_costs(cuts: _Cuts, rules: WindowRules) -> Frames:
    """Return the cost of every pair (j - band + k, j) at [j, k]; as a loop it took half of a plan's time."""
    ends = np.arange(len(cuts.position))
    reach = np.searchsorted(cuts.position, cuts.position - rules.longest_frames)
    band = max(1, int((ends - reach).max()))
    begins = ends[:, None] - band + np.arange(band)
    i, j = np.maximum(begins, 0), ends[:, None]
    length = cuts.last[j] - cuts.first[i]
    missing = np.maximum(rules.ample_frames - length, 0)
    silence = cuts.silence_to_last[j] - cuts.silence_to_first[i]
    cost: Frames = missing * missing // rules.ample_frames + silence * _SILENT_FRAME_COST + cuts.cost[j]
    cost[length > rules.longest_frames] = _IMPOSSIBLE
    cost[cuts.speech_from[i] >= cuts.speech_to[j]] = 0
    cost[begins < reach[:, None]] = _OUT_OF_REACH
    return cost
