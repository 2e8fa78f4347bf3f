"""Weights that `torch.save` wrote, mapped in place inside another file.

`torch.load` cannot map a part of a file, and calculates the offsets of tensors on the assumption that torch wrote the
zip. This module takes the offsets from the zip's own directory, and interprets the pickle that names the tensors with a
dozen known names in place of all of Python's.
"""

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from worker.adapters.parakeet.loading import BadModelFile
from worker.adapters.parakeet.network.config import UnsupportedModel

WEIGHTS = "model_weights.ckpt"

_MOST_INDEX_BYTES = 16 * 2**20
"""The pickle takes 100 KB for 700 tensors."""

_LOCAL_HEADER = struct.Struct("<26xHH")
"""A zip record's header: the lengths of its name and of its extra field, after which its data begins."""

_BEFORE_ZIP = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of weights that torch wrote before 1.6."""

_MALFORMED = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, struct.error)
"""Errors of damaged pickles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """The data of one storage: its place in the zip and its type."""

    start: int
    n_bytes: int
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class _Placed:
    """A tensor by its place in the zip: what the pickle's tensors become."""

    record: _Record
    first: int
    """Its first element, counted from the record's start."""
    size: tuple[int, ...]
    stride: tuple[int, ...]


def mapped_weights(path: Path, start: int, weights: IO[bytes]) -> Mapping[str, Tensor]:
    """Map the tensors of `weights`, which begins at byte `start` of the file at `path`, in private pages of that file.

    The tensors have the types of the file and lie on the CPU. The file must not be written to while they live; it may
    be replaced by renaming. Nothing that the pickle refers to is called. Raises `BadModelFile`, and `UnsupportedModel`
    for weights as torch wrote them before 1.6.
    """
    placed = _placed_tensors(weights)
    whole = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).untyped_storage()
    return {name: _mapped(name, whole, start, tensor) for name, tensor in placed.items()}


def _placed_tensors(weights: IO[bytes]) -> Mapping[str, _Placed]:
    """Read the index of the zip."""
    try:
        archive = zipfile.ZipFile(weights)
        members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
        for member in members.values():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise BadModelFile(f"{member.filename} in {WEIGHTS} is compressed, which torch.save does not do")
        if "data.pkl" not in members:
            raise BadModelFile(f"{WEIGHTS} has no index, data.pkl")
        if members["data.pkl"].file_size > _MOST_INDEX_BYTES:
            raise BadModelFile(f"the index of {WEIGHTS} has {members['data.pkl'].file_size:,} bytes")
        if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
            raise UnsupportedModel(f"the numbers of {WEIGHTS} are big-endian")
        pickled = archive.read(members["data.pkl"])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        weights.seek(0)
        if weights.read(len(_BEFORE_ZIP)) == _BEFORE_ZIP:
            raise UnsupportedModel(f"{WEIGHTS} was written by a torch before 1.6") from error
        raise BadModelFile(f"{WEIGHTS} is damaged or no file of weights: {error}") from error
    try:
        index = _Index(pickled, weights, members, archive.start_dir).load()
    except _MALFORMED as error:
        raise BadModelFile(f"the index of {WEIGHTS} is damaged: {error}") from error
    if not isinstance(index, Mapping) or not all(
        isinstance(name, str) and isinstance(one, _Placed) for name, one in index.items()
    ):
        raise BadModelFile(f"{WEIGHTS} holds something else than tensors by name")
    return index


class _Index(pickle._Unpickler):  # noqa: SLF001  # the one in C allocates whatever memo index the pickle names
    """Interprets the pickle of a state dict: every name in it means one of the values below, or is refused."""

    def __init__(self, pickled: bytes, weights: IO[bytes], members: Mapping[str, zipfile.ZipInfo], end: int) -> None:
        super().__init__(BytesIO(pickled))
        self._weights, self._members, self._end = weights, members, end

    def find_class(self, module: str, name: str) -> Any:
        """Return the value of a name in the pickle. Raises `BadModelFile` for any but the known ones."""
        try:
            return _NAMES[module, name]
        except KeyError:
            raise BadModelFile(f"the index of {WEIGHTS} is a pickle that refers to {module}.{name}") from None

    def persistent_load(self, saved: Any) -> _Record:
        """Return the record of a storage, where the zip has it and where it is as long as the pickle says."""
        kind, dtype, key, _, n_elements = saved
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise BadModelFile(f"the index of {WEIGHTS} refers to something else than a storage of numbers")
        member = self._members.get(f"data/{key}")
        if member is None or n_elements * dtype.itemsize > member.file_size:
            n_bytes = member.file_size if member else 0
            raise BadModelFile(f"{WEIGHTS} has {n_bytes:,} bytes at data/{key} for {n_elements:,} elements of {dtype}")
        self._weights.seek(member.header_offset)
        name_length, extra_length = _LOCAL_HEADER.unpack(self._weights.read(_LOCAL_HEADER.size))
        start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if start + member.file_size > self._end:
            raise BadModelFile(f"data/{key} reaches beyond the records of {WEIGHTS}")
        return _Record(start=start, n_bytes=n_elements * dtype.itemsize, dtype=dtype)


def _tensor(record: _Record, first: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> _Placed:
    numbers = (first, *size, *stride)
    if len(size) != len(stride) or not all(type(number) is int and number >= 0 for number in numbers):
        raise BadModelFile(f"the index of {WEIGHTS} has a tensor of size {size} and stride {stride}")
    last = first + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and (last + 1) * record.dtype.itemsize > record.n_bytes:
        raise BadModelFile(f"a tensor of shape {size} in {WEIGHTS} is larger than its {record.n_bytes:,} bytes")
    return _Placed(record=record, first=first, size=size, stride=stride)


_NAMES: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "ShortStorage"): torch.int16,
    ("torch", "CharStorage"): torch.int8,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
}


def _mapped(name: str, whole: torch.UntypedStorage, start: int, tensor: _Placed) -> Tensor:
    record = tensor.record
    begin = start + record.start
    if begin % record.dtype.itemsize:
        raise BadModelFile(f"{name} begins at byte {begin}, which is not aligned to its type")
    data = whole[begin : begin + record.n_bytes]
    return torch.empty(0, dtype=record.dtype).set_(data, tensor.first, tensor.size, tensor.stride)
