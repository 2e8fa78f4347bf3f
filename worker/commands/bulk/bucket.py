"""Objects of a bucket as rows: everything below a folder, or everything that a pattern matches."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from schemas.uris import GcsUri
from worker.adapters.gcs import open_object_store
from worker.commands.audio_file import SCHEME, fit_for_an_id
from worker.commands.bulk.rows import Row
from worker.ports import ObjectFacts

VideoIdFrom: TypeAlias = Literal["name", "folder", "path"]
"""The part of an object's name that becomes the video id."""
NO_AUDIO = re.compile(
    r"\.(csv|html|jpe?g|jsonl?|log|m3u8|md|ndjson|nemo|parquet|pdf|png|srt|tar|tsv|txt|vtt|webp|xml|ya?ml|zip)"
)
"""Endings of files that are found beside audio; the content decides for everything else."""


@dataclass(kw_only=True)
class BucketRows:
    """Rows of the audio that a pattern matches, with what was left out.

    In a pattern `*` matches within a folder and `**` across folders; a trailing `/` means everything below.
    """

    pattern: str
    video_id_from: VideoIdFrom
    project: str
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of objects by ending that are no audio."""
    seen: int = 0

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows. Raises `WorkerError` where the bucket cannot be listed."""
        bucket, _, rest = self.pattern.removeprefix(SCHEME).partition("/")
        fits, prefix = matcher(rest), rest.split("*")[0]
        for facts in _objects(self.project, bucket, prefix):
            name = facts.ref.name
            if name.endswith("/") or not fits.fullmatch(name):
                continue
            self.seen += 1
            ending = PurePosixPath(name).suffix.lower()
            if NO_AUDIO.fullmatch(ending):
                self.skipped[ending] += 1
                continue
            below = name.removeprefix(prefix[: prefix.rfind("/") + 1])
            uri, video_id = facts.ref.uri, _video_id(below, self.video_id_from)
            yield Row(number=self.seen, fields={"audio_uri": uri}, video_id=video_id, name=uri)


def matcher(pattern: str) -> re.Pattern[str]:
    """Return the pattern of object names as a regular expression."""
    whole = f"{pattern}**" if pattern.endswith("/") or not pattern else pattern
    parts = re.split(r"(\*+)", whole)
    return re.compile(
        "".join({"": "", "*": "[^/]*"}.get(p, ".*") if p.strip("*") == "" else re.escape(p) for p in parts)
    )


def is_valid_bucket(pattern: str) -> bool:
    """Return True where the address names a bucket before its first wildcard."""
    bucket, slash, _ = pattern.removeprefix(SCHEME).partition("/")
    try:
        GcsUri.parse_prefix(f"{SCHEME}{bucket}/")
    except ValueError:
        return False
    return bool(slash)


def _video_id(below: str, source: VideoIdFrom) -> str:
    path = PurePosixPath(below)
    match source:
        case "name":
            return fit_for_an_id(path.stem)
        case "folder":
            return fit_for_an_id(path.parent.name or path.stem)
        case "path":
            return fit_for_an_id(str(path.with_suffix("")).replace("/", "-"))


def _objects(project: str, bucket: str, prefix: str) -> Iterator[ObjectFacts]:
    """Yield the objects; the bucket is listed while the caller takes its time."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def opened() -> AsyncIterator[Sequence[ObjectFacts]]:
            return (await stack.enter_async_context(open_object_store(project=project))).pages(bucket, prefix)

        async def following(pages: AsyncIterator[Sequence[ObjectFacts]]) -> Sequence[ObjectFacts] | None:
            return await anext(pages, None)

        try:
            pages = runner.run(opened())
            while (page := runner.run(following(pages))) is not None:
                yield from page
        finally:
            runner.run(stack.aclose())
