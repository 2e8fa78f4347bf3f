"""Attention with relative positions: NeMo's arithmetic, less what it does over and over.

NeMo projects the positions in every pass, though they are the same in all: with one window a pass that is 8 % of the
products of the 0.6B model's layers. It copies the scores of distances to shift them, which here are read askew; and it
goes through all scores for a sum, a scale and a softmax, which torch's own attention does in one go.
"""

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor

_MASKED = -10_000.0
"""NeMo's."""


def sees_its_whole_input(encoder: Any) -> bool:
    """Every frame attends to all frames, by content and distance: the attention that this module knows."""
    return encoder.self_attention_model == "rel_pos" and list(encoder.att_context_size) == [-1, -1]


def with_fused_attention(encoder: Any, longest_frames: int) -> Any:
    """A frozen encoder that `sees_its_whole_input` again, on the same weights, with the attention of this module.

    For inputs that are at most that many frames long once they are subsampled.
    """
    twin = on_the_same_weights(encoder)
    weight = encoder.layers[0].self_attn.linear_pos.weight
    _, positions = twin.pos_enc(x=weight.new_empty(1, longest_frames, encoder.d_model))
    for layer in twin.layers:
        layer.self_attn = FusedAttention(layer.self_attn, positions)
    return twin


def on_the_same_weights(encoder: Any) -> Any:
    """The encoder's modules again, so that one can be changed without the other."""
    return copy.deepcopy(encoder, {id(one): one for one in chain(encoder.parameters(), encoder.buffers())})


class FusedAttention(torch.nn.Module):
    """In place of a `RelPositionMultiHeadAttention` that sees its whole input.

    Frames that are masked as keys count for nothing. What it answers for frames that are masked as queries means
    nothing, where NeMo's answers zero: the encoder masks them again.
    """

    _positions: Tensor
    """Of shape (heads, 2 * longest frames - 1, features of a head), from the farthest behind."""

    def __init__(self, attention: Any, positions: Tensor) -> None:
        super().__init__()
        self._attention = attention
        with torch.no_grad():
            by_head = attention.linear_pos(positions).view(-1, attention.h, attention.d_k).transpose(0, 1)
        self.register_buffer("_positions", by_head.contiguous())

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        pos_emb: Tensor,  # noqa: ARG002  known already
        cache: None = None,  # noqa: ARG002  of streams
    ) -> Tensor:
        """As NeMo calls it. Raises RuntimeError for more than the longest frames."""
        attention, frames, centre = self._attention, query.shape[1], self._positions.shape[1] // 2
        queries, keys, values = attention.forward_qkv(query, key, value)
        positions = self._positions[:, centre - frames + 1 : centre + frames]
        scaled = (queries + attention.pos_bias_v[:, None]) / attention.s_d_k
        scores = _by_place(scaled @ positions.transpose(1, 2))
        if mask is not None:
            scores.masked_fill_(mask[:, None], _MASKED)
        heard = torch.nn.functional.scaled_dot_product_attention(
            queries + attention.pos_bias_u[:, None], keys, values, attn_mask=scores
        )
        answer: Tensor = attention.linear_out(heard.transpose(1, 2).flatten(2))
        return answer


def _by_place(by_distance: Tensor) -> Tensor:
    """The same memory read askew: (rows, heads, frames, 2 * frames - 1) as (rows, heads, frames, frames)."""
    rows, heads, frames, distances = by_distance.shape
    strides = (heads * frames * distances, frames * distances, distances - 1, 1)
    return by_distance.as_strided((rows, heads, frames, frames), strides, frames - 1)
