"""The demands of a CUDA graph on the network, without a GPU: on tensors without values, and by a strict recorder."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.engines.network import frames_of, parts_of, tiny_files, tiny_transcriber
from tests.support.engines.parakeet_config import with_option
from worker.adapters.parakeet.network.config import NetworkConfig, network_config
from worker.ports import Pcm

torch = pytest.importorskip("torch")

from bench.bare_machine.weight_shapes import weight_shapes  # noqa: E402
from tests.support.engines.graph_recorder import WAITS_FOR_THE_DEVICE, Recorder  # noqa: E402  needs torch
from tests.support.engines.operations import Products, Watching  # noqa: E402
from worker.adapters.parakeet.network.boosting import Boost  # noqa: E402
from worker.adapters.parakeet.network.cuda import RecordedPasses  # noqa: E402
from worker.adapters.parakeet.network.layout import PassShape, PassSizes  # noqa: E402
from worker.adapters.parakeet.network.passes import (  # noqa: E402
    LonePasses,
    PackedPasses,
    Parts,
    PassLimit,
    new_features,
    run_pass,
)
from worker.adapters.parakeet.network.tdt_decoder import DecoderRows, Steps, TdtDecoder  # noqa: E402
from worker.adapters.parakeet.network.weights import Weights  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

    from worker.adapters.parakeet.network.cuda import Work

pytestmark = pytest.mark.timeout(300)

SIZES = PassSizes(block=512, blocks=(1, 2, 4), gap=4, factor=8)


def parts_without_values(config: NetworkConfig, dtype: "torch.dtype") -> Parts:
    zeros = {name: torch.zeros(()).expand(shape) for name, shape in weight_shapes(config)}
    return Parts.of(config, Weights(zeros, torch.device("meta"), dtype))


@pytest.fixture(scope="module", params=["tiny", "0.6B-shaped"])
def meta(request: pytest.FixtureRequest) -> Parts:
    """The tiny network in float32, and one layer of the 0.6B network in float16, on tensors without values."""
    if request.param == "tiny":
        return parts_without_values(tiny_files().config, torch.float32)
    return parts_without_values(network_config(with_option("encoder.n_layers", 1)), torch.float16)


@pytest.mark.parametrize(
    ("frames", "slots", "slot_frames"), [(512, 2, 384), (512, 6, 128), (1024, 3, 512), (2048, 8, 384), (2048, 9, 512)]
)
def test_a_pass_neither_reads_a_value_nor_takes_one_from_elsewhere(
    meta: Parts, frames: int, slots: int, slot_frames: int
) -> None:
    shape = PassShape(frames=frames, block=512, slots=slots, slot_frames=slot_frames, gap=4, factor=8)
    plan = torch.empty(shape.plan_size, dtype=torch.int64, device="meta")
    features = new_features(meta, shape)

    with torch.inference_mode(), Watching() as watching:  # reading a value raises
        projected = run_pass(meta, shape, features, plan)

    assert projected.is_meta
    assert projected.shape == (frames, meta.config.d_joint)
    assert watching.ran
    assert not watching.met_values


def test_products_of_a_pass_have_even_sizes_of_its_block(meta: Parts) -> None:
    """On a GPU matrix products of odd sizes, or of odd strides, take slow kernels."""
    shape = PassShape(frames=1024, block=512, slots=4, slot_frames=384, gap=4, factor=8)
    plan = torch.empty(shape.plan_size, dtype=torch.int64, device="meta")

    with torch.no_grad(), Products() as products:
        run_pass(meta, shape, new_features(meta, shape), plan)

    assert len(products.matrices) > 20
    # The number of rows is nothing that a stride depends on.
    odd = [matrix for matrix in products.matrices if any(number != 1 and number % 8 for number in matrix[1:])]
    assert odd == []


def test_features_need_no_value_either(meta: Parts) -> None:
    samples = torch.empty(29 * 16_000, dtype=torch.int16, device="meta")

    with torch.no_grad(), Watching() as watching:
        features = meta.log_mel(samples)

    assert features.shape == (2900, meta.config.n_mels)
    assert watching.ran["aten._fft_r2c.default"] == 1
    assert not watching.met_values


def recorded_passes(parts: Parts, recorder: Recorder, reported: list[str]) -> RecordedPasses:
    def blank(shape: PassShape) -> "tuple[Tensor, Tensor]":
        return new_features(parts, shape), torch.zeros(shape.plan_size, dtype=torch.int64)

    def report(event: str, /, **_: object) -> None:
        reported.append(event)

    return RecordedPasses(partial(run_pass, parts), blank, lambda: recorder, lambda: True, report)


def test_frames_by_way_of_a_recording_are_the_same_whatever_the_windows(
    speech_windows: tuple[Pcm, ...],
) -> None:
    parts, recorder = parts_of(tiny_transcriber()), Recorder()
    first, second = speech_windows[:3], [window[:240_000] for window in speech_windows[3:6]]
    expected = frames_of(list(PackedPasses(parts, SIZES, PassLimit(4), None)(second)))

    reported: list[str] = []
    recorded = recorded_passes(parts, recorder, reported)
    encode = PackedPasses(parts, SIZES, PassLimit(4), recorded)
    list(encode(first))
    recorded.record_pending()

    frames = frames_of(list(encode(second)))

    assert not reported
    assert recorder.repeated == 1
    assert all(map(torch.equal, frames, expected))


def test_memory_that_runs_out_drops_recordings_and_halves_passes(speech_windows: tuple[Pcm, ...]) -> None:
    parts, recorder = parts_of(tiny_transcriber()), Recorder()
    expected = frames_of(list(PackedPasses(parts, SIZES, PassLimit(4), None)(speech_windows)))
    reported: list[str] = []

    recorded = recorded_passes(parts, recorder, reported)
    limit = PassLimit(4)
    encode = PackedPasses(parts, SIZES, limit, recorded)
    list(encode(speech_windows))
    recorded.record_pending()
    recorder.full = True

    frames = frames_of(list(encode(speech_windows)))

    assert reported == ["engine.graphs_forgotten"]
    assert not recorded.recorded
    assert limit.blocks == 2
    assert all(map(torch.equal, frames, expected))


def test_the_smallest_pass_is_run_again_without_recordings_before_it_is_an_error(
    speech_windows: tuple[Pcm, ...],
) -> None:
    parts, recorder = parts_of(tiny_transcriber()), Recorder()
    windows = speech_windows[:1]
    expected = frames_of(list(PackedPasses(parts, SIZES, PassLimit(1), None)(windows)))
    reported: list[str] = []
    recorded = recorded_passes(parts, recorder, reported)
    encode = PackedPasses(parts, SIZES, PassLimit(1), recorded, report=lambda event, /, **_: reported.append(event))
    list(encode(windows))
    recorded.record_pending()
    recorder.full = True

    frames = frames_of(list(encode(windows)))

    assert reported == ["engine.graphs_forgotten"]
    assert all(map(torch.equal, frames, expected))


def test_weights_are_rounded_and_multiplied_where_they_are_used() -> None:
    """On a GPU: by one thread of the CPU this takes seconds of every start."""
    config = network_config(with_option("encoder.n_layers", 1))

    with Watching() as watching:
        parts_without_values(config, torch.float16)

    assert {"aten.mm.default", "aten.cat.default", "aten.sqrt.default"} <= watching.ran.keys()
    assert not {"aten.mm.default", "aten.cat.default", "aten.sqrt.default"} & watching.met_values


def test_the_smallest_pass_that_does_not_fit_is_an_error(speech_windows: tuple[Pcm, ...]) -> None:
    def full(*_: object) -> "Tensor":
        raise torch.OutOfMemoryError

    parts = parts_of(tiny_transcriber())
    encode = PackedPasses(parts, SIZES, PassLimit(4), None)
    encode._run = full

    with pytest.raises(torch.OutOfMemoryError):
        encode(speech_windows[:1])


def test_the_host_sends_windows_through_the_encoder_without_waiting(speech_windows: tuple[Pcm, ...]) -> None:
    encode = PackedPasses(parts_of(tiny_transcriber()), SIZES, PassLimit(4), None)

    with Watching() as watching:
        encode(speech_windows)

    assert watching.ran
    assert not WAITS_FOR_THE_DEVICE & watching.ran.keys()


def rows_of(parts: Parts, windows: Sequence[Pcm], rows: int = 8) -> DecoderRows:
    frames = frames_of(list(LonePasses(parts)(windows)))
    lengths = [len(one) for one in frames] + [0] * (rows - len(frames))
    starts = [sum(lengths[:row]) if length else 0 for row, length in enumerate(lengths)]
    return DecoderRows(frames=torch.cat(frames), starts=torch.tensor(starts), lengths=torch.tensor(lengths))


def same(steps: Steps, others: Steps) -> bool:
    return all(map(torch.equal, steps, others))


@pytest.fixture
def decoders() -> tuple[TdtDecoder, TdtDecoder]:
    return parts_of(tiny_transcriber()).decoder, parts_of(tiny_transcriber()).decoder


def test_decoding_by_way_of_a_recording_gives_the_same_steps_whatever_the_rows(
    decoders: tuple[TdtDecoder, TdtDecoder], speech_windows: tuple[Pcm, ...]
) -> None:
    plain, recording = decoders
    parts, recorder = parts_of(tiny_transcriber()), Recorder()
    short = [window[:160_000] for window in speech_windows[-3:]]
    given = [rows_of(parts, windows) for windows in (speech_windows, short, [np.zeros(16_000, np.int16)])]
    refused: list[str] = []
    recording.record(given[0], recorder, refused.append)
    before = recorder.repeated

    got = [recording(rows) for rows in given]

    expected = [plain(rows) for rows in given]
    assert not refused
    assert recording._recordings
    assert all(map(same, got, expected))
    assert recorder.repeated - before == sum(len(steps.emitted) for steps in expected) // 8


def test_other_rows_than_the_recordings_are_decoded_without_it(
    decoders: tuple[TdtDecoder, TdtDecoder], speech_windows: tuple[Pcm, ...]
) -> None:
    parts, recorder = parts_of(tiny_transcriber()), Recorder()
    decoder, _ = decoders
    decoder.record(rows_of(parts, speech_windows[:2]), recorder, lambda _: None)
    before = recorder.repeated

    longer, wider = rows_of(parts, speech_windows[:4]), rows_of(parts, speech_windows[:2], rows=9)

    assert decoder(longer).emitted.any()
    assert decoder(wider).emitted.any()
    assert recorder.repeated == before


def test_a_recording_of_decoding_that_is_wrong_is_refused(
    decoders: tuple[TdtDecoder, TdtDecoder], speech_windows: tuple[Pcm, ...]
) -> None:
    recorder = Recorder()

    def wrong_in_the_last_bit(work: "Work") -> "Work":
        repeat = recorder(work)

        def repeated() -> "tuple[Tensor, ...]":
            *others, confidences = repeat()
            return *others, torch.nextafter(confidences, torch.tensor(2.0))

        return repeated

    decoder, plain = decoders
    rows = rows_of(parts_of(tiny_transcriber()), speech_windows[:2])
    refused: list[str] = []

    decoder.record(rows, wrong_in_the_last_bit, refused.append)

    assert refused == ["it does not give the same steps"]
    assert not decoder._recordings
    assert same(decoder(rows), plain(rows))


def test_decoding_waits_for_the_device_once_a_block(
    decoders: tuple[TdtDecoder, TdtDecoder], speech_windows: tuple[Pcm, ...]
) -> None:
    rows = rows_of(parts_of(tiny_transcriber()), speech_windows)

    with Watching() as watching:
        steps = decoders[0](rows)

    assert sum(watching.ran[name] for name in WAITS_FOR_THE_DEVICE) == len(steps.emitted) // 8 + 1


def test_a_block_with_keyterms_reads_no_value(meta: Parts) -> None:
    rows, labels = 8, meta.config.n_labels
    indices = torch.empty(rows, dtype=torch.int64, device="meta")
    boost = Boost(
        root_targets=indices.new_empty(rows, labels),
        root_boosts=torch.empty(rows, labels, device="meta"),
        speech=torch.empty(rows, 512, device="meta"),
        labels=indices.new_empty(99, 7),
        targets=indices.new_empty(99, 7),
        boosts=torch.empty(99, 7, device="meta"),
    )
    frames = torch.empty(64, meta.config.d_joint, dtype=meta.dtype, device="meta")
    given = DecoderRows(frames=frames, starts=indices, lengths=indices.clone(), boost=boost.room())
    with torch.inference_mode(), Watching() as watching:  # reading a value raises
        given.boost.copy_from(boost)

        *_, confidences = meta.decoder._block(given, meta.decoder._first_state(given))

    assert confidences.is_meta
    assert confidences.shape == (8, rows)
    assert "aten.scatter_add_.default" in watching.ran


def test_the_joint_networks_logits_are_not_rounded_to_the_networks_precision(meta: Parts) -> None:
    decoder, rows = meta.decoder, 8
    indices = torch.empty(rows, dtype=torch.int64, device="meta")
    frames = torch.empty(64, meta.config.d_joint, dtype=meta.dtype, device="meta")
    with torch.inference_mode():
        given = DecoderRows(frames=frames, starts=indices, lengths=indices.clone())

        *_, logits = decoder._score(given, indices, decoder._first_state(given))

    assert logits.dtype == torch.float32


def test_durations_that_are_not_their_own_places_are_looked_up(speech_windows: tuple[Pcm, ...]) -> None:
    files, parts = tiny_files(), parts_of(tiny_transcriber())
    labels, durations = files.config.n_labels, len(files.config.durations)
    order = [*range(labels), labels + 1, labels, *range(labels + 2, labels + durations)]
    last = f"joint.joint_net.{1 + files.config.joint_dropout}"
    swapped = {f"{last}.{part}": files.weights[f"{last}.{part}"][order] for part in ("weight", "bias")}
    weights = Weights({**files.weights, **swapped}, torch.device("cpu"), torch.float32)
    decoder = TdtDecoder(weights, replace(files.config, durations=(1, 0, *files.config.durations[2:])))
    rows = rows_of(parts, speech_windows[:2])

    steps, expected = decoder(rows), parts.decoder(rows)

    assert steps.emitted.any()
    for mine, theirs in zip(steps[:4], expected[:4], strict=True):
        assert torch.equal(mine, theirs)


def test_as_many_tokens_as_allowed_at_a_frame_move_on_by_one(speech_windows: tuple[Pcm, ...]) -> None:
    """A joint network that always prefers a token of duration 0 must not stay there."""
    parts = parts_of(tiny_transcriber())
    decoder = TdtDecoder(Weights(tiny_files().weights, torch.device("cpu"), torch.float32), tiny_files().config)
    decoder._joint_bias = decoder._joint_bias.clone()
    decoder._joint_bias[5] += 1_000
    decoder._joint_bias[parts.config.n_labels] += 1_000
    rows = rows_of(parts, [speech_windows[0][:32_000]])

    steps = decoder(rows)

    emitted = steps.emitted[:, 0]
    assert int(emitted.sum()) == parts.config.max_symbols * int(rows.lengths[0])
    assert steps.frames[emitted, 0].tolist() == sorted(list(range(int(rows.lengths[0]))) * parts.config.max_symbols)
