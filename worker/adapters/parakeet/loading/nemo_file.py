"""A `.nemo` file: a plain tar of a YAML configuration, a zip of weights and a SentencePiece tokenizer.

Nothing is unpacked. The weights are mapped where they lie and read when they are first used; mapping copies nothing,
where unpacking would write 2.5 GB to a temporary folder, which in a container is memory.
"""

import tarfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Self

from torch import Tensor

from worker.adapters.parakeet.loading import BadModelFile
from worker.adapters.parakeet.loading.nemo_config import MOST_BYTES, read_config
from worker.adapters.parakeet.loading.torch_weights import WEIGHTS, mapped_weights
from worker.adapters.parakeet.network.options import UnsupportedModel

CONFIG = "model_config.yaml"

_MOST_MEMBERS = 10_000
_MOST_TOKENIZER_BYTES = 64 * 2**20
_GZIP = b"\x1f\x8b"


class NemoFile:
    """An open `.nemo` file; a context manager. Its methods raise `BadModelFile`."""

    def __init__(self, path: Path) -> None:
        """Open the file and check its list of members.

        Raises `OSError` for a file that cannot be read, `BadModelFile` for one that is no whole tar or that holds
        links or paths which lead out of it, and `UnsupportedModel` for a compressed tar, as NeMo wrote before 1.7.
        """
        self._path = path
        try:
            tar = tarfile.open(path, "r:")  # noqa: SIM115  # closed by __exit__
        except tarfile.TarError as error:
            with path.open("rb") as file:
                if file.read(len(_GZIP)) == _GZIP:
                    raise UnsupportedModel("the file is a compressed tar, as NeMo wrote before 1.7") from error
            raise BadModelFile(f"it is no .nemo file, which is a tar: {error}") from error
        with ExitStack() as unless_refused:
            unless_refused.enter_context(tar)
            self._tar, self._members = tar, _checked_members(tar)
            unless_refused.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def config(self) -> Mapping[str, object]:
        """Return the configuration with its references resolved."""
        return read_config(self._content(CONFIG, MOST_BYTES))

    def weights(self) -> Mapping[str, Tensor]:
        """Map the weights: see `mapped_weights`."""
        member = self._one(WEIGHTS)
        return mapped_weights(self._path, member.offset_data, self._opened(member))

    def pieces(self, config: Mapping[str, object]) -> tuple[str, ...]:
        """Return the tokenizer's pieces in the order of their ids.

        Raises `UnsupportedModel` where the configuration names no SentencePiece model.
        """
        tokenizer = config.get("tokenizer")
        name = tokenizer.get("model_path") if isinstance(tokenizer, Mapping) else None
        if not isinstance(name, str) or not name:
            raise UnsupportedModel("the configuration names no SentencePiece model at tokenizer.model_path")
        return sentencepiece_pieces(
            self._content(PurePosixPath(name.removeprefix("nemo:")).name, _MOST_TOKENIZER_BYTES)
        )

    def _one(self, name: str) -> tarfile.TarInfo:
        found = [member for member in self._members if PurePosixPath(member.name).name == name and member.isreg()]
        if len(found) != 1:
            raise BadModelFile(f"{len(found)} files in the tar are named {name}; there must be one")
        if found[0].issparse():
            raise BadModelFile(f"{name} is stored as a sparse file")
        return found[0]

    def _opened(self, member: tarfile.TarInfo) -> IO[bytes]:
        file = self._tar.extractfile(member)
        if file is None:
            raise BadModelFile(f"{member.name} is no file")
        return file

    def _content(self, name: str, most_bytes: int) -> bytes:
        member = self._one(name)
        if member.size > most_bytes:
            raise BadModelFile(f"{name} has {member.size:,} bytes; at most {most_bytes:,} are read")
        with self._opened(member) as file:
            return file.read()


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


def sentencepiece_pieces(model: bytes) -> tuple[str, ...]:
    """Return the pieces of a serialised SentencePiece model. Raises `BadModelFile`."""
    import sentencepiece  # noqa: PLC0415  # a folder of safetensors needs none

    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise BadModelFile(f"the tokenizer is no SentencePiece model: {error}") from error
    return tuple(processor.id_to_piece(number) for number in range(processor.get_piece_size()))
