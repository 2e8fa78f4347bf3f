"""Job messages of 1 MiB that are laborious to read, each by another trait; and the silence of an event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from schemas.job import MAX_JOB_BYTES

HEAD = '{"job_id": "job-1", "video_id": "vod", "audio_uri": "gs://audio/a.pcm"'
NESTING = 200
"""Nesting limit of pydantic's JSON parser."""


def _filled(part: Callable[[int], str], *, last: str = "") -> bytes:
    """A job with as many members as fit, and `last`."""
    parts: list[str] = []
    room = MAX_JOB_BYTES - len(HEAD) - len(last) - 2
    for number in range(MAX_JOB_BYTES):
        text = part(number)
        room -= len(text) + 1
        if room < 0:
            break
        parts.append(text)
    return (",".join([HEAD, *parts]) + last + "}").encode()


def _doubled() -> bytes:
    half = _filled(lambda number: f'"k{number:07d}":1').decode().split(",")
    members = half[3 : len(half) // 2]
    return ",".join([HEAD, *members, *members]).encode() + b"}"


def _inside(name: str, item: str, *, opening: str = "[", closing: str = "]") -> bytes:
    """A job whose field `name` holds as many items as fit."""
    start = f'{HEAD},"{name}":{opening}'
    count = (MAX_JOB_BYTES - len(start) - len(item) - 3) // (len(item) + 1)
    return (start + ",".join([item] * (count + 1)) + closing + "}").encode()


def _deep(name: str) -> bytes:
    return _inside(name, "[" * 28 + "]" * 28, opening='{"a":[', closing="]}")


def _text(name: str, start: str = "") -> bytes:
    text = f'{HEAD},"{name}":"{start}'
    return (text + "y" * (MAX_JOB_BYTES - len(text) - 2) + '"}').encode()


INVALID: dict[str, Callable[[], bytes]] = {
    "all keys different but the last two": lambda: _filled(lambda n: f'"k{n:07d}":1', last=',"z":1,"z":1'),
    "every key doubled": _doubled,
    "nesting beyond the limit": lambda: _filled(lambda n: f'"k{n}":{"[" * 500}{"]" * 500}'),
    "one language of 1 MiB": lambda: _text("language", "en-x-aaaaaaaa-"),
    "one prefix of 1 MiB": lambda: _text("output_uri_prefix", "gs://out/"),
    "one method of 1 MiB": lambda: _text("force_method"),
    "one deadline of 1 MiB": lambda: _text("expires_at", "2026-11-22T10:00:00."),
    "half a million wrong outputs": lambda: _inside("outputs", "1"),
    "wide and deep where a method should be": lambda: _inside("force_method", "[[[[[1,1,1,1,1,1]]]]]"),
    "a number of 1 MiB": lambda: _inside("x", "9" * (MAX_JOB_BYTES - 100)),
    "no JSON": lambda: b"\xff" * MAX_JOB_BYTES,
    "no object": lambda: b"[" + b"1," * (MAX_JOB_BYTES // 2 - 2) + b"1]",
    "7 MB of noughts": lambda: b"0" * 7_000_000,
    "10 MB of noughts": lambda: b"0" * 10_000_000,
}
"""Messages that are no jobs: `INVALID_JOB` is their verdict."""

VALID: dict[str, Callable[[], bytes]] = {
    "100,000 unknown fields": lambda: _filled(lambda n: f'"{n:05x}":1' if n < 100_000 else " " * MAX_JOB_BYTES),
    "nesting at the limit": lambda: _filled(lambda n: f'"k{n}":{"[" * (NESTING - 1)}{"]" * (NESTING - 1)}'),
    "one unknown string of 1 MiB": lambda: _text("x"),
    "one echoed string of 1 MiB": lambda: _text("created_at"),
    "metadata of many small lists": lambda: _inside("metadata", "[]", opening='{"a":[', closing="]}"),
    "metadata wide and deep": lambda: _deep("metadata"),
    "unknown settings": lambda: _filled(lambda n: f'"{n:x}":1', last=',"transcription_config":{"a":1}'),
}
"""Messages that are jobs, with much beside them."""


@dataclass(kw_only=True)
class Silence:
    """The longest time in which an event loop did nothing else."""

    seconds: float = 0.0


@asynccontextmanager
async def listening() -> AsyncIterator[Silence]:
    """Measure the longest silence of the running loop."""
    silence = Silence()
    task = asyncio.create_task(_listen(silence))
    try:
        yield silence
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _listen(silence: Silence) -> None:
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        silence.seconds, last = max(silence.seconds, now - last), now
