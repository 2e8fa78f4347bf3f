"""No speech recognition at all, at a pace: what load and chaos tests run in place of a model."""

import asyncio
import re
from math import inf

from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.ports import SAMPLE_RATE_HZ, Pcm

_NAME = re.compile(r"null(?::(\d+(?:\.\d+)?)x)?")


def null_speed(model_name: str) -> float | None:
    """How many times real time `null` or `null:200x` asks for, infinity where it does not say; None for a model."""
    if (asked := _NAME.fullmatch(model_name)) is None:
        return None
    return float(asked[1] or inf) or inf


def null_engine(speed: float) -> MemoryRecogniser:
    """The in-memory twin with a device's pace: one window at a time, each taking its length divided by `speed`.

    Words and facts do not depend on the speed, so chunks heard at one are good at another.
    """
    return MemoryRecogniser(script=_Pace(speed), speed=speed)


class _Pace:
    """Keeps the windows of all jobs in one line."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._device = asyncio.Lock()

    async def __call__(self, samples: Pcm, job_id: str) -> None:
        del job_id
        async with self._device:
            await asyncio.sleep(len(samples) / SAMPLE_RATE_HZ / self._speed)
