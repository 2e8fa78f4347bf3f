"""The TDT transducer loss on a CPU: an exact forward-backward over the lattice, in numba.

The objective is NeMo's `TDTLossNumba` without omega sampling; NeMo itself computes it on CUDA only. A step of the
lattice emits a label or a blank and moves on by one of the durations; a blank never stays on its frame, and the last
step is a blank that reaches the end.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Scores = NDArray[np.float32]
"""Log probabilities, shape (items, frames, labels + 1); those of durations have one more axis."""

_NEVER = -1e30
_IMPOSSIBLE = -1e29
_OFF_WINDOW_PENALTY = 8.0


def tdt_loss(
    logits: Tensor,
    labels: Tensor,
    frame_counts: Tensor,
    label_counts: Tensor,
    *,
    windows: Tensor | None = None,
    durations: Sequence[int] = (0, 1, 2, 3, 4),
    sigma: float = 0.02,
) -> Tensor:
    """Compute the loss of each item of a batch.

    `logits` is the joint's raw output (items, frames, labels + 1, vocabulary + 1 + durations), the blank last of the
    vocabulary. `sigma` is the logit under-normalisation of the TDT paper. `windows` (items, labels, 2) holds the first
    and the last frame each label should be emitted on; elsewhere its score is cut.
    """
    vocabulary = logits[..., : -len(durations)].float()
    normaliser = torch.logsumexp(vocabulary, dim=-1) + sigma
    index = torch.nn.functional.pad(labels, (0, 1))[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    label = vocabulary.gather(-1, index)[..., 0] - normaliser
    if windows is not None:
        label = label - _OFF_WINDOW_PENALTY * _off_window(windows, label.shape[1])
    blank = vocabulary[..., -1] - normaliser
    duration = torch.log_softmax(logits[..., -len(durations) :].float(), dim=-1)
    loss: Tensor = _Lattice.apply(  # type: ignore[no-untyped-call]
        blank, label, duration, durations, frame_counts, label_counts
    )
    return loss


def _off_window(windows: Tensor, frames: int) -> Tensor:
    frame = torch.arange(frames)[None, :, None]
    off = (frame < windows[:, None, :, 0]) | (frame > windows[:, None, :, 1])
    return torch.nn.functional.pad(off, (0, 1)).float()


class _Lattice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        blank: Tensor,
        label: Tensor,
        duration: Tensor,
        durations: Sequence[int],
        frame_counts: Tensor,
        label_counts: Tensor,
    ) -> Tensor:
        scores = [part.detach().contiguous().numpy() for part in (blank, label, duration)]
        steps = np.asarray(durations, dtype=np.int64)
        counts = [part.long().numpy() for part in (frame_counts, label_counts)]
        loss, *gradients = _batch(scores[0], scores[1], scores[2], steps, counts[0], counts[1])
        ctx.gradients = [torch.from_numpy(gradient) for gradient in gradients]
        return torch.from_numpy(loss)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = outer
        of_blank, of_label, of_duration = ctx.gradients
        weight = weight[:, None, None]
        return of_blank * weight, of_label * weight, of_duration * weight[..., None], None, None, None


@numba.njit(inline="always")
def _add(a: float, b: float) -> float:
    """Return the logarithm of a sum of two exponentials."""
    low, high = min(a, b), max(a, b)
    return high if low <= _IMPOSSIBLE else high + np.log1p(np.exp(low - high))


@numba.njit(parallel=True, cache=True)
def _batch(
    blank: Scores,
    label: Scores,
    duration: Scores,
    durations: NDArray[np.int64],
    frame_counts: NDArray[np.int64],
    label_counts: NDArray[np.int64],
) -> tuple[Scores, Scores, Scores, Scores]:
    """Return the loss and its gradients by the three kinds of scores."""
    loss = np.zeros(blank.shape[0], np.float32)
    of_blank, of_label, of_duration = np.zeros_like(blank), np.zeros_like(label), np.zeros_like(duration)
    for item in numba.prange(blank.shape[0]):
        frames, labels = frame_counts[item], label_counts[item] + 1
        scores = blank[item, :frames, :labels], label[item, :frames, :labels], duration[item, :frames, :labels]
        gradients = of_blank[item], of_label[item], of_duration[item]
        loss[item] = _one(scores[0], scores[1], scores[2], durations, gradients[0], gradients[1], gradients[2])
    return loss, of_blank, of_label, of_duration


@numba.njit(cache=True)
def _one(
    blank: Scores,
    label: Scores,
    duration: Scores,
    durations: NDArray[np.int64],
    of_blank: Scores,
    of_label: Scores,
    of_duration: Scores,
) -> float:
    """Return the loss of one item; add its gradients to the last three arguments."""
    reached = _forward(blank, label, duration, durations)
    to_go = _backward(blank, label, duration, durations)
    frames, labels = blank.shape
    total: float = to_go[0, 0]
    for t in range(frames):
        for u in range(labels):
            for n, step in enumerate(durations):
                so_far = reached[t, u] + duration[t, u, n] - total
                if step > 0 and t + step <= frames and to_go[t + step, u] > _IMPOSSIBLE:
                    share = np.exp(so_far + blank[t, u] + to_go[t + step, u])
                    of_blank[t, u] -= share
                    of_duration[t, u, n] -= share
                if u + 1 < labels and t + step < frames and to_go[t + step, u + 1] > _IMPOSSIBLE:
                    share = np.exp(so_far + label[t, u] + to_go[t + step, u + 1])
                    of_label[t, u] -= share
                    of_duration[t, u, n] -= share
    return -total


@numba.njit(cache=True)
def _forward(blank: Scores, label: Scores, duration: Scores, durations: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the score of all paths to each state (frame, labels emitted)."""
    frames, labels = blank.shape
    reached = np.full((frames, labels), _NEVER)
    reached[0, 0] = 0.0
    for t in range(frames):
        for u in range(labels):
            for n, step in enumerate(durations):
                t0 = t - step
                if t0 >= 0 and step > 0:
                    reached[t, u] = _add(reached[t, u], reached[t0, u] + blank[t0, u] + duration[t0, u, n])
                if t0 >= 0 and u > 0:
                    reached[t, u] = _add(reached[t, u], reached[t0, u - 1] + label[t0, u - 1] + duration[t0, u - 1, n])
    return reached


@numba.njit(cache=True)
def _backward(blank: Scores, label: Scores, duration: Scores, durations: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the score of all paths from each state to the end, one frame past the last with every label emitted."""
    frames, labels = blank.shape
    to_go = np.full((frames + 1, labels), _NEVER)
    to_go[frames, labels - 1] = 0.0
    for t in range(frames - 1, -1, -1):
        for u in range(labels - 1, -1, -1):
            for n, step in enumerate(durations):
                if step > 0 and t + step <= frames:
                    to_go[t, u] = _add(to_go[t, u], blank[t, u] + duration[t, u, n] + to_go[t + step, u])
                if u + 1 < labels and t + step < frames:
                    to_go[t, u] = _add(to_go[t, u], label[t, u] + duration[t, u, n] + to_go[t + step, u + 1])
    return to_go
