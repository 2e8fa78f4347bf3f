"""Cloud Storage behind a network that refuses, loses and cuts by the dice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from tests.chaos.dice import Dice, Fate
from tests.support.services.http_faults import (
    Fault,
    FaultyProxy,
    Forward,
    cut_body,
    faulty_proxy,
    lose_reply,
    plainly,
    refuse,
    stall,
)

UNAVAILABLE = 503
CUT_BYTES = 10_000


def gcs_proxy(upstream: str, dice: Dice) -> AbstractAsyncContextManager[FaultyProxy]:
    """A proxy in front of that server; operations are called `upload`, `download`, `delete`, `stat` and `list`."""
    return faulty_proxy(upstream, lambda head: _late(dice.delay_seconds(operation(head)), _fault(dice, head)))


def operation(head: bytes) -> str:
    """Operation in the request's first line."""
    method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
    if method == "GET":
        if "alt=media" in path:
            return "download"
        return "stat" if "/o/" in path else "list"
    return {"DELETE": "delete", "POST": "upload", "PUT": "upload"}.get(method, method)


def _fault(dice: Dice, head: bytes) -> Fault:
    faults: dict[Fate, Fault] = {
        Fate.WELL: plainly,
        Fate.REFUSED: refuse(UNAVAILABLE),
        Fate.REPLY_LOST: lose_reply,
        Fate.CUT: cut_body(CUT_BYTES),
        Fate.STALLED: stall,
    }
    return faults[dice.fate(operation(head))]


def _late(seconds: float, fault: Fault) -> Fault:
    async def later(forward: Forward) -> AsyncIterator[bytes]:
        await asyncio.sleep(seconds)
        async for piece in fault(forward):
            yield piece

    return later
