from pathlib import Path

import pytest
import torch

from tests.support.engines.nemo_files import WEIGHTS, nemo_file, zip_with
from worker.adapters.parakeet.loading.checksum_note import noted_sum, sum_of
from worker.adapters.parakeet.loading.model_files import Precision, open_model_files, stored_precision, write_model
from worker.adapters.parakeet.network.passes import LonePasses
from worker.adapters.parakeet.network.transcriber import Transcriber
from worker.embedded.samples import tiny_model
from worker.errors import ModelLoadingError
from worker.ports import Pcm


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_network_is_the_same_to_the_last_bit(
    tmp_path: Path, precision: Precision, speech_windows: tuple[Pcm, ...]
) -> None:
    source, target, dtype = tmp_path / "source.nemo", tmp_path / "model.nemo", getattr(torch, precision)
    write_model(tiny_model(), source, "float32")

    write_model(source, target, precision)

    def frames_of(model: Path) -> torch.Tensor:
        transcriber = Transcriber(open_model_files(model), torch.device("cpu"), dtype)
        (encoded,) = LonePasses(transcriber.parts)(speech_windows[:1])
        return encoded.frames

    assert torch.equal(frames_of(target), frames_of(source))
    assert stored_precision(open_model_files(target).weights) == dtype
    assert target.stat().st_size < 0.75 * source.stat().st_size


def test_the_note_is_that_of_the_written_file(tmp_path: Path) -> None:
    target = tmp_path / "model.nemo"

    write_model(tiny_model(), target, "bfloat16")

    assert noted_sum(target) == sum_of(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.nemo", "model.nemo.prepared.json"]


def test_a_bad_model_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    bad = nemo_file(tmp_path / "bad.nemo", {WEIGHTS: lambda weights: weights[:1_000]})
    empty = nemo_file(
        tmp_path / "empty.nemo", {WEIGHTS: lambda weights: zip_with(weights, {"data.pkl": b"\x80\x02}."})}
    )

    with pytest.raises(ModelLoadingError):
        write_model(bad, tmp_path / "out" / "model.nemo", "bfloat16")
    with pytest.raises(ModelLoadingError, match="lack preprocessor"):
        write_model(empty, tmp_path / "out" / "model.nemo", "bfloat16")
    with pytest.raises(ModelLoadingError, match="written in another precision"):
        write_model(tmp_path, tmp_path / "out" / "model.nemo", "bfloat16")

    assert list((tmp_path / "out").iterdir()) == []
