"""No speech recognition at all, at a pace: what load and chaos tests run in place of a model."""

import asyncio
import re
from math import inf

from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.ports import SAMPLE_RATE_HZ, Pcm

_NAME = re.compile(r"null(?::(\d+(?:\.\d+)?)x)?")


def null_speed(model_name: str) -> float | None:
    """Return the speed in times real time that `null:200x` names, infinity for `null`, None for a model."""
    if (asked := _NAME.fullmatch(model_name)) is None:
        return None
    return float(asked[1] or inf) or inf


def null_engine(speed: float) -> MemoryRecogniser:
    """Create the in-memory twin with a device's pace: one window at a time, each taking its length divided by `speed`.

    Words and facts do not depend on the speed, so checkpoints of one speed are valid for another.
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
