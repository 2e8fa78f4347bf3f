"""The network against NeMo: the same features, encoder output, tokens, frames and durations from the same weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.engines.network import frames_of, parts_of, tiny_transcriber
from tests.support.engines.parakeet import quiet
from worker.embedded.samples import tiny_model
from worker.ports import SAMPLE_RATE_HZ, Pcm

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.loading.model_files import open_model_files  # noqa: E402  needs torch
from worker.adapters.parakeet.network.passes import LonePasses  # noqa: E402
from worker.adapters.parakeet.network.transcriber import Transcriber  # noqa: E402

pytestmark = [
    pytest.mark.long,
    pytest.mark.model,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # NeMo's are not ours to mend
]

CPU = torch.device("cpu")
LAYERS = 2
"""Layers instead of the 0.6B network's 24; with all of them see `python -m bench.inference --weights random-0.6b`."""


def restored(path: Path) -> Any:
    with quiet():
        from worker.adapters.parakeet.reference import restore  # noqa: PLC0415  NeMo: 10 s

        return restore(path, CPU, torch.float32)


@pytest.fixture(scope="module")
def nemo() -> Any:
    """The tiny model as NeMo restores it."""
    return restored(tiny_model())


@pytest.fixture(scope="module")
def network() -> Transcriber:
    return tiny_transcriber()


@pytest.fixture(scope="module")
def windows(speech_windows: tuple[Pcm, ...]) -> tuple[Pcm, ...]:
    """Speech of many lengths, the shortest of three frames."""
    first, second, third, *others = speech_windows
    longest = np.concatenate((second, third))[: 39 * SAMPLE_RATE_HZ]
    return (first, second[:4_000], third[16_000:75_000], longest, *others)


def nemos_output(nemo: Any, window: Pcm) -> "tuple[torch.Tensor, torch.Tensor]":
    wave = torch.from_numpy(window.astype(np.float32) / 32_768)[None]
    features, frames = nemo.preprocessor(input_signal=wave, length=torch.tensor([len(window)]))
    encoded, lengths = nemo.encoder(audio_signal=features, length=frames)
    return encoded, lengths


def nemos_tokens(nemo: Any, window: Pcm) -> tuple[list[int], list[int], list[int]]:
    """Labels, frames and durations, one window at a time: in a batch NeMo 3.0 mixes up durations of neighbours."""
    from omegaconf import open_dict  # noqa: PLC0415  comes with NeMo

    decoding = nemo.cfg.decoding.copy()
    with open_dict(decoding):
        decoding.tdt_include_token_duration = True
    nemo.change_decoding_strategy(decoding, verbose=False)
    encoded, lengths = nemos_output(nemo, window)
    (found,) = nemo.decoding.rnnt_decoder_predictions_tensor(encoded, lengths, return_hypotheses=True)
    return tuple([int(one) for one in values] for values in (found.y_sequence, found.timestamp, found.token_duration))


def tokens_of(network: Transcriber, windows: Sequence[Pcm], pieces: Sequence[str]) -> list[tuple[list[int], ...]]:
    label = {piece: number for number, piece in enumerate(pieces)}
    return [
        ([label[one.piece] for one in row], [one.frame for one in row], [one.frames for one in row])
        for row in network.tokens(windows)
    ]


def test_features_are_nemos(nemo: Any, network: Transcriber, windows: tuple[Pcm, ...]) -> None:
    for window in windows:
        wave = torch.from_numpy(window.astype(np.float32) / 32_768)[None]
        theirs, _ = nemo.preprocessor(input_signal=wave, length=torch.tensor([len(window)]))

        ours = parts_of(network).log_mel(torch.from_numpy(window))

        torch.testing.assert_close(ours.t(), theirs[0, :, : len(ours)], rtol=0, atol=2e-5)


def test_the_encoders_output_is_nemos(nemo: Any, network: Transcriber, windows: tuple[Pcm, ...]) -> None:
    ours = frames_of(list(LonePasses(parts_of(network))(windows)))

    for window, frames in zip(windows, ours, strict=True):
        encoded, lengths = nemos_output(nemo, window)
        theirs = nemo.joint.enc(encoded[0, :, : int(lengths)].t())
        torch.testing.assert_close(frames, theirs, rtol=0, atol=1e-4)


def test_tokens_frames_and_durations_are_nemos(nemo: Any, network: Transcriber, windows: tuple[Pcm, ...]) -> None:
    ours = tokens_of(network, windows, nemo.tokenizer.ids_to_tokens(list(range(nemo.decoder.blank_idx))))

    assert sum(len(labels) for labels, *_ in ours) > 500
    assert ours == [nemos_tokens(nemo, window) for window in windows]


def test_texts_are_those_of_nemos_transcribe(network: Transcriber, speech_windows: tuple[Pcm, ...]) -> None:
    waves = [window.astype(np.float32) / 32_768 for window in speech_windows]

    theirs = restored(tiny_model()).transcribe(waves, batch_size=1, verbose=False)  # which leaves it in training

    assert [hypothesis.text for hypothesis in theirs] == [
        " ".join(word.text for word in words) for words in network(speech_windows)
    ]


def test_tokens_of_random_weights_shaped_as_those_of_the_real_model_are_nemos(
    tmp_path: Path, windows: tuple[Pcm, ...]
) -> None:
    from bench.bare_machine.random_model import write_model  # noqa: PLC0415  torch

    path = tmp_path / "random.nemo"
    write_model(path, layers=LAYERS, tuned_on=(windows[:1], CPU))
    nemo, files = restored(path), open_model_files(path)
    network = Transcriber(files, CPU, torch.float32)

    ours = tokens_of(network, windows, files.pieces)

    assert sum(len(labels) for labels, *_ in ours) > 100
    assert ours == [nemos_tokens(nemo, window) for window in windows]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_arithmetic_of_a_gpu_gives_nearly_the_same_words(
    network: Transcriber, windows: tuple[Pcm, ...], precision: str
) -> None:
    from tests.support.engines.network import tiny_files  # noqa: PLC0415

    short = Transcriber(tiny_files(), CPU, getattr(torch, precision))

    words = short(windows[:1])

    heard, expected = ({word.text for word in one[0]} for one in (words, network(windows[:1])))
    assert len(heard & expected) > 0.9 * len(expected)
