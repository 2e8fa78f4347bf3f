"""A `.nemo` file: a plain tar of a YAML configuration, a zip of weights and a SentencePiece tokenizer.

Nothing is unpacked. The weights are mapped where they lie and read when they are first used; mapping copies nothing,
where unpacking would write 2.5 GB to a temporary folder, which in a container is memory. `torch.load` cannot map a part
of a file, and calculates the offsets of tensors on the assumption that torch wrote the zip. So the offsets are taken
from the zip's own directory, and the pickle that names the tensors is interpreted with a dozen known names in place of
all of Python's.
"""

import pickle
import re
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import torch
import yaml
from torch import Tensor

from worker.adapters.parakeet.loading import BadModelFile
from worker.adapters.parakeet.loading.checksum_note import WEIGHTS
from worker.adapters.parakeet.network.config import UnsupportedModel

CONFIG = "model_config.yaml"

_MOST_CONFIG_BYTES = 16 * 2**20
"""A vocabulary of 8,192 pieces, written twice, takes 0.3 MB."""

_MOST_DEPTH = 64
_MOST_VALUES = 1_000_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PARSER: Any = getattr(yaml, "CLoader", yaml.Loader)  # of events only: no object is made
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")

_MOST_MEMBERS = 10_000
_MOST_TOKENIZER_BYTES = 64 * 2**20
_GZIP = b"\x1f\x8b"

_MOST_INDEX_BYTES = 16 * 2**20
"""The pickle takes 100 KB for 700 tensors."""

_LOCAL_HEADER = struct.Struct("<26xHH")
"""A zip record's header: the lengths of its name and of its extra field, after which its data begins."""

_BEFORE_ZIP = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of weights that torch wrote before 1.6."""

_MALFORMED = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, struct.error)
"""Errors of damaged pickles."""


@contextmanager
def open_nemo_file(path: Path) -> Iterator["NemoFile"]:
    """Open the file for the length of the block, and check its list of members.

    Raises `OSError` for a file that cannot be read, `BadModelFile` for one that is no whole tar or that holds links or
    paths which lead out of it, and `UnsupportedModel` for a compressed tar, as NeMo wrote before 1.7.
    """
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115  # closed below
    except tarfile.TarError as error:
        with path.open("rb") as file:
            if file.read(len(_GZIP)) == _GZIP:
                raise UnsupportedModel("the file is a compressed tar, as NeMo wrote before 1.7") from error
        raise BadModelFile(f"it is no .nemo file, which is a tar: {error}") from error
    with tar:
        yield NemoFile(path, tar, _checked_members(tar))


class NemoFile:
    """An open `.nemo` file, of which every member is a plain file or a folder. Its methods raise `BadModelFile`."""

    def __init__(self, path: Path, tar: tarfile.TarFile, members: Sequence[tarfile.TarInfo]) -> None:
        self._path, self._tar, self._members = path, tar, members

    def config(self) -> Mapping[str, object]:
        """Return the configuration with its references resolved."""
        return read_config(self._content(CONFIG, _MOST_CONFIG_BYTES))

    def weights(self) -> Mapping[str, Tensor]:
        """Map the weights: see `mapped_weights`."""
        member, content = self._one(WEIGHTS)
        return mapped_weights(self._path, member.offset_data, content)

    def pieces(self, config: Mapping[str, object]) -> tuple[str, ...]:
        """Return the tokenizer's pieces in the order of their ids.

        Raises `UnsupportedModel` where the configuration names no SentencePiece model.
        """
        tokenizer = config.get("tokenizer")
        name = tokenizer.get("model_path") if isinstance(tokenizer, Mapping) else None
        if not isinstance(name, str) or not name:
            raise UnsupportedModel("the configuration names no SentencePiece model at tokenizer.model_path")
        model = self._content(PurePosixPath(name.removeprefix("nemo:")).name, _MOST_TOKENIZER_BYTES)
        import sentencepiece  # noqa: PLC0415  # a folder of safetensors needs none

        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, OSError, ValueError, TypeError) as error:
            raise BadModelFile(f"the tokenizer is no SentencePiece model: {error}") from error
        return tuple(processor.id_to_piece(number) for number in range(processor.get_piece_size()))

    def _one(self, name: str) -> tuple[tarfile.TarInfo, IO[bytes]]:
        """Return the one plain file of that name, and its content."""
        found = [member for member in self._members if PurePosixPath(member.name).name == name and member.isreg()]
        if len(found) != 1:
            raise BadModelFile(f"{len(found)} files in the tar are named {name}; there must be one")
        if found[0].issparse():
            raise BadModelFile(f"{name} is stored as a sparse file")
        return found[0], cast("IO[bytes]", self._tar.extractfile(found[0]))

    def _content(self, name: str, most_bytes: int) -> bytes:
        member, content = self._one(name)
        if member.size > most_bytes:
            raise BadModelFile(f"{name} has {member.size:,} bytes; at most {most_bytes:,} are read")
        return content.read()


def _checked_members(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    members: list[tarfile.TarInfo] = []
    try:
        for member in tar:
            members.append(member)
            if len(members) > _MOST_MEMBERS:
                raise BadModelFile(f"the tar has more than {_MOST_MEMBERS:,} members")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BadModelFile(f"the tar is damaged or cut short: {error}") from error
    for member in members:
        place = PurePosixPath(member.name)
        if place.is_absolute() or ".." in place.parts:
            raise BadModelFile(f"the tar's member {member.name!r} has a path that leads outside of it")
        if not (member.isreg() or member.isdir()):
            raise BadModelFile(f"the tar's member {member.name!r} is a link or a device")
    return members


def read_config(text: bytes) -> Mapping[str, object]:
    """Parse the configuration and replace every value that is one reference, like `${model_defaults.enc_hidden}`.

    Other interpolations stay the text that they are: no resolver runs and no environment is read. Raises
    `BadModelFile` where the text is no YAML mapping, refers to what is not there or to itself, or would grow without
    bound.
    """
    try:
        _require_plain(text)
        config = yaml.load(text, _LOADER)  # noqa: S506  # it is the safe loader
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadModelFile(f"model_config.yaml is no YAML: {reason}") from error
    if not isinstance(config, Mapping):
        raise BadModelFile("model_config.yaml holds no mapping")
    references = _References(config)
    return {str(name): references.resolve(value, 1) for name, value in config.items()}


def _require_plain(text: bytes) -> None:
    """Refuse aliases and deep nesting before objects are made: the C parser overflows its stack on 100,000 levels."""
    depth = 0
    for event in yaml.parse(text, _PARSER):
        if isinstance(event, yaml.AliasEvent):
            raise BadModelFile("model_config.yaml uses YAML aliases, which NeMo does not write")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MOST_DEPTH:
            raise BadModelFile(f"model_config.yaml is nested more than {_MOST_DEPTH} levels deep")


class _References:
    """Resolves one configuration; a bound on values and depth ends circles and explosions."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config, self._values = config, 0

    def resolve(self, value: object, depth: int) -> object:
        self._values += 1
        if depth > _MOST_DEPTH or self._values > _MOST_VALUES:
            raise BadModelFile("the references of model_config.yaml are circular or multiply without bound")
        if isinstance(value, dict):
            return {name: self.resolve(one, depth + 1) for name, one in value.items()}
        if isinstance(value, list):
            return [self.resolve(one, depth + 1) for one in value]
        reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
        return self.resolve(self._at(reference[1]), depth + 1) if reference else value

    def _at(self, path: str) -> object:
        value: Any = self._config
        for name in path.split("."):
            try:
                value = value[int(name)] if isinstance(value, list) else value[name]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise BadModelFile(f"model_config.yaml refers to ${{{path}}}, which it does not hold") from error
        return value


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
