"""Our log-mel spectrogram: NeMo's features, row by row whatever lies beside, and without a look at a value."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.engines.parakeet import quiet
from worker.ports import SAMPLE_RATE_HZ, Pcm

torch = pytest.importorskip("torch")

from tests.support.engines.operations import Watching  # noqa: E402  needs torch

if TYPE_CHECKING:
    from torch import Tensor

    from worker.adapters.parakeet.loaded import LoadedModel
    from worker.adapters.parakeet.spectrogram import LogMel

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # NeMo's are not ours to mend
]

HOP_SAMPLES = SAMPLE_RATE_HZ // 100
ROW_SAMPLES = 30 * SAMPLE_RATE_HZ
TOLERANCE = 1e-5
"""Features spread around 0 by 1 and reach 5, where neighbours in float32 are 5e-7 apart: NeMo takes a root and squares
it again, which costs the power its last bits, and so its logarithm. Measured: 1.1e-6."""
PLAIN = {
    "n_window_size": 400,
    "n_window_stride": HOP_SAMPLES,
    "n_fft": 512,
    "nfilt": 128,
    "dither": 0.0,
    "pad_to": 0,
}
"""As parakeet-tdt-0.6b-v2 has it, and `settle` leaves it."""


def featurizer_of(**options: Any) -> Any:
    with quiet():
        from nemo.collections.asr.parts.preprocessing.features import FilterbankFeatures  # noqa: PLC0415  NeMo: 10 s

        return FilterbankFeatures(**PLAIN | options).eval()


def log_mel_of(featurizer: Any) -> "LogMel":
    from worker.adapters.parakeet.spectrogram import LogMel  # noqa: PLC0415  NeMo

    log_mel = LogMel.of(featurizer)
    assert log_mel is not None
    return log_mel


@pytest.fixture(scope="module")
def featurizer() -> Any:
    return featurizer_of()


@pytest.fixture(scope="module")
def log_mel(featurizer: Any) -> "LogMel":
    return log_mel_of(featurizer)


def in_rows(windows: tuple[Pcm, ...]) -> "tuple[Tensor, Tensor]":
    """What lies beyond a window is loud: nobody may listen to it."""
    waves = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (len(windows), ROW_SAMPLES)).astype(np.float32))
    for row, window in enumerate(windows):
        waves[row, : len(window)] = torch.from_numpy(window).float() / 32768
    return waves, torch.tensor([len(window) for window in windows])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nfilt": 80, "preemph": 0.9, "lowfreq": 50, "highfreq": 7_000},
        {"window": "hamming", "n_fft": 1024, "log_zero_guard_value": 1e-6},
        {"log_zero_guard_value": "eps", "mel_norm": None},
    ],
)
def test_features_are_nemos_and_zero_beyond_the_valid_ones(
    options: dict[str, Any], speech_windows: tuple[Pcm, ...]
) -> None:
    featurizer = featurizer_of(**options)
    waves, samples = in_rows(speech_windows)

    features, frames = log_mel_of(featurizer).of_rows(waves, samples)

    theirs, their_frames = featurizer(waves, samples)
    assert frames.tolist() == their_frames.tolist() == [len(window) // HOP_SAMPLES for window in speech_windows]
    assert features.shape == theirs.shape
    torch.testing.assert_close(features, theirs, rtol=0, atol=TOLERANCE)
    assert all(not row[:, count:].any() for row, count in zip(features, frames, strict=True))


def test_the_model_that_is_loaded_gets_the_features_of_its_own_preprocessor(
    tiny_model: "LoadedModel", speech_windows: tuple[Pcm, ...]
) -> None:
    from worker.adapters.parakeet.spectrogram import LogMel, spectrogram_of  # noqa: PLC0415  NeMo

    preprocessor = tiny_model.network.preprocessor
    waves, samples = in_rows(speech_windows)

    features, frames = spectrogram_of(preprocessor)(waves, samples)

    assert LogMel.of(preprocessor.featurizer) is not None
    theirs, their_frames = preprocessor(input_signal=waves, length=samples)
    assert frames.tolist() == their_frames.tolist()
    torch.testing.assert_close(features, theirs, rtol=0, atol=TOLERANCE)


def test_one_wave_by_itself_has_the_features_that_it_has_in_a_row(
    log_mel: "LogMel", speech_windows: tuple[Pcm, ...]
) -> None:
    waves, samples = in_rows(speech_windows)
    features, frames = log_mel.of_rows(waves, samples)

    for row, (length, count) in enumerate(zip(samples, frames, strict=True)):
        alone = log_mel.of_wave(waves[row, :length])

        torch.testing.assert_close(alone, features[row, :, :count], rtol=0, atol=TOLERANCE)


def test_a_row_is_to_the_last_bit_the_same_whatever_lies_beside_and_beyond_it(
    log_mel: "LogMel", speech_windows: tuple[Pcm, ...]
) -> None:
    expected, _ = log_mel.of_rows(*in_rows(speech_windows))

    for shift in range(1, len(speech_windows)):
        waves, samples = in_rows(speech_windows[shift:] + speech_windows[:shift])
        waves, samples = torch.cat((waves[:-1], torch.zeros_like(waves[:1]))), samples.clone()
        samples[-1] = 0

        features, _ = log_mel.of_rows(waves, samples)

        assert torch.equal(features[:-1], expected.roll(-shift, 0)[:-1])


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 0), (159, 0), (160, 1), (319, 1)])
def test_rows_of_no_frame_and_of_one_are_zero(log_mel: "LogMel", samples: int, frames: int) -> None:
    waves, lengths = in_rows((np.full(samples, 9_000, dtype=np.int16), np.zeros(ROW_SAMPLES, dtype=np.int16)))

    features, counts = log_mel.of_rows(waves, lengths)

    assert counts.tolist() == [frames, ROW_SAMPLES // HOP_SAMPLES]
    assert not features[0].any()


@pytest.mark.parametrize("level", [0, 1, 32_767])
def test_a_wave_without_any_change_has_features_within_bounds(log_mel: "LogMel", level: int) -> None:
    features, _ = log_mel.of_rows(*in_rows((np.full(ROW_SAMPLES, level, dtype=np.int16),)))

    assert features.isfinite().all()


@pytest.mark.parametrize("rows", [1, 160])
def test_no_value_is_looked_at_or_brought_from_elsewhere(rows: int) -> None:
    log_mel = log_mel_of(featurizer_of().to("meta"))
    waves = torch.empty(rows, ROW_SAMPLES, device="meta")
    samples = torch.empty(rows, dtype=torch.int64, device="meta")

    with (
        torch.no_grad(),
        Watching() as watching,
    ):  # not inference mode: there, calls are seen but not what they consist of
        features, frames = log_mel.of_rows(waves, samples)

    assert features.shape == (rows, PLAIN["nfilt"], ROW_SAMPLES // HOP_SAMPLES + 1)
    assert frames.is_meta
    assert watching.ran["aten._fft_r2c.default"] == 1
    assert not watching.met_values


@pytest.mark.parametrize(
    "option",
    [
        {"exact_pad": True},
        {"frame_splicing": 2},
        {"log": False},
        {"log_zero_guard_type": "clamp"},
        {"mag_power": 1.0},
        {"normalize": "all_features"},
        {"pad_value": -1},
        {"preemph": None},
        {"use_grads": True},
        {"window": "none"},
    ],
)
def test_a_featurizer_that_does_something_else_stays_nemos(option: dict[str, Any]) -> None:
    from worker.adapters.parakeet.spectrogram import LogMel  # noqa: PLC0415  NeMo

    assert LogMel.of(featurizer_of(**option)) is None


def test_where_it_is_nemos_no_row_has_a_single_frame(
    tiny_model: "LoadedModel", speech_windows: tuple[Pcm, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.adapters.parakeet.spectrogram import spectrogram_of  # noqa: PLC0415  NeMo

    preprocessor = tiny_model.network.preprocessor
    waves, samples = in_rows((np.full(2 * HOP_SAMPLES - 1, 1000, dtype=np.int16), speech_windows[0]))
    monkeypatch.setattr(preprocessor.featurizer, "log_zero_guard_type", "clamp")

    features, frames = spectrogram_of(preprocessor)(waves, samples)

    assert frames.tolist() == [0, len(speech_windows[0]) // HOP_SAMPLES]
    assert torch.equal(features[1:], preprocessor(input_signal=waves[1:], length=samples[1:])[0])
