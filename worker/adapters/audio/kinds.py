"""Names of what people upload by mistake, by its first bytes; for messages only."""

from pathlib import Path

_KINDS = (
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ", "xz data"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"#EXTM3U", "an HLS playlist, which names audio and holds none"),
    (b"ffconcat", "a concat script, which names audio and holds none"),
    (b"<?xml", "an XML document"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"wvpk", "WavPack"),
    (b"MAC ", "Monkey's Audio"),
    (b"MThd", "MIDI, which holds notes and no sound"),
    (b"\x00\x00\x01\xba", "an MPEG program stream"),
    (b"DSD ", "DSD"),
    (b".RMF", "RealMedia"),
    (b"TTA1", "True Audio"),
    (b"{", "JSON"),
)
_HEAD_BYTES = 64


def kind_of(path: Path) -> str | None:
    """Return what the file is, where its first bytes are among those known."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for magic, kind in _KINDS if head.startswith(magic.lower())), None)
