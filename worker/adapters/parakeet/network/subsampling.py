"""Subsampling: strided convolutions that make one encoder frame of every `factor` spectrogram frames.

The first convolution is a plain one; each of the others is depthwise, followed by a product over the channels. Features
lie as (rows, bands, channels), which convolutions on a CPU like four times better than channels first.
"""

import torch
import torch.nn.functional as F  # noqa: N812  torch's own custom
from torch import Tensor

from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.layout import PassLayout, Stretch
from worker.adapters.parakeet.network.weights import Linear, Weights

_KERNEL = 3


class Subsampling:
    """Log-mel features to the input of the first layer."""

    def __init__(self, weights: Weights, config: NetworkConfig) -> None:
        channels, levels = config.subsampling_channels, config.subsampling_factor.bit_length() - 2
        name = "encoder.pre_encode"
        self._first = _convolution(weights, f"{name}.conv.0", channels, 1)
        self._depthwise, self._pointwise = [], []
        for level in range(levels):
            index = 2 + 3 * level  # a ReLU precedes each pair
            self._depthwise.append(_convolution(weights, f"{name}.conv.{index}", channels, 1))
            weight = weights.take(f"{name}.conv.{index + 1}.weight", channels, channels, 1, 1)
            bias = weights.take(f"{name}.conv.{index + 1}.bias", channels)
            self._pointwise.append(Linear(weights, weight[..., 0, 0], bias))
        bands = config.n_mels
        for _ in range(levels + 1):
            bands = (bands - 1) // 2 + 1
        # NeMo flattens channels before bands; here they lie the other way round.
        out = weights.take(f"{name}.out.weight", config.d_model, channels * bands).view(-1, channels, bands)
        scale = config.d_model**0.5 if config.xscaling else 1.0
        bias = weights.take(f"{name}.out.bias", config.d_model)
        self._out = Linear(weights, out.transpose(1, 2).flatten(1) * scale, bias * scale)

    def __call__(self, features: Tensor, layout: PassLayout) -> Tensor:
        """Return (frames, width) for features of shape (spectrogram rows, bands) as the layout's stretches want."""
        parts = [self._subsample(features[one.rows], one) for one in layout.stretches]
        return torch.cat(parts)[: layout.frames] if len(parts) > 1 else parts[0][: layout.frames]

    def _subsample(self, features: Tensor, stretch: Stretch) -> Tensor:
        x = _convolve(features[:, :, None], self._first, groups=1).relu_()
        for depthwise, pointwise, edges in zip(self._depthwise, self._pointwise, stretch.edges, strict=True):
            x.index_fill_(0, edges, 0.0)
            x = _convolve(x, depthwise, groups=x.shape[2])
            x = pointwise(x.flatten(0, 1), x.shape[0] * x.shape[1]).view(x.shape).relu_()
        return self._out(x[stretch.lead_frames :].flatten(1), len(x))


def _convolution(weights: Weights, name: str, channels: int, inputs: int) -> tuple[Tensor, Tensor]:
    kernel = weights.take(f"{name}.weight", channels, inputs, _KERNEL, _KERNEL)
    return weights.place(kernel), weights.place(weights.take(f"{name}.bias", channels))


def _convolve(x: Tensor, convolution: tuple[Tensor, Tensor], groups: int) -> Tensor:
    """Return every second row and band of a convolution over (rows, bands, channels)."""
    kernel, bias = convolution
    convolved = F.conv2d(x[None].permute(0, 3, 1, 2), kernel, bias, stride=2, padding=_KERNEL // 2, groups=groups)
    return convolved.permute(0, 2, 3, 1)[0].contiguous()
