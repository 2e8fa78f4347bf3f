"""Windows at their own length, without padding and masks: NeMo's tokens all the same."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from schemas.speech import Word
from tests.support.engines.parakeet import BATCH_SIZE, TINY_OPTIONS, quiet
from worker.ports import Pcm

if TYPE_CHECKING:
    from worker.adapters.parakeet.inference import WindowsToWords
    from worker.adapters.parakeet.loaded import LoadedModel

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # NeMo's are not ours to mend
]


@pytest.fixture(scope="module")
def hear(tiny_model: "LoadedModel") -> "WindowsToWords":
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415  torch

    return WindowsToWords(tiny_model, BATCH_SIZE)


def plain(words: tuple[Word, ...]) -> list[tuple[str, float, float]]:
    return [(word.text, word.start_seconds, word.end_seconds) for word in words]


def test_tokens_are_those_of_nemos_own_transcribe_on_a_model_of_its_own(
    hear: "WindowsToWords", speech_windows: tuple[Pcm, ...]
) -> None:
    from bench.parakeet.nemo import Nemo  # noqa: PLC0415  torch
    from worker.adapters.parakeet.model import load_model  # noqa: PLC0415  torch

    with quiet():
        theirs = Nemo(load_model(TINY_OPTIONS)[0].network).windows(speech_windows, 1)

    ours = [[token.piece for token in hear.tokens([window])[0]] for window in speech_windows]

    assert sum(map(len, theirs)) > 300
    assert ours == theirs


def test_with_one_thread_windows_are_encoded_at_once_so_that_more_may_come_before_they_are_decoded(
    tiny_model: "LoadedModel", speech_windows: tuple[Pcm, ...]
) -> None:
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415  torch

    stages: list[str] = []
    hear = WindowsToWords(tiny_model, BATCH_SIZE, lap=stages.append)

    encoded = hear.encode(speech_windows[:2])

    assert stages == ["mel", "encoder", "mel", "encoder"]
    assert hear.decode([encoded]) == [hear(speech_windows[:2])]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 12, 16])
def test_windows_are_not_decoded_while_another_full_batch_would_still_fit_in(
    tiny_model: "LoadedModel", batch_size: int
) -> None:
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415  torch

    hear = WindowsToWords(tiny_model, batch_size)

    assert hear.windows_ahead - 1 + batch_size <= hear.decoded_windows < hear.windows_ahead + batch_size


def test_padded_rows_as_a_gpu_takes_them_give_the_same_words(
    tiny_model: "LoadedModel", hear: "WindowsToWords", speech_windows: tuple[Pcm, ...]
) -> None:
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415  torch

    padded = WindowsToWords(tiny_model, BATCH_SIZE)
    padded._whole = None

    for window in speech_windows:
        assert plain(padded([window])[0]) == plain(hear([window])[0])


def test_windows_heard_side_by_side_are_heard_bit_for_bit_the_same(
    tiny_model: "LoadedModel", hear: "WindowsToWords", speech_windows: tuple[Pcm, ...]
) -> None:
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415  torch

    side_by_side = WindowsToWords(tiny_model, BATCH_SIZE, threads=3)

    for first in range(0, len(speech_windows), BATCH_SIZE):
        windows = speech_windows[first : first + BATCH_SIZE]
        assert side_by_side(windows) == hear(windows)


@pytest.mark.parametrize("samples", [1, 159, 160, 320, 1_279, 1_281, 5_000])
def test_a_window_of_next_to_nothing_is_heard_as_nothing(hear: "WindowsToWords", samples: int) -> None:
    noise = np.random.default_rng(0).integers(-300, 300, samples).astype(np.int16)

    assert hear([noise]) == ((),)


def test_convolutions_meet_few_shapes_since_each_takes_memory_for_good(hear: "WindowsToWords") -> None:
    shapes = set()
    assert hear._whole
    convolution = hear._whole._encoder.pre_encode.conv[0]
    hook = convolution.register_forward_hook(lambda _module, seen, _answer: shapes.add(seen[0].shape))
    try:
        for samples in range(16_000, 32_000, 500):
            hear([np.zeros(samples, np.int16)])
    finally:
        hook.remove()

    assert len(shapes) == 3


def test_an_encoder_that_looks_at_a_part_of_the_window_goes_nemos_way(tiny_model: "LoadedModel") -> None:
    from worker.adapters.parakeet.whole import WholeWindows  # noqa: PLC0415  torch

    encoder = tiny_model.network.encoder
    before = encoder.att_context_size
    try:
        encoder.att_context_size = [128, 128]

        assert WholeWindows.of(tiny_model.network) is None
    finally:
        encoder.att_context_size = before
    assert WholeWindows.of(tiny_model.network) is not None
