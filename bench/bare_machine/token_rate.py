"""Random weights that emit about as many tokens a second as a model that has learned to."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.adapters.parakeet.loading.model_files import ModelFiles
from worker.adapters.parakeet.network.tdt_decoder import DecoderRows, TdtDecoder
from worker.adapters.parakeet.network.transcriber import Transcriber
from worker.adapters.parakeet.network.weights import Weights

TOKENS_PER_SECOND = 4.0
"""Pieces per second of English speech, with a vocabulary of 1,024."""

_MOST_BIAS = 64.0
_TRIALS = 12
_FRAMES = 64
"""Frames used of each window: while a trial emits too many tokens, every frame costs ten steps."""


@torch.inference_mode()
def with_token_rate(
    files: ModelFiles, windows: Sequence[NDArray[np.int16]], device: torch.device
) -> Mapping[str, Tensor]:
    """Return the weights with a bias of the blank label, found by bisection on the windows, and few durations of 0."""
    (name,) = (name for name in files.weights if name.startswith("joint.joint_net.") and name.endswith("bias"))
    bias = files.weights[name].clone()
    bias[files.config.n_labels] -= _MOST_BIAS
    rows = _rows(Transcriber(files, device, torch.float32), windows)
    seconds = float(rows.lengths.sum()) * files.config.frame_seconds
    low, high, start = -_MOST_BIAS, _MOST_BIAS, float(bias[files.config.blank])
    for _ in range(_TRIALS):
        middle = (low + high) / 2
        bias[files.config.blank] = start - middle
        weights = Weights({**files.weights, name: bias}, device, torch.float32)
        decoder = TdtDecoder(weights, files.config)
        if float(decoder(rows).emitted.sum()) / seconds > TOKENS_PER_SECOND:
            high = middle
        else:
            low = middle
    return {**files.weights, name: bias}


def _rows(transcriber: Transcriber, windows: Sequence[NDArray[np.int16]]) -> DecoderRows:
    frames: list[Tensor] = []
    starts: list[int] = []
    lengths: list[int] = []
    for part in transcriber.encode(windows).parts:
        starts += [sum(map(len, frames)) + start for start in part.starts]
        lengths += [min(length, _FRAMES) for length in part.lengths]
        frames.append(part.frames)
    device = frames[0].device
    return DecoderRows(
        frames=torch.cat(frames),
        starts=torch.tensor(starts, device=device),
        lengths=torch.tensor(lengths, device=device),
    )
