"""A real inference process without a model: returns the twin's words, and dies of windows with a deadly sample."""

import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from tests.support.engines.scripted_engine import PATIENT, plan_of
from worker.adapters.memory.recogniser import words_in
from worker.adapters.parakeet.child_process.serve import serve
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.adapters.parakeet.protocol import Batch, Done, EngineOptions, Ready
from worker.ports import SAMPLE_RATE_HZ, EngineFacts, Pcm

DEADLY = 30_000
BATCH_SECONDS = 0.25

FACTS = EngineFacts(
    model_name="mortal",
    model_fingerprint="mortal-1",
    device_name="a test GPU",
    uses_gpu=True,
    languages=frozenset({"en"}),
)


def make_deadly(samples: Pcm, *seconds: float) -> Pcm:
    """The same audio with a deadly sample at each of these times."""
    marked = samples.copy()
    marked[[round(at * SAMPLE_RATE_HZ) for at in seconds]] = DEADLY
    return marked


def mortal_engine() -> ParakeetEngine:
    """To be entered."""
    return ParakeetEngine(
        EngineOptions(
            model_name="mortal",
            heartbeat_seconds=0.05,
            device="cpu",
            batch_size=4,
            memory_limit_gib=1,
            log_format="json",
        ),
        patience=PATIENT,
        program=main,
    )


class MortalModel:
    def __init__(self, options: EngineOptions) -> None:
        self._plan = plan_of(options)

    def ready(self) -> Ready:
        return Ready(facts=FACTS, device_memory_bytes=0, plan=self._plan)

    def answers(self, take: Callable[[bool], Batch | None]) -> Iterator[Done]:
        while (batch := take(True)) is not None:
            yield self._answer(batch)

    def _answer(self, batch: Batch) -> Done:
        if any((window == DEADLY).any() for window in batch.windows):
            os.kill(os.getpid(), signal.SIGKILL)
        words = tuple(tuple(words_in(window)) for window in batch.windows)
        return Done(words=words, seconds=BATCH_SECONDS, device_memory_bytes=0)


def main(pipe: Connection, parent_pid: int, options: EngineOptions) -> None:
    """The program of the process."""
    serve(pipe, parent_pid, options, MortalModel)
