"""`.nemo` files made from the tiny model: repacked, damaged and hostile."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from worker.embedded.samples import tiny_model

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"

Change = Callable[[bytes], bytes]


def contents() -> dict[str, bytes]:
    """The tiny model's members by their file names."""
    with tarfile.open(tiny_model()) as tar:
        return {PurePosixPath(one.name).name: _read(tar, one) for one in tar if one.isfile()}


def nemo_file(path: Path, changes: Mapping[str, Change] | None = None, *, mode: str = "w:") -> Path:
    """Write the tiny model again with some of its members changed."""
    members = contents()
    for name, change in (changes or {}).items():
        members[name] = change(members[name])
    return tar_of(path, members.items(), mode=mode)


def tar_of(path: Path, members: Iterable[tuple[str, bytes]], *, mode: str = "w:") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def zip_with(content: bytes, changes: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The same zip of weights with some records changed, such as `data.pkl`."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(written, "w", compression) as new:
        for record in old.infolist():
            data = changes.get(record.filename.partition("/")[2])
            new.writestr(record.filename, old.read(record) if data is None else data)
    return written.getvalue()


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()
