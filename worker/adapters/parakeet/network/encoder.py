"""The FastConformer encoder: subsampling, then layers that each look at all frames of a window.

A layer is half a feed-forward, attention, convolution and another half, each added to what came in.
"""

import torch
import torch.nn.functional as F  # noqa: N812  torch's own custom
from torch import Tensor

from worker.adapters.parakeet.frames import LONGEST_WINDOW_FRAMES
from worker.adapters.parakeet.network.attention import RelativeAttention, relative_positions
from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.layout import PassLayout
from worker.adapters.parakeet.network.subsampling import Subsampling
from worker.adapters.parakeet.network.weights import Linear, Weights, linear_of

_BATCH_NORM_EPSILON = 1e-5


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
        self._weight, self._bias = (weights.place(weights.take(f"{name}.{part}", width)) for part in ("weight", "bias"))

    def __call__(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return F.layer_norm(x, x.shape[-1:], self._weight, self._bias)


class FeedForward:
    """Two products with a SiLU in between, added by half."""

    def __init__(self, weights: Weights, config: NetworkConfig, name: str) -> None:
        self._widen = linear_of(weights, f"{name}.linear1", config.d_feed_forward, config.d_model, config.use_bias)
        self._narrow = linear_of(
            weights, f"{name}.linear2", config.d_model, config.d_feed_forward, config.use_bias, scale=0.5
        )

    def add_to(self, total: Tensor, x: Tensor, layout: PassLayout) -> None:
        """Add half of the result for `x` to `total`, both of shape (frames, width)."""
        self._narrow.add_to(total, F.silu(self._widen(x, layout.block), inplace=True), layout.block)


class Convolution:
    """A gated product, a depthwise convolution over time with its batch norm folded in, a SiLU and another product."""

    def __init__(self, weights: Weights, config: NetworkConfig, name: str) -> None:
        width, kernel = config.d_model, config.conv_kernel
        self._gate = _pointwise(weights, config, f"{name}.pointwise_conv1", 2 * width)
        self._out = _pointwise(weights, config, f"{name}.pointwise_conv2", width)
        norm = f"{name}.batch_norm"
        gain, shift, mean, variance = (
            weights.take(f"{norm}.{part}", width) for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = gain / torch.sqrt(variance + _BATCH_NORM_EPSILON)
        bias = weights.take(f"{name}.depthwise_conv.bias", width) if config.use_bias else torch.zeros_like(mean)
        depthwise = weights.take(f"{name}.depthwise_conv.weight", width, 1, kernel)
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


def _pointwise(weights: Weights, config: NetworkConfig, name: str, outputs: int) -> Linear:
    """Return a convolution over one frame, which is a product."""
    weight = weights.take(f"{name}.weight", outputs, config.d_model, 1)[..., 0]
    return Linear(weights, weight, weights.take(f"{name}.bias", outputs) if config.use_bias else None)
