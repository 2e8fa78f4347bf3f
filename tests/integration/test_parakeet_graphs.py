"""What a CUDA graph asks of NeMo's encoder, and the way of a GPU's batches, shown without a GPU."""

import copy
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.support.engines.agreement import agreement_with_nemo
from tests.support.engines.parakeet import BATCH_SIZE
from worker.adapters.parakeet.buckets import BUCKETS_SAMPLES, bucket_of
from worker.embedded.samples import tiny_model as tiny_model_file
from worker.ports import SAMPLE_RATE_HZ, Pcm

torch = pytest.importorskip("torch")

from tests.support.engines.graph_recorder import WAITS_FOR_THE_DEVICE, Recorder  # noqa: E402
from tests.support.engines.operations import Watching  # noqa: E402  needs torch

if TYPE_CHECKING:
    from torch import Tensor

    from worker.adapters.parakeet.capture import Work
    from worker.adapters.parakeet.decoding import Steps
    from worker.adapters.parakeet.inference import WindowsToWords
    from worker.adapters.parakeet.loaded import LoadedModel

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # NeMo's are not ours to mend
]

GIB = 2**30
HOP_SAMPLES = SAMPLE_RATE_HZ // 100


@pytest.mark.parametrize("rows", [8, 160])
@pytest.mark.parametrize("samples", BUCKETS_SAMPLES)
def test_the_encoder_neither_looks_at_a_value_nor_takes_one_from_elsewhere(
    tiny_model: "LoadedModel", samples: int, rows: int
) -> None:
    encoder = copy.deepcopy(tiny_model.network.encoder).to("meta")
    features = torch.empty(rows, encoder._feat_in, samples // HOP_SAMPLES + 1, device="meta")
    lengths = torch.empty(rows, dtype=torch.int64, device="meta")

    with torch.inference_mode(), Watching() as watching:  # whoever asks for a value raises
        encoded, _ = encoder(audio_signal=features, length=lengths)

    assert encoded.is_meta
    assert watching.ran
    assert not watching.met_values


def test_decoding_waits_for_the_device_once_in_so_many_steps(
    tiny_model: "LoadedModel", speech_windows: tuple[Pcm, ...]
) -> None:
    from worker.adapters.parakeet.decoding import GreedyTdt  # noqa: PLC0415  torch
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415

    with torch.inference_mode():
        hear = WindowsToWords(tiny_model, BATCH_SIZE)
        encoded, lengths = hear._side_by_side([hear.encode(speech_windows[:BATCH_SIZE])])
        with Watching() as watching:
            steps = GreedyTdt(tiny_model.network, block_steps=8)(encoded, lengths)

    assert sum(watching.ran[name] for name in WAITS_FOR_THE_DEVICE) == len(steps.emitted) // 8 + 1


def encoder_output(model: "LoadedModel", windows: Sequence[Pcm]) -> "tuple[Tensor, Tensor]":
    """As the decoder is given it."""
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415  torch

    hear = WindowsToWords(model, BATCH_SIZE)
    with torch.inference_mode():
        return hear._side_by_side([hear.encode(windows)])


def same(steps: "Steps", others: "Steps") -> bool:
    return all(map(torch.equal, steps.columns, others.columns))


def test_decoding_by_way_of_a_recording_makes_the_same_steps_whatever_it_is_given(
    tiny_model: "LoadedModel", recorder: Recorder, speech_windows: tuple[Pcm, ...]
) -> None:
    from worker.adapters.parakeet.decoding import GreedyTdt  # noqa: PLC0415  torch

    decode, recording = (GreedyTdt(tiny_model.network, block_steps=8) for _ in range(2))
    given = [
        encoder_output(tiny_model, windows)
        for windows in (speech_windows[:BATCH_SIZE], speech_windows[-3:], [np.zeros(16_000, dtype=np.int16)])
    ]
    with capture_logs() as refused:
        recording.record(*given[0], recorder)
    before = recorder.repeated

    got = [recording(*one) for one in given]

    expected = [decode(*one) for one in given]
    assert not refused
    assert recording.is_recorded
    assert all(map(same, got, expected))
    assert recorder.repeated - before == sum(len(steps.emitted) for steps in expected) // 8


def test_decoding_of_another_shape_is_not_by_way_of_the_recording(
    tiny_model: "LoadedModel", recorder: Recorder, speech_windows: tuple[Pcm, ...]
) -> None:
    from worker.adapters.parakeet.decoding import GreedyTdt  # noqa: PLC0415  torch

    decode = GreedyTdt(tiny_model.network, block_steps=8)
    rows, lengths = encoder_output(tiny_model, speech_windows[:2])
    decode.record(rows, lengths, recorder)
    before = recorder.repeated

    steps = decode(rows[:2], lengths[:2])

    assert recorder.repeated == before
    assert steps.emitted.any()


def test_a_recording_of_decoding_that_is_wrong_is_refused(
    tiny_model: "LoadedModel", recorder: Recorder, speech_windows: tuple[Pcm, ...]
) -> None:
    from worker.adapters.parakeet.decoding import GreedyTdt  # noqa: PLC0415  torch

    def wrong_in_the_last_bit(work: "Work") -> "Work":
        def repeat() -> "tuple[Tensor, ...]":
            *others, confidences = recorded()
            return *others, torch.nextafter(confidences, torch.tensor(2.0))

        recorded = recorder(work)
        return repeat

    decode = GreedyTdt(tiny_model.network, block_steps=8)
    rows, lengths = encoder_output(tiny_model, speech_windows[:2])
    expected = decode(rows, lengths)

    with capture_logs() as refused:
        decode.record(rows, lengths, wrong_in_the_last_bit)

    assert [event["event"] for event in refused] == ["engine.graph_refused"]
    assert not decode.is_recorded
    assert same(decode(rows, lengths), expected)


def test_warming_up_a_gpu_records_the_decoders_steps(
    tiny_model: "LoadedModel", recorder: Recorder, monkeypatch: pytest.MonkeyPatch, speech_windows: tuple[Pcm, ...]
) -> None:
    from worker.adapters.parakeet import inference  # noqa: PLC0415  torch

    monkeypatch.setattr(inference, "CudaCapture", lambda: recorder)
    hear = inference.WindowsToWords(tiny_model, BATCH_SIZE)
    with capture_logs() as refused:
        hear._warm_up_decoding()
    before = recorder.repeated

    tokens = hear.tokens(speech_windows[:BATCH_SIZE])

    assert not refused
    assert recorder.repeated > before
    assert tokens == inference.WindowsToWords(tiny_model, BATCH_SIZE).tokens(speech_windows[:BATCH_SIZE])


def as_on_a_gpu(model: "LoadedModel") -> "WindowsToWords":
    """In fixed rows of a fixed length, but without a device's graphs."""
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415  torch
    from worker.adapters.parakeet.padded import PaddedWindows  # noqa: PLC0415

    hear = WindowsToWords(model, BATCH_SIZE)
    hear._whole, hear._padded = None, PaddedWindows(model, BATCH_SIZE)
    return hear


def test_the_host_sends_windows_on_their_way_without_waiting_for_the_device(
    tiny_model: "LoadedModel", speech_windows: tuple[Pcm, ...]
) -> None:
    hear = as_on_a_gpu(tiny_model)

    with Watching() as watching:
        hear.encode(speech_windows[:BATCH_SIZE])

    assert watching.ran
    assert not WAITS_FOR_THE_DEVICE & watching.ran.keys()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def recorded(tiny_model: "LoadedModel", recorder: Recorder, speech_windows: tuple[Pcm, ...]) -> "WindowsToWords":
    """Has a recording for the windows of speech."""
    hear = as_on_a_gpu(tiny_model)
    bucket = bucket_of(len(speech_windows[0]))
    with capture_logs() as refused:
        hear._padded._encoder.record({bucket: BATCH_SIZE}, hear._padded._noise, recorder, lambda: True)
    assert not refused
    return hear


def test_tokens_by_way_of_a_recording_are_the_same(
    recorded: "WindowsToWords", tiny_model: "LoadedModel", recorder: Recorder, speech_windows: tuple[Pcm, ...]
) -> None:
    before = recorder.repeated

    tokens = recorded.tokens(speech_windows[: BATCH_SIZE - 1])

    assert recorder.repeated == before + 1
    assert tokens == as_on_a_gpu(tiny_model).tokens(speech_windows[: BATCH_SIZE - 1])
    assert all(tokens)


def test_recordings_give_their_memory_back_when_a_batch_does_not_fit(
    recorded: "WindowsToWords", tiny_model: "LoadedModel", recorder: Recorder, speech_windows: tuple[Pcm, ...]
) -> None:
    recorder.full = True

    tokens = recorded.tokens(speech_windows[:BATCH_SIZE])

    assert not recorded._padded._encoder.recorded
    assert recorded._padded._rows.of(bucket_of(len(speech_windows[0]))) == BATCH_SIZE // 2
    expected = as_on_a_gpu(tiny_model).tokens(speech_windows[:BATCH_SIZE])
    assert [[token.piece for token in row] for row in tokens] == [[token.piece for token in row] for row in expected]


class Memory:
    """What `torch.cuda` tells of a device of 8 GiB; each row takes one, and so does each recording."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reserved_gib: float) -> None:
        self.reserved_gib, self.most_gib = reserved_gib, reserved_gib + 1
        answers = {
            "empty_cache": lambda: None,
            "get_device_properties": lambda _: SimpleNamespace(total_memory=16 * GIB),
            "get_per_process_memory_fraction": lambda _: 0.5,
            "max_memory_allocated": lambda _: int(self.most_gib * GIB),
            "memory_allocated": lambda _: int(self.reserved_gib * GIB),
            "memory_reserved": lambda _: int(self.reserved_gib * GIB),
            "reset_peak_memory_stats": lambda _: None,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        for name in ("zeros", "full"):  # pinned memory is a device's business
            monkeypatch.setattr(torch, name, partial(_unpinned, getattr(torch, name)))

    def capture(self, work: "Work") -> "Work":
        self.reserved_gib += 1
        return Recorder()(work)


def _unpinned(make: Any, *args: Any, **options: Any) -> "Tensor":
    return make(*args, **options | {"pin_memory": False})


@pytest.mark.parametrize(
    ("reserved_gib", "rows", "recorded"),
    [
        # Of 6 GiB, rows of the longer take 2: after its recording 5 are left, after the other 4.
        (2.0, 2, BUCKETS_SAMPLES[:2]),
        # Of 3.5 GiB 2.5 are left, and then 1.5: too little for rows that are not recorded.
        (4.5, 2, BUCKETS_SAMPLES[1:2]),
        (5.5, 2, ()),
        # Of 2 GiB a row may take 1, and 1 is left: no more than that row takes.
        (6.0, 1, ()),
    ],
)
def test_warming_up_a_gpu_records_what_leaves_room_for_rows_that_are_not_recorded(
    tiny_model: "LoadedModel",
    monkeypatch: pytest.MonkeyPatch,
    reserved_gib: float,
    rows: int,
    recorded: tuple[int, ...],
) -> None:
    from worker.adapters.parakeet import padded  # noqa: PLC0415  torch

    memory = Memory(monkeypatch, reserved_gib)
    monkeypatch.setattr(padded, "BUCKETS_SAMPLES", BUCKETS_SAMPLES[:2])
    monkeypatch.setattr(padded, "CudaCapture", lambda: memory.capture)
    encoder = padded.PaddedWindows(tiny_model, 2)

    encoder.warm_up(reserved_bytes=0)

    assert [encoder._rows.of(samples) for samples in BUCKETS_SAMPLES[:2]] == [rows, rows]
    assert encoder._encoder.recorded == {(samples, rows) for samples in recorded}


def test_what_decoding_needs_is_left_free_and_no_graph_is_recorded_that_nobody_wants(
    tiny_model: "LoadedModel", monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.adapters.parakeet import padded  # noqa: PLC0415  torch

    Memory(monkeypatch, reserved_gib=2.0)
    monkeypatch.setattr(padded, "BUCKETS_SAMPLES", BUCKETS_SAMPLES[:2])
    encoder = padded.PaddedWindows(tiny_model, 2, graphs=False)

    encoder.warm_up(reserved_bytes=4 * GIB)

    assert [encoder._rows.of(samples) for samples in BUCKETS_SAMPLES[:2]] == [1, 1]
    assert not encoder._encoder.recorded


def test_a_window_of_a_single_frame_is_heard_as_silence(
    tiny_model: "LoadedModel", speech_windows: tuple[Pcm, ...]
) -> None:
    hear = as_on_a_gpu(tiny_model)
    speck = np.full(2 * HOP_SAMPLES - 1, 1000, dtype=np.int16)

    features, frames = hear._padded._features((speck, speech_windows[0]), BATCH_SIZE, bucket_of(len(speech_windows[0])))
    tokens = hear.tokens((speck, speech_windows[0]))

    assert frames[0] == 1
    assert not features[0].any()
    assert tokens[0] == []
    assert tokens[1] == hear.tokens((speech_windows[0],))[0]


def test_what_compares_tokens_on_a_gpu_finds_those_of_the_cpu_equal(speech_windows: tuple[Pcm, ...]) -> None:
    agreed = agreement_with_nemo(tiny_model_file(), speech_windows[:3], device="cpu", dtype=torch.float32)

    assert agreed.windows == 3
    assert agreed.tokens > 100
    assert agreed.wrong_tokens == 0
