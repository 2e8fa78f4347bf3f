"""The tiny model through NeMo's modules: exact repetition, and NeMo as the reference."""

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from schemas.speech import Word
from tests.support.engines.parakeet import BATCH_SIZE, TINY_OPTIONS, quiet
from worker.ports import SAMPLE_RATE_HZ, Pcm

if TYPE_CHECKING:
    from worker.adapters.parakeet.inference import WindowsToWords
    from worker.adapters.parakeet.loaded import LoadedModel

MORE_THAN_ARE_DECODED_AT_ONCE = 6
"""Times the eight windows of speech: 32 are decoded at once."""

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # NeMo's are not ours to mend
]


@pytest.fixture(scope="module")
def hear(tiny_model: "LoadedModel") -> "WindowsToWords":
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415  torch

    return WindowsToWords(tiny_model, BATCH_SIZE)


@pytest.fixture(scope="module")
def alone(hear: "WindowsToWords", speech_windows: tuple[Pcm, ...]) -> list[tuple[Word, ...]]:
    return [hear([window])[0] for window in speech_windows]


def text_of(words: tuple[Word, ...]) -> str:
    return " ".join(word.text for word in words)


def test_words_times_and_confidences_are_exactly_the_same_in_any_company(
    hear: "WindowsToWords", speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]]
) -> None:
    rng = random.Random(1)

    for _ in range(8):
        company = rng.sample(range(len(speech_windows)), rng.randint(1, BATCH_SIZE))

        words = hear([speech_windows[number] for number in company])

        assert words == tuple(alone[number] for number in company)


def test_words_are_exactly_the_same_however_many_batches_are_decoded_as_one(
    hear: "WindowsToWords", speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]]
) -> None:
    batches = [speech_windows[:1], speech_windows[1:4], speech_windows[4:]]

    begun = [hear.encode(windows) for windows in batches]
    words = hear.decode(begun)

    assert [len(one) for one in words] == [len(one) for one in batches]
    assert [one for batch in words for one in batch] == alone


def test_a_window_is_heard_exactly_the_same_among_shorter_and_longer_ones(
    hear: "WindowsToWords", speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]]
) -> None:
    short, long = speech_windows[1][: 3 * SAMPLE_RATE_HZ], np.concatenate(speech_windows[2:4])[: 39 * SAMPLE_RATE_HZ]

    words = hear((short, speech_windows[0], long))

    assert hear.mixes_lengths
    assert words[1] == alone[0]


def test_tokens_frames_and_durations_are_those_of_nemos_own_decoding(
    hear: "WindowsToWords", tiny_model: "LoadedModel", speech_windows: tuple[Pcm, ...]
) -> None:
    _let_nemo_tell_durations(tiny_model.network)
    windows = speech_windows[:BATCH_SIZE]

    encoded, lengths = hear._side_by_side([hear.encode(windows)])
    ours = hear._decode(encoded, lengths)

    for row in range(len(windows)):
        emitted = ours.emitted[:, row]
        # One window at a time: in a batch NeMo 3.0 mixes up the durations of neighbours.
        (theirs,) = tiny_model.network.decoding.rnnt_decoder_predictions_tensor(
            encoded[row : row + 1].transpose(1, 2), lengths[row : row + 1], return_hypotheses=True
        )
        assert ours.labels[emitted, row].tolist() == _list(theirs.y_sequence)
        assert ours.frames[emitted, row].tolist() == _list(theirs.timestamp)
        assert ours.durations[emitted, row].tolist() == _list(theirs.token_duration)


def _let_nemo_tell_durations(network: Any) -> None:
    from omegaconf import open_dict  # noqa: PLC0415  comes with NeMo

    decoding = network.cfg.decoding.copy()
    with open_dict(decoding):
        decoding.tdt_include_token_duration = True
    network.change_decoding_strategy(decoding, verbose=False)


def _list(values: Any) -> list[int]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def test_texts_are_those_of_nemos_transcribe(speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]]) -> None:
    from worker.adapters.parakeet.model import load_model  # noqa: PLC0415  torch

    waves = [window.astype(np.float32) / 32768 for window in speech_windows]

    with quiet():  # on a model of its own: afterwards NeMo leaves it in training
        hypotheses = load_model(TINY_OPTIONS)[0].network.transcribe(waves, batch_size=1, verbose=False)

    assert [hypothesis.text for hypothesis in hypotheses] == [text_of(words) for words in alone]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_arithmetic_of_a_gpu_hears_nearly_the_same(
    speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]], precision: str
) -> None:
    import torch  # noqa: PLC0415

    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415
    from worker.adapters.parakeet.loaded import LoadedModel  # noqa: PLC0415
    from worker.adapters.parakeet.model import load_model, settle  # noqa: PLC0415

    network = load_model(TINY_OPTIONS)[0].network
    dtype = getattr(torch, precision)
    settle(network, torch.device("cpu"), dtype)
    model = LoadedModel(network=network, device=torch.device("cpu"), dtype=dtype)

    (words,) = WindowsToWords(model, BATCH_SIZE)(speech_windows[:1])

    heard, expected = text_of(words).split(), text_of(alone[0]).split()
    assert len(set(heard) & set(expected)) > 0.9 * len(set(expected))
