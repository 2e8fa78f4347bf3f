"""The note beside a `.nemo` file: its SHA-256, which keys every checkpoint, written while an image is built.

Summing 2.5 GB takes seconds, so a worker trusts the note, once it has seen that the note is of this very file: it also
holds a digest of what a few hundred KB say of the file: its size, the place of every member, all of every small member
(configuration, tokenizer), and place, size and CRC-32 of every record of the weights, which the preparation has
compared with the weights. So another model, other weights of the same architecture or a file cut short do not match.
Bytes of weights that changed on the disk do: only reading them all finds that out, and an image's layers are checked
when it is pulled.

Also a program, which needs nothing of ours, since an image has its model before it has our code:
`python3 checksum_note.py MODEL.nemo FOLDER` leaves the note in the folder, where there is such a model.
"""

import hashlib
import json
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

WEIGHTS = "model_weights.ckpt"


class UnusualFileError(Exception):
    """The file is not as NeMo writes a model since 1.7: a plain tar with an uncompressed zip of weights, both whole."""


def note_of(model: Path) -> Path:
    """Return the place of its note."""
    return model.with_name(f"{model.name}.prepared.json")


def prepare(model: Path) -> str:
    """Return the note's text, after all weights were compared with their CRC-32. Raises `UnusualFileError`."""
    with _opened(model) as (_, weights):
        changed = weights.testzip()
    if changed:
        raise UnusualFileError(f"{changed} of the weights has not the CRC-32 noted for it")
    return json.dumps({"sha256": sum_of(model), "says": _what_it_says(model)}) + "\n"


def noted_sum(model: Path) -> str:
    """Return the SHA-256 of the file, hex, from its note.

    Raises `FileNotFoundError` where there is no note, and `UnusualFileError` or `ValueError` where it is of another
    file or either of them is damaged.
    """
    noted = json.loads(note_of(model).read_text())
    if not isinstance(noted, dict) or noted.get("says") != _what_it_says(model):
        raise ValueError("it is of another file")
    return str(noted["sha256"])


def sum_of(model: Path) -> str:
    """Return the SHA-256 of the file, hex, by reading all of it."""
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _what_it_says(model: Path) -> str:
    says = [str(model.stat().st_size)]
    with _opened(model) as (tar, weights):
        for member in tar:
            says.append(f"{member.name} {member.offset_data} {member.size}")
            if member.isfile() and PurePosixPath(member.name).name != WEIGHTS:
                content = cast("IO[bytes]", tar.extractfile(member))
                says.append(hashlib.sha256(content.read()).hexdigest())
        records = weights.infolist()
        says += [f"{one.filename} {one.header_offset} {one.file_size} {one.CRC:08x}" for one in records]
    return hashlib.sha256("\n".join(says).encode()).hexdigest()


@contextmanager
def _opened(model: Path) -> Iterator[tuple[tarfile.TarFile, zipfile.ZipFile]]:
    """Open the tar and the weights in it. Raises `UnusualFileError`, also for errors of the block."""
    try:
        with tarfile.open(model, "r:") as tar:
            found = [member for member in tar if PurePosixPath(member.name).name == WEIGHTS]
            if len(found) != 1:
                raise UnusualFileError(f"{len(found)} members are named {WEIGHTS}")
            file = tar.extractfile(found[0])
            if file is None:
                raise UnusualFileError(f"{found[0].name} is no file")
            yield tar, zipfile.ZipFile(file)
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise UnusualFileError(f"{model.name}: {error}") from error


def main(model: Path, folder: Path) -> None:
    """Write the note of the model, if there is one, into the folder; without it a start is only slower."""
    folder.mkdir(exist_ok=True)
    try:
        (folder / note_of(model).name).write_text(prepare(model))
    except (FileNotFoundError, UnusualFileError) as error:
        sys.stderr.write(f"not prepared: {error}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
