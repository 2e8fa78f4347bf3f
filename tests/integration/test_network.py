"""The network on a CPU: packed passes against lone windows, and a window's results in any company."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from tests.support.engines.network import frames_of, parts_of, tiny_transcriber
from worker.ports import Pcm

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.network.layout import SLOT_FRAMES, PassSizes  # noqa: E402  needs torch
from worker.adapters.parakeet.network.passes import (  # noqa: E402
    LonePasses,
    PackedPasses,
    PassLimit,
)
from worker.adapters.parakeet.network.tdt_decoder import DecoderRows  # noqa: E402
from worker.adapters.parakeet.network.transcriber import Encoded, FloatOverflow, Transcriber  # noqa: E402
from worker.adapters.parakeet.network.window_decoder import LEAST_ROWS, EncodedWindows  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

    from worker.adapters.parakeet.network.cuda import SideStream

pytestmark = pytest.mark.timeout(300)

SIZES = PassSizes(block=512, blocks=(1, 2, 4), gap=4, factor=8)


@pytest.fixture(scope="module")
def network() -> Transcriber:
    return tiny_transcriber()


@pytest.fixture(scope="module")
def windows(speech_windows: tuple[Pcm, ...]) -> tuple[Pcm, ...]:
    """Speech of many lengths: full windows, short ones, one shorter than a frame, and one of 40 s."""
    first, second, third, *others = speech_windows
    cuts = (first[:30_000], second[:1_000], third[:100], third[16_000:208_000])
    longest = np.concatenate((first, second))[: 40 * 16_000]
    return (first, second, *cuts, third, longest, *others)


def packed(network: Transcriber, windows: Sequence[Pcm]) -> "list[Tensor]":
    return frames_of(list(PackedPasses(parts_of(network), SIZES, PassLimit(4), None)(windows)))


def test_packed_windows_are_encoded_as_each_of_them_alone(network: Transcriber, windows: tuple[Pcm, ...]) -> None:
    alone = frames_of(list(LonePasses(parts_of(network))(windows)))

    together = packed(network, windows)

    assert [len(frames) for frames in together] == [len(frames) for frames in alone]
    for mine, other in zip(together, alone, strict=True):
        assert torch.allclose(mine, other, atol=1e-4), (mine - other).abs().max()


def test_a_packed_windows_frames_are_the_same_to_the_last_bit_in_slots_of_the_same_size(
    network: Transcriber, speech_windows: tuple[Pcm, ...]
) -> None:
    windows = [window[: 16_000 * (11 + 2 * number)] for number, window in enumerate(speech_windows)]
    together = packed(network, windows)

    alone = list(chain.from_iterable(packed(network, [window]) for window in windows))
    backwards = packed(network, windows[::-1])[::-1]

    assert all(SLOT_FRAMES[0] < len(frames) <= SLOT_FRAMES[1] for frames in together)
    assert all(map(torch.equal, together, alone))
    assert all(map(torch.equal, together, backwards))


def test_a_packed_windows_words_are_the_same_in_any_company(network: Transcriber, windows: tuple[Pcm, ...]) -> None:
    """Attention in slots of another size may change last bits: of the frames, not of what becomes of them."""

    def words(frames: "Sequence[Tensor]") -> list[list[tuple[str, float, float, float]]]:
        parts = [EncodedWindows(frames=one, starts=(0,), lengths=(len(one),)) for one in frames]
        seconds = tuple(len(window) / 16_000 for window in windows)
        (rows,) = network.decode([Encoded(seconds=seconds, parts=parts, terms=[None] * len(parts))])
        return [
            [(word.text, word.start_seconds, word.end_seconds, round(word.confidence, 3)) for word in row]
            for row in rows
        ]

    together = packed(network, windows)
    alone = list(chain.from_iterable(packed(network, [window]) for window in windows))
    backwards = packed(network, windows[::-1])[::-1]

    assert all(torch.allclose(mine, other, atol=1e-4) for mine, other in zip(together, alone, strict=True))
    assert words(together) == words(alone) == words(backwards)


def test_words_and_confidences_are_the_same_to_the_last_bit_in_any_company(
    network: Transcriber, windows: tuple[Pcm, ...]
) -> None:
    together = network(windows)

    assert tuple(network([window])[0] for window in windows) == together
    assert network(windows[::-1])[::-1] == together
    assert tuple(chain.from_iterable(network.decode([network.encode([one]) for one in windows]))) == together


def test_threads_do_not_change_words(network: Transcriber, windows: tuple[Pcm, ...]) -> None:
    assert tiny_transcriber(threads=2)(windows) == network(windows)


def test_more_windows_than_the_decoder_takes_at_once_are_decoded_in_groups(
    network: Transcriber, speech_windows: tuple[Pcm, ...]
) -> None:
    count = network.flow.decoded_windows + 3
    short = [window[: 16_000 * 2] for window in speech_windows]

    words = network([short[number % len(short)] for number in range(count)])

    expected = network(short)
    assert words == tuple(expected[number % len(short)] for number in range(count))


class Handover:
    """In place of the decoder's stream: notes when tensors are handed over and when they are taken."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def working(self) -> AbstractContextManager[None]:
        return nullcontext()

    def handed_over(self, tensors: "tuple[Tensor, ...]") -> "Iterator[tuple[Tensor, ...]]":
        self.did.append("handed over")
        return self._taken(tensors)

    def _taken(self, tensors: "tuple[Tensor, ...]") -> "Iterator[tuple[Tensor, ...]]":
        self.did.append("taken")
        yield tensors


def as_on_a_gpu(dtype: "torch.dtype") -> tuple[Transcriber, Handover]:
    network, handover = tiny_transcriber(), Handover()
    network._on_gpu, network._dtype, network._side = True, dtype, cast("SideStream", handover)
    return network, handover


def test_on_a_gpu_frames_are_handed_over_when_they_are_encoded_and_taken_when_they_are_decoded(
    speech_windows: tuple[Pcm, ...],
) -> None:
    network, handover = as_on_a_gpu(torch.float32)

    encoded = network.encode(speech_windows[:1])
    before = list(handover.did)
    words = network.decode([encoded])

    assert before == ["handed over"]
    assert handover.did == ["handed over", "taken"]
    assert words == [tiny_transcriber()(speech_windows[:1])]


def test_frames_that_leave_the_range_of_float16_are_an_error_that_names_the_setting(
    speech_windows: tuple[Pcm, ...],
) -> None:
    network, _ = as_on_a_gpu(torch.float16)
    network.decode([network.encode(speech_windows[:1])])
    frames = EncodedWindows(frames=torch.full((5, 128), torch.inf), starts=(0,), lengths=(5,))
    network._passes = cast("LonePasses", lambda _: [frames])

    encoded = network.encode(speech_windows[:1])

    with pytest.raises(FloatOverflow, match="GPU_PRECISION=bfloat16"):
        network.decode([encoded])


def test_a_window_without_a_frame_has_no_words(network: Transcriber) -> None:
    assert network([np.zeros(0, np.int16), np.zeros(159, np.int16)]) == ((), ())


def test_a_window_of_more_than_512_frames_is_refused(network: Transcriber) -> None:
    with pytest.raises(ValueError, match=r"longer than 40\.96"):
        network.encode([np.zeros(16_000 * 41, np.int16)])


def test_the_decoder_has_as_few_rows_as_leave_every_rows_steps_the_same(
    network: Transcriber, speech_windows: tuple[Pcm, ...]
) -> None:
    """Fewer rows than `LEAST_ROWS` may change the last bits; from there on their number must not."""
    frames = frames_of(list(LonePasses(parts_of(network))(speech_windows)))
    decoder = parts_of(network).decoder

    def steps_of(rows: int, place: int) -> "list[Tensor]":
        lengths = torch.zeros(rows, dtype=torch.int64)
        lengths[place] = len(frames[0])
        steps = decoder(DecoderRows(frames=frames[0], starts=torch.zeros_like(lengths), lengths=lengths))
        return [column[:, place] for column in steps]

    expected = steps_of(32, 0)
    for rows in range(LEAST_ROWS, 33):
        assert all(map(torch.equal, steps_of(rows, rows // 2), expected)), rows


def test_products_of_as_few_rows_as_the_decoder_has_do_not_depend_on_their_number() -> None:
    """The sizes of the 0.6B model's decoder; the tiny one's are seen above."""
    generator = torch.Generator().manual_seed(1)
    for inputs, outputs in ((640, 2560), (640, 640), (640, 1030)):
        x, weight = (torch.randn(count, inputs, generator=generator) for count in (64, outputs))
        whole = x @ weight.t()
        for rows in range(LEAST_ROWS, 64):
            for first in (0, 1, 64 - rows):
                assert torch.equal(x[first : first + rows] @ weight.t(), whole[first : first + rows]), (inputs, rows)
