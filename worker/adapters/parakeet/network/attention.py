"""Attention over all frames of a window, by content and by distance (Transformer-XL's relative positions).

A query's score of a key is its product with the key and, with another bias, with the position of the key relative to
the query. The positions are the same for every window, so they are projected once, when the network is built. Queries
are taken in blocks: for a block only the distances that occur in it are computed, and its scores stay in the cache.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812  torch's own custom
from torch import Tensor

from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.layout import PassLayout
from worker.adapters.parakeet.network.weights import Linear, Weights, linear_of

QUERY_BLOCK = 192
"""Half of a window of 30 s."""

_MASKED = -10_000.0
"""NeMo's score of a key that is not to be looked at. Not infinite: a slot may have no window, and then no other."""


def relative_positions(d_model: int, longest_frames: int) -> Tensor:
    """Return the sinusoids of all distances from `longest_frames - 1` down to `-longest_frames`: float32, (2 L, d)."""
    distances = torch.arange(longest_frames - 1, -longest_frames - 1, -1, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float32) * -(math.log(10_000.0) / d_model))
    return torch.stack((torch.sin(distances * rates), torch.cos(distances * rates)), dim=-1).flatten(1)


class RelativeAttention:
    """Multi-head self-attention of one layer."""

    def __init__(self, weights: Weights, config: NetworkConfig, name: str, positions: Tensor) -> None:
        width, self._heads = config.d_model, config.n_heads
        head = width // self._heads
        parts = [f"{name}.linear_{part}" for part in "qkv"]
        bias = [weights.take(f"{part}.bias", width) for part in parts] if config.use_bias else []
        self._project = Linear(
            weights,
            torch.cat([weights.take(f"{part}.weight", width, width) for part in parts]),
            torch.cat(bias) if bias else None,
        )
        self._out = linear_of(weights, f"{name}.linear_out", width, width, has_bias=config.use_bias)
        self._content_bias, self._distance_bias = (
            weights.placed(f"{name}.pos_bias_{part}", self._heads, head) for part in "uv"
        )
        projected = F.linear(positions, weights.take(f"{name}.linear_pos.weight", width, width))
        by_head = projected.view(len(positions), self._heads, head).permute(1, 2, 0)
        self._positions = weights.place(by_head * head**-0.5)
        """(heads, features of a head, distances), scaled as the scores are."""

    def add_to(self, total: Tensor, x: Tensor, layout: PassLayout) -> None:
        """Add what the frames of `x`, (frames, width), gather from their windows to `total`, of the same shape."""
        projected = self._project(x, layout.block).view(len(x), 3, self._heads, -1)
        if layout.slots is None:
            gathered = self._attend(projected[None], None)[0]
        else:
            grid = projected[layout.slots.frames]
            gathered = self._attend(grid, layout.slots.is_window).flatten(0, 1)[layout.slots.places]
        self._out.add_to(total, gathered.flatten(1), layout.block)

    def _attend(self, projected: Tensor, is_key: Tensor | None) -> Tensor:
        """Return (slots, frames, heads, features of a head) for projections of shape (slots, frames, 3, heads, ...).

        `is_key`, (slots, frames), is true for the frames that may be looked at; None: all.
        """
        queries, keys, values = projected.unbind(2)
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        frames = queries.shape[1]
        blocks = []
        for first in range(0, frames, QUERY_BLOCK):
            rows = slice(first, min(first + QUERY_BLOCK, frames))
            scores = self._scores_by_distance(queries[:, rows], first, frames)
            if is_key is not None:
                scores = torch.where(is_key[:, None, None], scores, _MASKED)
            block = (queries[:, rows] + self._content_bias).transpose(1, 2)
            blocks.append(F.scaled_dot_product_attention(block, keys, values, attn_mask=scores).transpose(1, 2))
        return torch.cat(blocks, dim=1) if len(blocks) > 1 else blocks[0]

    def _scores_by_distance(self, queries: Tensor, first: int, frames: int) -> Tensor:
        """Return the scores of all keys by distance alone, (slots, heads, rows, frames), for queries from `first` on.

        The product has a column for each distance. A query's keys, in order, lie side by side in its row, one column
        further to the left for each query: the same memory read with another stride.
        """
        slots, rows, heads, _ = queries.shape
        middle = self._positions.shape[2] // 2
        distances = self._positions[:, :, middle - first - rows : middle - first + frames]
        by_head = (queries + self._distance_bias).flatten(0, 1).transpose(0, 1)
        product = torch.bmm(by_head, distances)
        columns = frames + rows
        strides = (rows * columns, slots * rows * columns, columns - 1, 1)
        return product.as_strided((slots, heads, rows, frames), strides, rows - 1)
