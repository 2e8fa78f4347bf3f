"""The network against an independent one: transformers' `ParakeetForTDT`, of the same random weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines.network import frames_of, parts_of
from worker.ports import SAMPLE_RATE_HZ, Pcm

torch = pytest.importorskip("torch")

from tests.support.engines.safetensors_models import random_model  # noqa: E402  needs torch
from worker.adapters.parakeet.loading.model_files import open_model_files  # noqa: E402
from worker.adapters.parakeet.network.passes import LonePasses  # noqa: E402
from worker.adapters.parakeet.network.transcriber import Transcriber  # noqa: E402

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # transformers' are not ours to mend

SHAPES: dict[str, dict[str, Any]] = {
    "as parakeet-tdt-0.6b": {"num_mel_bins": 128},
    "with biases and scaled input": {
        "attention_bias": True,
        "convolution_bias": True,
        "scale_input": True,
        "conv_kernel_size": 5,
    },
}


class Pair:
    """Both networks, and transformers' features of a window."""

    def __init__(self, folder: Path, shape: dict[str, Any]) -> None:
        from transformers import ParakeetFeatureExtractor  # noqa: PLC0415  # seconds

        self.theirs = random_model(folder, seed=5, **shape)
        self.ours = Transcriber(open_model_files(folder), torch.device("cpu"), torch.float32)
        self._extract = ParakeetFeatureExtractor.from_pretrained(folder)

    def inputs(self, window: Pcm) -> Any:
        wave = torch.from_numpy(window).float() / 32_768
        return self._extract(wave.numpy(), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES.keys())
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def windows(speech_windows: tuple[Pcm, ...]) -> Sequence[Pcm]:
    return [speech_windows[0], speech_windows[1][: 5 * SAMPLE_RATE_HZ + 77]]


@torch.inference_mode()
def test_logits_are_those_of_transformers(pair: Pair, windows: Sequence[Pcm]) -> None:
    decoder = parts_of(pair.ours).decoder
    blank = torch.tensor([[pair.theirs.config.blank_token_id]])

    for window, frames in zip(windows, frames_of(list(LonePasses(parts_of(pair.ours))(windows))), strict=True):
        theirs = pair.theirs(**pair.inputs(window), decoder_input_ids=blank).logits[0]

        prediction, _ = decoder._predict(blank[0], (torch.zeros(1, 32),) * 4)
        ours = decoder._in_float32(torch.relu(frames + prediction))

        assert torch.allclose(ours, theirs[: len(ours)], atol=1e-4), (ours - theirs[: len(ours)]).abs().max()
        assert theirs.std() > 0.01


@torch.inference_mode()
def test_tokens_frames_and_durations_are_those_of_transformers(pair: Pair, windows: Sequence[Pcm]) -> None:
    blank = pair.theirs.config.blank_token_id
    pieces = [f"▁w{number}" for number in range(blank)]

    for window, ours in zip(windows, pair.ours.tokens(windows), strict=True):
        heard = pair.theirs.generate(**pair.inputs(window), decoder_start_token_id=blank)

        labels, durations = heard.sequences[0, 1:].tolist(), heard.durations[0, 1:].tolist()
        frames = [sum(durations[:step]) for step in range(len(durations))]
        theirs = [
            (pieces[label], frame, duration)
            for label, frame, duration in zip(labels, frames, durations, strict=True)
            if label != blank
        ]
        assert len({label for label, _, _ in theirs}) > 2
        assert [(token.piece, token.frame, token.frames) for token in ours] == theirs
