"""`gs://` addresses, and the only code that keeps them inside their bucket and prefix.

Cloud Storage gives `.` and `..` no meaning, but file-backed servers and other tools do, so such names are refused.
Names are never normalised. Names that only look deceptive, such as those with bidirectional overrides, are valid;
`schemas.text.plain` escapes them for display.
"""

import re
from dataclasses import dataclass

MAX_NAME_BYTES = 1024
MAX_PREFIX_BYTES = 768
"""Leaves space for the longest artefact name, `audio_{128 characters}_paragraphs.csv`."""

MAX_BUCKET_PART = 63

_URI = re.compile(r"gs://([^/]*)/(.*)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class GcsUri:
    """An object in a Cloud Storage bucket, or a prefix if the name is empty or ends in `/`."""

    bucket: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "GcsUri":
        """Parse the address of an object. Raises `ValueError` with the reason."""
        uri = cls._split(text, "gs://bucket/object")
        if not uri.name or uri.name.endswith("/"):
            raise ValueError("must name an object: gs://bucket/object")
        _check_name(uri.name, MAX_NAME_BYTES)
        return uri

    @classmethod
    def parse_prefix(cls, text: str) -> "GcsUri":
        """Parse the address of a folder, such as the bucket's root `gs://bucket/`. Raises `ValueError`."""
        uri = cls._split(text, "gs://bucket/prefix/")
        if uri.name and not uri.name.endswith("/"):
            raise ValueError("must end with '/': gs://bucket/prefix/")
        if uri.name.startswith("/") or "//" in uri.name:
            raise ValueError("must not hold an empty path segment ('//')")
        _check_name(uri.name, MAX_PREFIX_BYTES)
        return uri

    @classmethod
    def _split(cls, text: str, form: str) -> "GcsUri":
        match = _URI.fullmatch(text)
        if match is None:
            raise ValueError(f"must have the form {form}")
        bucket, name = match.groups()
        if not is_bucket(bucket):
            raise ValueError(
                "must name a bucket of 3 to 63 characters (222 with dots, 63 between them) of a-z 0-9 . _ - that a "
                "letter or digit encloses"
            )
        return cls(bucket, name)

    def child(self, name: str) -> "GcsUri":
        """Return the object directly below this prefix. Raises `ValueError` for a name that would leave the prefix."""
        if self.name and not self.name.endswith("/"):
            raise ValueError(f"{self} is an object, not a prefix")
        if not name or "/" in name or name in {".", ".."}:
            raise ValueError(f"{name!r} is not the name of an object below a prefix")
        return GcsUri(self.bucket, self.name + name)

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.name}"


def is_bucket(name: str) -> bool:
    """Return True for what can be the name of a bucket."""
    parts = name.split(".")
    return bool(_BUCKET.fullmatch(name)) and all(0 < len(part) <= MAX_BUCKET_PART for part in parts)


def _check_name(name: str, limit_bytes: int) -> None:
    if len(name.encode()) > limit_bytes:
        raise ValueError(f"must have at most {limit_bytes} bytes after the bucket")
    if _CONTROL.search(name):
        raise ValueError("must not hold control characters")
    if not {".", ".."}.isdisjoint(name.split("/")):
        raise ValueError("must not hold '.' or '..' as a path segment")
