"""Contents of a `.nemo` file, and every way in which a file is refused."""

import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.engines.nemo_files import CONFIG, WEIGHTS, Change, contents, nemo_file, tar_of, zip_with
from worker.adapters.parakeet.loading.model_files import open_model_files
from worker.adapters.parakeet.network.config import UnsupportedModel
from worker.adapters.parakeet.network.transcriber import Transcriber
from worker.adapters.parakeet.network.weights import WrongWeights
from worker.embedded.samples import tiny_model
from worker.errors import ModelLoadingError


def state_of(weights: bytes) -> dict[str, torch.Tensor]:
    return dict(torch.load(io.BytesIO(weights), weights_only=True))


def saved(state: object, **options: Any) -> bytes:
    written = io.BytesIO()
    torch.save(state, written, **options)
    return written.getvalue()


def with_state(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    return lambda weights: saved(change(state_of(weights)))


def in_bfloat16_and_one_by_columns(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return {**state, "joint.enc.weight": state["joint.enc.weight"].T.contiguous().T}


@pytest.mark.parametrize(
    "change", [lambda state: state, in_bfloat16_and_one_by_columns], ids=["plain", "of other types"]
)
def test_weights_are_those_of_the_file_in_every_bit(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    path = nemo_file(tmp_path / "model.nemo", {WEIGHTS: with_state(change)})
    expected = change(state_of(contents()[WEIGHTS]))

    weights = open_model_files(path).weights

    assert set(weights) == set(expected)
    for name, tensor in expected.items():
        assert weights[name].dtype == tensor.dtype
        assert weights[name].stride() == tensor.stride()
        assert torch.equal(weights[name], tensor)


def repacked_backwards(weights: bytes) -> bytes:
    """The same records in another order, each at a multiple of 4."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(weights)) as old, zipfile.ZipFile(written, "w") as new:
        for record in reversed(old.infolist()):
            place = written.tell() + 30 + len(record.filename) + 4
            member = zipfile.ZipInfo(record.filename)
            member.extra = struct.pack("<HH", 0xFFFF, -place % 4) + bytes(-place % 4)
            new.writestr(member, old.read(record))
    return written.getvalue()


def test_weights_are_found_wherever_another_program_has_put_them_in_the_zip(tmp_path: Path) -> None:
    path = nemo_file(tmp_path / "model.nemo", {WEIGHTS: repacked_backwards})
    expected = state_of(contents()[WEIGHTS])

    weights = open_model_files(path).weights

    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_weights_are_private_pages_of_the_file(tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_model(), tmp_path / "model.nemo"))
    before = path.read_bytes()

    weights = open_model_files(path).weights
    mapped = [line.split()[1] for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    for tensor in weights.values():
        tensor.fill_(0)

    assert mapped == ["rw-p"]
    assert path.read_bytes() == before


def test_pieces_are_those_of_the_tokenizer_in_the_order_of_their_labels() -> None:
    pieces = open_model_files(tiny_model()).pieces

    assert len(pieces) == 256
    assert pieces[:4] == ("<unk>", "▁t", "he", "▁the")


def test_a_weight_of_an_unused_head_is_no_error(tmp_path: Path) -> None:
    with_ctc = with_state(lambda state: {**state, "ctc_decoder.decoder_layers.0.weight": torch.zeros(257, 128, 1)})

    files = open_model_files(nemo_file(tmp_path / "hybrid.nemo", {WEIGHTS: with_ctc}))

    assert files.config.n_layers == 4


def test_reading_a_model_imports_no_nemo_and_no_library_of_the_workers() -> None:
    program = f"""
import sys
from pathlib import Path
from worker.adapters.parakeet.loading.model_files import open_model_files
open_model_files(Path({str(tiny_model())!r}))
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"nemo", "structlog", "pydantic", "opentelemetry"}}))
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


class Executed(Exception):
    """A pickle ran code."""


def execute() -> None:
    raise Executed


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return execute, ()


class LargeBuffer:
    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (2**40,)


def pickled_as(value: object, protocol: int = 2) -> Change:
    return lambda weights: zip_with(weights, {"data.pkl": pickle.dumps(value, protocol)})


class Tensor:
    """Pickles as a tensor of the first record, with any sizes."""

    def __init__(
        self, size: tuple[int, ...], stride: tuple[int, ...], numel: int, key: str = "0", start: int = 0
    ) -> None:
        self.arguments = (Storage(numel, key), start, size, stride, False, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class Storage:
    def __init__(self, numel: int, key: str) -> None:
        self.id = ("storage", torch.FloatStorage, key, "cpu", numel)


def tensor_index(tensor: Tensor) -> Change:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return value.id if isinstance(value, Storage) else None

    written = io.BytesIO()
    Pickler(written, 2).dump({"joint.enc.bias": tensor})
    return lambda weights: zip_with(weights, {"data.pkl": written.getvalue()})


def without(name: str) -> Change:
    return with_state(lambda state: {key: tensor for key, tensor in state.items() if key != name})


BAD_WEIGHTS: dict[str, tuple[Change, str]] = {
    "a pickle that runs code": (pickled_as(Malicious()), "refers to .*execute"),
    "such a pickle of another protocol": (pickled_as(Malicious(), 4), "refers to .*execute"),
    "a pickle that takes a terabyte": (pickled_as(LargeBuffer()), "refers to .*bytearray"),
    "a pickle of something else": (pickled_as([1, 2]), "something else than tensors"),
    "a pickle cut short": (lambda one: zip_with(one, {"data.pkl": pickle.dumps({"a": 1}, 2)[:-3]}), "damaged"),
    "no pickle": (lambda one: zip_with(one, {"data.pkl": b"\x00\x01"}), "damaged"),
    "a TorchScript archive": (lambda one: zip_with(one, {"version": b"3"}).replace(b"byteorder", b"constants"), "."),
    "a compressed zip": (lambda one: zip_with(one, {}, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "a zip cut short": (lambda one: one[: len(one) // 2], "damaged or no file of weights"),
    "no zip": (lambda _: b"<html>" * 100, "damaged or no file of weights"),
    "a memo index beyond memory": (
        lambda one: zip_with(one, {"data.pkl": b"\x80\x02}r\xff\xff\xff\xff."}),
        "lack preprocessor",
    ),
    "a record of less than it holds": (tensor_index(Tensor((128,), (1,), 2**40)), "for 1,099,511,627,776 elements"),
    "a shape beyond its record": (tensor_index(Tensor((2**40,), (1,), 4)), "larger than its 16 bytes"),
    "a stride beyond its record": (tensor_index(Tensor((2, 2), (2**40, 1), 4)), "larger than its 16 bytes"),
    "a start beyond its record": (tensor_index(Tensor((4,), (1,), 4, start=2**40)), "larger than its 16 bytes"),
    "a negative stride": (tensor_index(Tensor((4,), (-1,), 4, start=4)), "stride"),
    "a record that is not there": (tensor_index(Tensor((4,), (1,), 4, key="../../etc/passwd")), "0 bytes at data/"),
    "a weight that is missing": (without("joint.enc.weight"), "lack joint.enc.weight"),
    "a weight of another shape": (
        with_state(lambda state: {**state, "joint.enc.weight": torch.zeros(128, 64)}),
        r"joint.enc.weight is of shape \(128, 64\); the configuration asks for \(128, 128\)",
    ),
    "a weight of integers": (
        with_state(lambda state: {**state, "joint.enc.bias": torch.zeros(128, dtype=torch.int32)}),
        "joint.enc.bias is of type torch.int32",
    ),
    "a weight too many": (
        with_state(lambda state: {**state, "encoder.layers.4.norm_out.bias": torch.zeros(128)}),
        "encoder.layers.4.norm_out.bias, which the configuration does not ask for",
    ),
}


@pytest.mark.parametrize(("change", "reason"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS.keys())
def test_weights_that_are_damaged_foreign_or_hostile_are_refused(tmp_path: Path, change: Change, reason: str) -> None:
    path = nemo_file(tmp_path / "model.nemo", {WEIGHTS: change})

    with pytest.raises((ModelLoadingError, WrongWeights), match=reason):
        Transcriber(open_model_files(path), torch.device("cpu"), torch.float32)


def a_link(path: Path) -> None:
    with tarfile.open(path, "a:") as tar:
        link = tarfile.TarInfo("weights")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)


def a_sparse_member(path: Path) -> None:
    members = contents()
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name == WEIGHTS:
                member.pax_headers = {"GNU.sparse.map": f"0,{len(content)}", "GNU.sparse.size": str(2**40)}
            tar.addfile(member, io.BytesIO(content))


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "No such file"),
    "a folder": (lambda path: path.mkdir(), "."),
    "empty": (lambda path: path.write_bytes(b""), "no .nemo file"),
    "a pointer to a large file": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\nsize 2468208640\n"), "no .nemo file",
    ),
    "cut short": (lambda path: path.write_bytes(tiny_model().read_bytes()[:2_000_000]), "damaged or cut short"),
    "a climbing path": (lambda path: tar_of(path, [*contents().items(), ("../../out", b"x")]), "leads outside"),
    "an absolute path": (lambda path: tar_of(path, [*contents().items(), ("/etc/out", b"x")]), "leads outside"),
    "a link": (lambda path: a_link(nemo_file(path)), "is a link"),
    "a sparse member": (a_sparse_member, "sparse|damaged"),
    "weights twice": (
        lambda path: tar_of(path, [*contents().items(), ("again/" + WEIGHTS, b"x")]),
        "2 files in the tar",
    ),
    "no configuration": (
        lambda path: tar_of(path, [(name, data) for name, data in contents().items() if name != CONFIG]),
        "0 files in the tar are named model_config.yaml",
    ),
    "a configuration too large": (
        lambda path: nemo_file(path, {CONFIG: lambda _: b"#" * (16 * 2**20 + 1)}), "16,777,217 bytes; at most",
    ),
    "a foreign tokenizer": (
        lambda path: nemo_file(path, {name: lambda _: b"x" * 99 for name in contents() if name.endswith(".model")}),
        "no SentencePiece model",
    ),
    "another vocabulary": (
        lambda path: nemo_file(path, {CONFIG: lambda text: text.replace(b"vocab_size: 256", b"vocab_size: 300")
                                      .replace(b"num_classes: 256", b"num_classes: 300")}),
        "256 pieces, the configuration 300",
    ),
    "a tokenizer elsewhere": (
        lambda path: nemo_file(path, {CONFIG: lambda text: text.replace(b"nemo:cf35b0a8", b"/etc/passwd/../x")}),
        "0 files in the tar",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "reason"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_file_that_is_no_model_is_refused_and_nothing_is_written(
    tmp_path: Path, write: Callable[[Path], object], reason: str
) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "model.nemo"
    write(path)
    before = sorted(os.walk(tmp_path))

    with pytest.raises(ModelLoadingError, match=reason):
        open_model_files(path)

    assert sorted(os.walk(tmp_path)) == before


@pytest.mark.parametrize(
    ("changes", "mode", "reason"),
    [
        ({}, "w:gz", "compressed tar"),
        ({WEIGHTS: lambda one: saved(state_of(one), _use_new_zipfile_serialization=False)}, "w:", "before 1.6"),
        ({WEIGHTS: lambda one: zip_with(one, {"byteorder": b"big"})}, "w:", "big-endian"),
        (
            {CONFIG: lambda text: text.replace(b"model_path: nemo:", b"other_path: nemo:")},
            "w:",
            "no SentencePiece model",
        ),
        ({CONFIG: lambda text: text.replace(b"subsampling: dw_striding", b"subsampling: vggnet")}, "w:", "subsampling"),
    ],
    ids=[
        "a compressed tar",
        "weights from before zip files",
        "big-endian weights",
        "another tokenizer",
        "another network",
    ],
)
def test_a_whole_model_that_the_network_does_not_compute_has_an_error_of_its_own(
    tmp_path: Path, changes: dict[str, Change], mode: str, reason: str
) -> None:
    path = nemo_file(tmp_path / "model.nemo", changes, mode=mode)

    with pytest.raises(UnsupportedModel, match=reason):
        open_model_files(path)
