"""Weights mapped where they lie in the `.nemo` file: those of NeMo's `restore_from` in every bit, or its own way."""

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.engines.parakeet import TINY_OPTIONS
from worker.adapters.parakeet.loading import checksum_note
from worker.embedded.samples import tiny_model

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # NeMo's are not ours to mend
]


def restored(path: Path) -> Any:
    from worker.adapters.parakeet.mapped import restore  # noqa: PLC0415  torch

    return restore(path)


def restored_by_nemo(path: Path) -> Any:
    from nemo.collections.asr.models import ASRModel  # noqa: PLC0415

    return ASRModel.restore_from(str(path), map_location="cpu")


def repacked(folder: Path, change: Callable[[Path], None] = lambda _: None, mode: str = "w:") -> Path:
    """The tiny model again, with other weights or packed in another way."""
    content, model = folder / "content", folder / "model.nemo"
    with tarfile.open(tiny_model()) as tar:
        tar.extractall(content, filter="data")
    change(content / checksum_note.WEIGHTS)
    with tarfile.open(model, mode) as tar:  # type: ignore[call-overload]
        tar.add(content, arcname=".")
    return model


def halved(weights: Path) -> None:
    """In bfloat16, and one matrix by columns."""
    import torch  # noqa: PLC0415

    state = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in _of(weights).items()}
    state["joint.enc.weight"] = state["joint.enc.weight"].T.contiguous().T
    torch.save(state, weights)


def in_the_old_format(weights: Path) -> None:
    import torch  # noqa: PLC0415

    torch.save(_of(weights), weights, _use_new_zipfile_serialization=False)


def _of(weights: Path) -> Any:
    import torch  # noqa: PLC0415

    return torch.load(weights, weights_only=True)


def tensors(network: Any) -> dict[str, tuple[Any, ...]]:
    """Every tensor of the model, also those that are in no file, with all that could change a result."""
    held = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    held |= {
        f"{module}.{name}": value
        for module, owner in network.named_modules()
        for name, value in vars(owner).items()
        if hasattr(value, "untyped_storage")
    }
    return {
        name: (tensor.dtype, tensor.stride(), tensor.requires_grad, tensor.detach().numpy().tobytes())
        for name, tensor in held.items()
    }


@pytest.mark.parametrize("change", [lambda _: None, halved], ids=["as it is", "of another type and layout"])
def test_every_tensor_is_bit_for_bit_that_of_nemos_restore_from(tmp_path: Path, change: Callable[[Path], None]) -> None:
    model = repacked(tmp_path, change)

    with capture_logs() as events:
        ours = restored(model)

    assert tensors(ours) == tensors(restored_by_nemo(model))
    assert ours.training == restored_by_nemo(model).training
    assert events == []


def test_weights_are_pages_of_the_file_and_of_nobody_elses(tmp_path: Path) -> None:
    model = repacked(tmp_path)
    before = model.read_bytes()

    network = restored(model)
    mapped = [line.split()[1] for line in Path("/proc/self/maps").read_text().splitlines() if str(model) in line]
    for parameter in network.parameters():
        parameter.data.fill_(0)

    assert mapped == ["rw-p"]
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "mode", "reason"),
    [(lambda _: None, "w:gz", "invalid header"), (in_the_old_format, "w:", "model_weights.ckpt is no zip file")],
    ids=["a packed tar", "weights from before zip files"],
)
def test_a_file_that_cannot_be_mapped_is_left_to_nemo_with_a_warning(
    tmp_path: Path, change: Callable[[Path], None], mode: str, reason: str
) -> None:
    model = repacked(tmp_path, change, mode)

    with capture_logs() as events:
        ours = restored(model)

    assert tensors(ours) == tensors(restored_by_nemo(tiny_model()))
    assert [(event["event"], event["log_level"]) for event in events] == [("engine.weights_not_mapped", "warning")]
    assert reason in events[0]["reason"]


def fingerprint_of(model: Path) -> str:
    from worker.adapters.parakeet.model import load_model  # noqa: PLC0415  torch

    return load_model(replace(TINY_OPTIONS, model_name=str(model)))[1].model_fingerprint


def test_a_note_saves_the_sum_and_changes_no_fingerprint(tmp_path: Path) -> None:
    model = Path(shutil.copy(tiny_model(), tmp_path / "model.nemo"))
    without = fingerprint_of(model)

    checksum_note.main(model, tmp_path)
    with capture_logs() as events:
        noted = fingerprint_of(model)

    assert noted == without
    assert events == []


def test_a_note_of_another_file_is_told_and_not_used(tmp_path: Path) -> None:
    model = Path(shutil.copy(tiny_model(), tmp_path / "model.nemo"))
    without = fingerprint_of(model)
    (tmp_path / "other").mkdir()
    other = repacked(tmp_path / "other", halved)
    checksum_note.main(other, other.parent)
    shutil.copy(checksum_note.note_of(other), checksum_note.note_of(model))

    with capture_logs() as events:
        noted = fingerprint_of(model)

    assert noted == without
    assert [(event["event"], event["log_level"]) for event in events] == [("engine.note_not_believed", "warning")]
