"""The FastConformer encoder: subsampling, then layers that each look at all frames of a window.

Subsampling makes one encoder frame of every `factor` spectrogram frames. Its first convolution is a plain one; each of
the others is depthwise, followed by a product over the channels. A layer is half a feed-forward, attention, convolution
and another half, each added to what came in.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812  torch's own custom
from torch import Tensor

from worker.adapters.parakeet.frames import LONGEST_WINDOW_FRAMES
from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.layout import PassLayout, Stretch
from worker.adapters.parakeet.network.weights import Linear, Weights, linear_of

QUERY_BLOCK = 192
"""Queries whose scores are computed at once: half of a window of 30 s."""

_MASKED = -10_000.0
"""NeMo's score of a key that is not to be looked at. Not infinite: a slot may have no window, and then no other."""

_BATCH_NORM_EPSILON = 1e-5
_KERNEL = 3  # of the convolutions of subsampling


class Encoder:
    """Log-mel features of a pass to encoder frames."""

    def __init__(self, weights: Weights, config: NetworkConfig) -> None:
        positions = relative_positions(config.d_model, LONGEST_WINDOW_FRAMES).to(weights.device)
        self._subsampling = Subsampling(weights, config)
        self._layers = [
            ConformerLayer(weights, config, f"encoder.layers.{number}", positions) for number in range(config.n_layers)
        ]

    def __call__(self, features: Tensor, layout: PassLayout) -> Tensor:
        """Return encoder output, (frames, width), for features, (spectrogram rows, bands), that lie as `layout` says.

        Frames that belong to no window hold finite numbers without meaning.
        """
        x = self._subsampling(features, layout)
        for layer in self._layers:
            x = layer(x, layout)
        return x


class ConformerLayer:
    """One layer; `name` is that of its parameters."""

    def __init__(self, weights: Weights, config: NetworkConfig, name: str, positions: Tensor) -> None:
        self._norms = [
            LayerNorm(weights, f"{name}.norm_{part}", config.d_model)
            for part in ("feed_forward1", "self_att", "conv", "feed_forward2", "out")
        ]
        self._feed_forward1 = FeedForward(weights, config, f"{name}.feed_forward1")
        self._attention = RelativeAttention(weights, config, f"{name}.self_attn", positions)
        self._convolution = Convolution(weights, config, f"{name}.conv")
        self._feed_forward2 = FeedForward(weights, config, f"{name}.feed_forward2")

    def __call__(self, x: Tensor, layout: PassLayout) -> Tensor:
        """Return the next layer's input, (frames, width); `x`, of the same shape, is overwritten."""
        feed_forward1, attention, convolution, feed_forward2, out = self._norms
        self._feed_forward1.add_to(x, feed_forward1(x), layout)
        self._attention.add_to(x, attention(x), layout)
        self._convolution.add_to(x, convolution(x), layout)
        self._feed_forward2.add_to(x, feed_forward2(x), layout)
        return out(x)


class LayerNorm:
    """Normalisation of each frame over its features."""

    def __init__(self, weights: Weights, name: str, width: int) -> None:
        self._weight, self._bias = (weights.placed(f"{name}.{part}", width) for part in ("weight", "bias"))

    def __call__(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return F.layer_norm(x, x.shape[-1:], self._weight, self._bias)


class FeedForward:
    """Two products with a SiLU in between, added by half."""

    def __init__(self, weights: Weights, config: NetworkConfig, name: str) -> None:
        width, inner, has_bias = config.d_model, config.d_feed_forward, config.use_bias
        self._widen = linear_of(weights, f"{name}.linear1", inner, width, has_bias=has_bias)
        self._narrow = linear_of(weights, f"{name}.linear2", width, inner, has_bias=has_bias, scale=0.5)

    def add_to(self, total: Tensor, x: Tensor, layout: PassLayout) -> None:
        """Add half of the result for `x` to `total`, both of shape (frames, width)."""
        self._narrow.add_to(total, F.silu(self._widen(x, layout.block), inplace=True), layout.block)


class Convolution:
    """A gated product, a depthwise convolution over time with its batch norm folded in, a SiLU and another product."""

    def __init__(self, weights: Weights, config: NetworkConfig, name: str) -> None:
        width, has_bias = config.d_model, config.use_bias
        self._gate = linear_of(weights, f"{name}.pointwise_conv1", 2 * width, width, 1, has_bias=has_bias)
        self._out = linear_of(weights, f"{name}.pointwise_conv2", width, width, 1, has_bias=has_bias)
        gain, shift, mean, variance = (
            weights.take(f"{name}.batch_norm.{part}", width)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = gain / torch.sqrt(variance + _BATCH_NORM_EPSILON)
        bias = weights.take(f"{name}.depthwise_conv.bias", width) if has_bias else torch.zeros_like(mean)
        depthwise = weights.take(f"{name}.depthwise_conv.weight", width, 1, config.conv_kernel)
        self._kernel = weights.place(depthwise * gain[:, None, None])
        self._bias = weights.place(shift + (bias - mean) * gain)

    def add_to(self, total: Tensor, x: Tensor, layout: PassLayout) -> None:
        """Add the result for `x` to `total`, both of shape (frames, width)."""
        x = F.glu(self._gate(x, layout.block), dim=-1)
        if layout.gaps is not None:
            x.index_fill_(0, layout.gaps, 0.0)
        x = F.silu(self._over_time(x, layout.block), inplace=True)
        self._out.add_to(total, x, layout.block)

    def _over_time(self, x: Tensor, block: int) -> Tensor:
        """Convolve along the frames, in blocks that overlap by half a kernel on either side."""
        width, half = x.shape[1], self._kernel.shape[2] // 2
        padded = F.pad(x.t(), (half, half))
        parts = [
            F.conv1d(padded[None, :, first : first + block + 2 * half], self._kernel, self._bias, groups=width)[0]
            for first in range(0, len(x), block)
        ]
        return (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]).t().contiguous()


class Subsampling:
    """Log-mel features to the input of the first layer.

    Features lie as (rows, bands, channels), which convolutions on a CPU like four times better than channels first.
    """

    def __init__(self, weights: Weights, config: NetworkConfig) -> None:
        channels, levels = config.subsampling_channels, config.subsampling_factor.bit_length() - 2
        name = "encoder.pre_encode"
        self._first = _convolution(weights, f"{name}.conv.0", channels)
        self._depthwise, self._pointwise = [], []
        for level in range(levels):
            index = 2 + 3 * level  # a ReLU precedes each pair
            self._depthwise.append(_convolution(weights, f"{name}.conv.{index}", channels))
            self._pointwise.append(linear_of(weights, f"{name}.conv.{index + 1}", channels, channels, 1, 1))
        bands = config.n_mels
        for _ in range(levels + 1):
            bands = (bands - 1) // 2 + 1
        # NeMo flattens channels before bands; here they lie the other way round.
        out = weights.take(f"{name}.out.weight", config.d_model, channels * bands).view(-1, channels, bands)
        scale = config.d_model**0.5 if config.xscaling else 1.0
        bias = weights.take(f"{name}.out.bias", config.d_model)
        self._out = Linear(weights, out.transpose(1, 2).flatten(1) * scale, bias * scale)

    def __call__(self, features: Tensor, layout: PassLayout) -> Tensor:
        """Return (frames, width) for features of shape (spectrogram rows, bands)."""
        parts = [self._subsample(features[one.rows], one) for one in layout.stretches]
        return torch.cat(parts)[: layout.frames] if len(parts) > 1 else parts[0][: layout.frames]

    def _subsample(self, features: Tensor, stretch: Stretch) -> Tensor:
        x = _convolve(features[:, :, None], self._first, groups=1).relu_()
        for depthwise, pointwise, edges in zip(self._depthwise, self._pointwise, stretch.edges, strict=True):
            x.index_fill_(0, edges, 0.0)
            x = _convolve(x, depthwise, groups=x.shape[2])
            x = pointwise(x.flatten(0, 1), x.shape[0] * x.shape[1]).view(x.shape).relu_()
        return self._out(x[stretch.lead_frames :].flatten(1), len(x))


def _convolution(weights: Weights, name: str, channels: int) -> tuple[Tensor, Tensor]:
    return weights.placed(f"{name}.weight", channels, 1, _KERNEL, _KERNEL), weights.placed(f"{name}.bias", channels)


def _convolve(x: Tensor, convolution: tuple[Tensor, Tensor], groups: int) -> Tensor:
    """Return every second row and band of a convolution over (rows, bands, channels)."""
    kernel, bias = convolution
    convolved = F.conv2d(x[None].permute(0, 3, 1, 2), kernel, bias, stride=2, padding=_KERNEL // 2, groups=groups)
    return convolved.permute(0, 2, 3, 1)[0].contiguous()


def relative_positions(d_model: int, longest_frames: int) -> Tensor:
    """Return the sinusoids of all distances from `longest_frames - 1` down to `-longest_frames`: float32, (2 L, d)."""
    distances = torch.arange(longest_frames - 1, -longest_frames - 1, -1, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float32) * -(math.log(10_000.0) / d_model))
    return torch.stack((torch.sin(distances * rates), torch.cos(distances * rates)), dim=-1).flatten(1)


class RelativeAttention:
    """Multi-head self-attention of one layer, by content and by distance (Transformer-XL's relative positions).

    A query's score of a key is its product with the key and, with another bias, with the position of the key relative
    to the query. The positions are the same for every window, so they are projected once, when the network is built.
    Queries are taken in blocks: for a block only the distances that occur in it are computed, and its scores stay in
    the cache.
    """

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
