"""Speech engines that go wrong as a test says."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from schemas.speech import Word
from worker.adapters.memory.recogniser import MEMORY_FACTS, MemoryRecogniser, Script, at_once
from worker.errors import EngineFailure
from worker.ports import SAMPLE_RATE_HZ, EngineFacts, Pcm, Recognition


def failing_where(is_bad: Callable[[Pcm], bool], error: Callable[[], Exception] | None = None) -> Script:
    """A recogniser's script that fails the windows (or chunks) for which that holds."""

    async def script(samples: Pcm, _job_id: str) -> None:
        if is_bad(samples):
            raise error() if error else EngineFailure("parakeet", "it broke")

    return script


def everything(_samples: Pcm) -> bool:
    return True


class FlatRateRecogniser(MemoryRecogniser):
    """Charges every window alike, so that a bill can be reckoned by hand."""

    def __init__(self, *, script: Script = at_once, seconds_a_window: float) -> None:
        super().__init__(script=script, facts=replace(MEMORY_FACTS, uses_gpu=True, device_name="a test GPU"))
        self._seconds_a_window = seconds_a_window

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        heard = await super().recognise(samples, job_id, keyterms=keyterms, team_id=team_id)
        return replace(heard, engine_seconds=self._seconds_a_window)


class StuckRecogniser:
    """Returns one repeated word for the windows for which `is_stuck` is True, so that they fail a quality gate."""

    def __init__(self, is_stuck: Callable[[Pcm], bool] = everything, speed: float = 100.0) -> None:
        self._is_stuck = is_stuck
        self._honest = MemoryRecogniser(speed=speed)
        self.windows = 0

    @property
    def facts(self) -> EngineFacts:
        return MEMORY_FACTS

    def unspeakable(self, keyterms: Sequence[str]) -> tuple[str, ...]:
        return self._honest.unspeakable(keyterms)

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        self.windows += 1
        heard = await self._honest.recognise(samples, job_id, keyterms=keyterms, team_id=team_id)
        if not self._is_stuck(samples):
            return heard
        step = len(samples) / SAMPLE_RATE_HZ / 40
        words = tuple(Word("no", number * step, number * step + step / 2, 0.9) for number in range(40))
        return Recognition(words=words, engine_seconds=heard.engine_seconds)
