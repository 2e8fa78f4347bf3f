"""Weights that `torch.save` wrote, mapped where they lie inside another file."""

import bisect
import pickle
import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from worker.adapters.parakeet.loading.errors import BadModelFile
from worker.adapters.parakeet.network.config import UnsupportedModel

WEIGHTS = "model_weights.ckpt"

_MOST_INDEX_BYTES = 16 * 2**20
"""Of the pickle that names and places the tensors: 100 KB for 700 of them."""

_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_KNOWN_GLOBALS = frozenset(
    (
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {one}Storage" for one in _STORAGES),
    )
)
"""Everything that the pickle of a state dict refers to; torch's own allow list has more, such as `bytearray`."""


def mapped_weights(path: Path, start: int, weights: IO[bytes]) -> Mapping[str, Tensor]:
    """Map the tensors of `weights`, which lies at byte `start` of the file at `path`, in private pages of that file.

    The tensors have the types of the file and lie on the CPU. The file must not be written to while they live; it may
    be replaced by renaming. Nothing that the pickle refers to is called unless it is one of torch's own builders of
    tensors. Raises `BadModelFile`, and `UnsupportedModel` for weights as torch wrote them before 1.6.
    """
    ends = _record_ends(weights)
    weights.seek(0)
    try:
        index = torch.load(weights, map_location="meta", weights_only=True)  # shapes and offsets, no data
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError) as error:
        raise BadModelFile(f"the index of {WEIGHTS} is damaged: {(str(error).splitlines() or [''])[0]}") from error
    if not isinstance(index, Mapping) or not all(_is_plain(name, tensor) for name, tensor in index.items()):
        raise BadModelFile(f"{WEIGHTS} holds something else than tensors by name")
    whole = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).untyped_storage()
    return {name: _placed(name, whole, start, ends, tensor) for name, tensor in index.items()}


def _record_ends(weights: IO[bytes]) -> Sequence[int]:
    """Return the places in the zip, in order, that no record reaches beyond; its pickle was found harmless."""
    if not zipfile.is_zipfile(weights):
        raise UnsupportedModel(f"{WEIGHTS} is no zip file, as torch writes since 1.6")
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
        _require_harmless(archive.read(members["data.pkl"]))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise BadModelFile(f"{WEIGHTS} is damaged or no file of weights: {error}") from error
    return [*sorted(member.header_offset for member in members.values()), archive.start_dir]


def _require_harmless(index: bytes) -> None:
    """Refuse a pickle that refers to anything but tensors, before it is interpreted."""
    for opcode, argument, _ in pickletools.genops(index):
        if opcode.name == "GLOBAL" and argument not in _KNOWN_GLOBALS:
            raise BadModelFile(f"the index of {WEIGHTS} is a pickle that refers to {str(argument).replace(' ', '.')}")
        if opcode.name in {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}:
            raise BadModelFile(
                f"the index of {WEIGHTS} is a pickle with {opcode.name}, which torch.save does not write"
            )


def _is_plain(name: object, tensor: object) -> bool:
    return isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout is torch.strided


def _placed(name: str, whole: torch.UntypedStorage, start: int, ends: Sequence[int], shape: Tensor) -> Tensor:
    storage = shape.untyped_storage()
    offset: int | None = storage._checkpoint_offset  # noqa: SLF001  # so documented, for tensors loaded without data
    if offset is None:
        raise BadModelFile(f"{WEIGHTS} does not say where {name} lies")
    end = ends[bisect.bisect_right(ends, offset)] if offset < ends[-1] else 0  # where the next record begins
    if offset + storage.nbytes() > end or start + end > whole.nbytes():
        raise BadModelFile(
            f"{name} has {storage.nbytes():,} bytes by the index of {WEIGHTS}, which has no room for them"
        )
    last = shape.storage_offset() + sum(
        (size - 1) * step for size, step in zip(shape.size(), shape.stride(), strict=True)
    )
    if shape.numel() and (last + 1) * shape.itemsize > storage.nbytes():
        raise BadModelFile(f"{name} is of shape {tuple(shape.shape)}, which its {storage.nbytes():,} bytes cannot hold")
    if (start + offset) % shape.itemsize:
        raise BadModelFile(f"{name} lies at byte {start + offset}, which is not aligned to its type")
    data = whole[start + offset : start + offset + storage.nbytes()]
    return torch.empty(0, dtype=shape.dtype).set_(data, shape.storage_offset(), shape.size(), shape.stride())
