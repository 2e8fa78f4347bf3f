"""A `.nemo` file: a plain tar of a YAML configuration, a zip of weights and a SentencePiece tokenizer.

Nothing is unpacked. The weights are mapped where they lie and read when they are first used; mapping copies nothing,
where unpacking would write 2.5 GB to a temporary folder, which in a container is memory.
"""

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import yaml
from torch import Tensor

from worker.adapters.parakeet.loading import BadModelFile
from worker.adapters.parakeet.loading.torch_weights import WEIGHTS, mapped_weights
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
