"""Cuts a stretch of audio into windows by dynamic programming over its pauses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.core.transcript.loudness import FRAMES_PER_SECOND, FrameFlags, Loudness

Frames = NDArray[np.int64]
"""Frame numbers, or lengths in frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowRules:
    """Lengths and costs that define a good window. Lengths are frames of 20 ms; costs are relative to each other."""

    # The model was trained on clips up to 40 s; attention makes longer windows slower and less accurate.
    longest_frames: int = 30 * FRAMES_PER_SECOND
    # From 20 s on a longer window gains nothing; below, it wastes batches and gives the model little to normalise on.
    ample_frames: int = 20 * FRAMES_PER_SECOND
    # Two windows share 2 s where there is no pause: each reaches 1 s past the cut, longer than any word.
    forced_margin_frames: int = FRAMES_PER_SECOND
    # Weak onsets and trailing fricatives lie up to 0.3 s outside what rises above the noise.
    silence_margin_frames: int = 2 * FRAMES_PER_SECOND // 5
    # Silence shorter than 1.5 s is never left out: it could not be distinguished from quiet speech (see loudness).
    shortest_skip_frames: int = 3 * FRAMES_PER_SECOND // 2
    # A cut through a word costs about two errors; a short window costs next to none: cuts weigh most.
    cut_weight: int = 5
    forced_cost: int = 2000
    window_cost: int = 50
    # A second of skippable silence inside a window: 4 s of it are worth joining two scraps of speech.
    silent_frame_cost: int = 4
    # One candidate for a cut in each 0.4 s, about the length of a word.
    candidate_step_frames: int = 2 * FRAMES_PER_SECOND // 5


@dataclass(frozen=True, slots=True)
class FrameWindow:
    """Frames `[first, last)`. May reach `forced_margin_frames` beyond a forced end of the stretch."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class _Cuts:
    """Candidate cuts in order, and the window that would start or end at each; arrays of shape (candidates,)."""

    position: Frames
    cost: Frames
    first: Frames
    """First frame of a window that starts here, its overlap included."""
    last: Frames
    """One past the last frame of a window that ends here."""
    silence_to_first: Frames
    silence_to_last: Frames
    speech_from: Frames
    speech_to: Frames


def skippable(silent: FrameFlags, rules: WindowRules) -> FrameFlags:
    """Return a mask of the frames that may be left out: long silence, less a margin towards adjacent speech."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], silent, [False])).astype(np.int8)))
    mask = np.zeros(len(silent), np.bool_)
    for begin, end in edges.reshape(-1, 2):
        if end - begin >= rules.shortest_skip_frames:
            first = begin + (rules.silence_margin_frames if begin else 0)
            last = end - (rules.silence_margin_frames if end < len(silent) else 0)
            mask[first:last] = True
    return mask


def best_pause(loudness: Loudness, begin: int, end: int) -> int:
    """Return the frame in `[begin, end]` with the lowest cut cost, the latest of equals; `end` may be `len(frames)`."""
    costs = loudness.cut_cost[begin : end + 1]
    return begin + len(costs) - 1 - int(np.argmin(costs[::-1]))


def windows(
    loudness: Loudness, end: int, rules: WindowRules, *, forced_start: bool, forced_end: bool
) -> tuple[FrameWindow, ...]:
    """Cut frames `[0, end)` into windows that contain everything but skippable silence.

    No window is longer than `longest_frames`; where two touch without a pause they overlap.
    """
    silent = loudness.silent[:end]
    if silent.all():
        return ()
    cuts = _candidates(loudness, end, rules, forced_start=forced_start, forced_end=forced_end)
    return tuple(
        FrameWindow(int(cuts.first[i]), int(cuts.last[j]))
        for i, j in _cheapest_path(cuts, rules)
        if cuts.speech_from[i] < cuts.speech_to[j]
    )


def _candidates(loudness: Loudness, end: int, rules: WindowRules, *, forced_start: bool, forced_end: bool) -> _Cuts:
    position = _positions(loudness, end, rules)
    forced = np.concatenate(([forced_start], loudness.in_voice[position[1:-1]], [forced_end]))
    cost = np.concatenate(([0], loudness.cut_cost[position[1:-1]] * rules.cut_weight, [0])) + rules.window_cost
    cost[1:-1] += np.where(forced[1:-1], rules.forced_cost, 0)
    skip = skippable(loudness.silent[:end], rules)
    speech_from, speech_to = _speech_bounds(skip)
    margin = np.where(forced, rules.forced_margin_frames, 0)
    silence = np.concatenate(([0], np.cumsum(skip)))
    begins, ends = speech_from[position], speech_to[position]
    return _Cuts(
        position=position,
        cost=cost,
        first=begins - np.where(begins == position, margin, 0),
        last=ends + np.where(ends == position, margin, 0),
        silence_to_first=silence[begins],
        silence_to_last=silence[ends],
        speech_from=begins,
        speech_to=ends,
    )


def _positions(loudness: Loudness, end: int, rules: WindowRules) -> Frames:
    """Return frame 0, the cheapest frame of every step, and the end."""
    step = rules.candidate_step_frames
    whole = end // step * step
    grid = loudness.cut_cost[:whole].reshape(-1, step)
    best = np.arange(len(grid)) * step + grid.argmin(axis=1)
    return np.unique(np.concatenate(([0], best, [end])))


def _speech_bounds(skip: FrameFlags) -> tuple[Frames, Frames]:
    """Return, for each position 0..n, the first frame kept from there on, and one past the last frame kept before."""
    frames = np.arange(len(skip) + 1)
    kept = np.concatenate((~skip, [True]))
    following = np.minimum.accumulate(np.where(kept, frames, len(skip))[::-1])[::-1]
    before = np.maximum.accumulate(np.where(np.concatenate(([False], ~skip)), frames, 0))
    return following, before


_IMPOSSIBLE = 1 << 40
_OUT_OF_REACH = 1 << 50


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
    """Return the cost of every pair (j - band + k, j) at [j, k], vectorised: a loop took half of a plan's time."""
    ends = np.arange(len(cuts.position))
    reach = np.searchsorted(cuts.position, cuts.position - rules.longest_frames)
    band = max(1, int((ends - reach).max()))
    begins = ends[:, None] - band + np.arange(band)
    i, j = np.maximum(begins, 0), ends[:, None]
    length = cuts.last[j] - cuts.first[i]
    missing = np.maximum(rules.ample_frames - length, 0)
    silence = cuts.silence_to_last[j] - cuts.silence_to_first[i]
    cost: Frames = missing * missing // rules.ample_frames + silence * rules.silent_frame_cost + cuts.cost[j]
    cost[length > rules.longest_frames] = _IMPOSSIBLE
    cost[cuts.speech_from[i] >= cuts.speech_to[j]] = 0
    cost[begins < reach[:, None]] = _OUT_OF_REACH
    return cost
