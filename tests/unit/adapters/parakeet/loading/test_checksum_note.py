"""The note of a model file: believed of the file it was written for, and of no other."""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.adapters.parakeet.loading import checksum_note
from worker.adapters.parakeet.loading.checksum_note import UnusualFileError, main, note_of, noted_sum
from worker.embedded.samples import tiny_model

CONFIG, WEIGHTS = b"encoder: conformer", b"four"


def model_in(folder: Path, *, config: bytes = CONFIG, weights: bytes = WEIGHTS, mode: str = "w:") -> Path:
    """A file laid out as NeMo's are."""
    checkpoint = io.BytesIO()
    with zipfile.ZipFile(checkpoint, "w") as records:
        records.writestr(zipfile.ZipInfo("archive/data/0"), weights)
    model = folder / "model.nemo"
    with tarfile.open(model, mode) as tar:  # type: ignore[call-overload]
        for name, content in {"./model_config.yaml": config, "./model_weights.ckpt": checkpoint.getvalue()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return model


def test_the_note_of_a_model_that_nemo_wrote_holds_its_sum(tmp_path: Path) -> None:
    model = Path(shutil.copy(tiny_model(), tmp_path / "model.nemo"))
    main(model, tmp_path)

    noted = noted_sum(model)

    assert noted == hashlib.sha256(tiny_model().read_bytes()).hexdigest()


def test_the_sum_is_the_notes_and_not_computed_again(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    main(model, tmp_path)
    true = hashlib.sha256(model.read_bytes()).hexdigest()
    note_of(model).write_text(note_of(model).read_text().replace(true, "a distinguishing sum"))

    assert noted_sum(model) == "a distinguishing sum"


def cut(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-512])


def other_weights(model: Path) -> None:
    model_in(model.parent, weights=b"five")


def other_configuration(model: Path) -> None:
    model_in(model.parent, config=CONFIG.upper())


def longer(model: Path) -> None:
    model_in(model.parent, weights=WEIGHTS * 2)


@pytest.mark.parametrize("change", [cut, other_weights, other_configuration, longer])
def test_a_note_is_not_believed_of_another_file(tmp_path: Path, change: Callable[[Path], None]) -> None:
    model = model_in(tmp_path)
    main(model, tmp_path)

    change(model)

    with pytest.raises(ValueError, match="of another file"):
        noted_sum(model)


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"sha256": "00", "says": "00"}'])
def test_a_damaged_note_is_not_believed(tmp_path: Path, note: str) -> None:
    model = model_in(tmp_path)

    note_of(model).write_text(note)

    with pytest.raises(ValueError, match=r"."):
        noted_sum(model)


def test_a_file_without_a_note_has_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        noted_sum(model_in(tmp_path))


def packed(folder: Path) -> Path:
    return model_in(folder, mode="w:gz")


def with_changed_weights(folder: Path) -> Path:
    model = model_in(folder)
    model.write_bytes(model.read_bytes().replace(WEIGHTS, b"five"))
    return model


def no_model(folder: Path) -> Path:
    model = folder / "model.nemo"
    with tarfile.open(model, "w:"):
        pass
    return model


@pytest.mark.parametrize(
    ("made", "reason"),
    [(packed, "model.nemo"), (with_changed_weights, "has not the CRC-32"), (no_model, "0 members")],
)
def test_what_cannot_be_vouched_for_gets_no_note(
    tmp_path: Path, made: Callable[[Path], Path], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = made(tmp_path)

    main(model, tmp_path)

    assert not note_of(model).exists()
    assert reason in capsys.readouterr().err


def test_a_model_that_became_unusual_differs_from_the_prepared_one(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    main(model, tmp_path)

    packed(tmp_path)

    with pytest.raises(UnusualFileError):
        noted_sum(model)


def test_the_program_needs_no_package(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    program = shutil.copy(checksum_note.__file__, tmp_path / "build")
    model, folder = model_in(tmp_path), tmp_path / "prepared"

    for given in (tmp_path / "no-such.nemo", model):
        subprocess.run([sys.executable, "-I", "-S", program, given, folder], check=True, capture_output=True)

    assert [path.name for path in folder.iterdir()] == [note_of(model).name]
