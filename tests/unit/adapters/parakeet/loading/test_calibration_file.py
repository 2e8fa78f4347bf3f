import json
from pathlib import Path

import pytest

from worker.adapters.parakeet.loading.facts import digest, read_calibration, weights_sum, write_calibration
from worker.adapters.parakeet.network.words import Calibration
from worker.errors import ModelLoadingError

FITTED = Calibration(temperature=2.5, near=0.58, bias=-2.36)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    model = tmp_path / "m.nemo"

    path = write_calibration(model, "sum", FITTED, "a test")

    assert path == tmp_path / "calibration.json"
    assert read_calibration(model, "sum") == FITTED


def test_a_model_without_the_file_is_not_calibrated_and_keeps_its_fingerprint(tmp_path: Path) -> None:
    assert read_calibration(tmp_path / "m.nemo", "sum") is None
    assert digest(None) == ""


def test_another_models_calibration_is_not_used(tmp_path: Path) -> None:
    write_calibration(tmp_path / "other.nemo", "other", FITTED, "a test")

    assert read_calibration(tmp_path / "m.nemo", "sum") is None


def test_a_folders_weights_are_the_same_with_a_calibration(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = weights_sum(tmp_path)

    write_calibration(tmp_path, before, FITTED, "a test")

    assert weights_sum(tmp_path) == before
    assert read_calibration(tmp_path, before) == FITTED


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({"model_sha256": "sum", "temperature": 0, "near": 0, "bias": 0}),
     json.dumps({"model_sha256": "sum", "temperature": "hot", "near": 0, "bias": 0})],
)  # fmt: skip
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "calibration.json").write_text(content)

    with pytest.raises(ModelLoadingError, match="is no calibration"):
        read_calibration(tmp_path / "m.nemo", "sum")


def test_every_weight_is_in_the_fingerprint() -> None:
    others = [Calibration(temperature=2.6, near=0.58, bias=-2.36), Calibration(temperature=2.5, near=0.58, bias=-2.3)]

    assert len({digest(one) for one in [FITTED, *others]}) == 3
