"""The FastConformer encoder: subsampling, then layers that each look at all frames of a window."""

from torch import Tensor

from worker.adapters.parakeet.network.attention import relative_positions
from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.conformer_layer import ConformerLayer
from worker.adapters.parakeet.network.layout import PassLayout
from worker.adapters.parakeet.network.subsampling import Subsampling
from worker.adapters.parakeet.network.weights import Weights

LONGEST_WINDOW_FRAMES = 512
"""40.96 s at 80 ms a frame."""


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
