"""A program for the inference process that has no model and does what the windows' first sample says."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from schemas.speech import Word
from worker.adapters.parakeet.child_process.serve import serve
from worker.adapters.parakeet.engine import ParakeetEngine, Patience
from worker.adapters.parakeet.frames import PassPlan, pass_capacity
from worker.adapters.parakeet.protocol import Batch, Done, EngineOptions, Ready
from worker.errors import GpuNotAvailable, ModelLoadingError
from worker.ports import EngineFacts, Pcm

# Starting a Python process on a busy machine may take seconds; whatever is not under test must not run out.
PATIENT = Patience(start_seconds=60, silence_seconds=20, first_backoff_seconds=0.01)


Refusal: TypeAlias = Literal["model", "gpu", "library"]
REFUSALS: Mapping[str, Exception] = {
    "model": ModelLoadingError("it", "as the test has it"),
    "gpu": GpuNotAvailable("as the test has it"),
    "library": EOFError("as the test has it"),
}


class Act(IntEnum):
    """Action of a window on the process; the second sample is its number."""

    SPEAK = 0
    DIE = 1
    RAISE = 2
    HANG = 3
    HANG_ONCE = 4
    FILL_THE_MEMORY = 5


def window(act: Act, number: int = 7) -> Pcm:
    """Return one second that is recognised as the word of its number, unless it has another action."""
    samples = np.zeros(16_000, dtype=np.int16)
    samples[:2] = act, number
    return samples


class Stage:
    """Folder through which a test and the processes communicate, passed as the model's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def engine(self, *, patience: Patience = PATIENT, batch_size: int = 4) -> ParakeetEngine:
        """An engine whose processes run the scripted program."""
        return ParakeetEngine(
            EngineOptions(
                model_name=str(self.folder),
                heartbeat_seconds=0.05,
                device="cpu",
                batch_size=batch_size,
                memory_limit_gib=1,
                log_format="json",
            ),
            patience=patience,
            program=main,
        )

    def refuse(self, starts: int, refusal: Refusal = "model") -> None:
        """Make the next starts fail: without a model, without a GPU, or by an unforeseen error."""
        for number in range(starts):
            (self.folder / f"refuse-{number}").write_text(refusal)

    def change_the_model(self) -> None:
        """Make the next processes report another model."""
        (self.folder / "fingerprint").write_text("changed")

    def keep_the_model(self) -> None:
        """Undo it."""
        (self.folder / "fingerprint").unlink()

    @property
    def hanging(self) -> bool:
        """A process has come to a window that hangs."""
        return (self.folder / "hanging").exists()

    def inherited(self) -> tuple[dict[str, str], list[str]]:
        """The environment and the open files of the process that started last."""
        environment, files = json.loads((self.folder / "inherited").read_text())
        return environment, files

    @property
    def starts(self) -> list[int]:
        """The process ids of all starts."""
        return [int(file.name.removeprefix("start-")) for file in self.folder.glob("start-*")]


def plan_of(options: EngineOptions) -> PassPlan:
    """Batches of at most `batch_size` windows."""
    return PassPlan(capacity=pass_capacity(options.batch_size), most_windows=options.batch_size)


class ScriptedModel:
    """The model of the scripted program."""

    def __init__(self, options: EngineOptions) -> None:
        self._folder, self._plan = Path(options.model_name), plan_of(options)
        (self._folder / f"start-{os.getpid()}").touch()
        (self._folder / "inherited").write_text(json.dumps([dict(os.environ), _open_files()]))
        print("stray output of a library")  # noqa: T201
        for mark in self._folder.glob("refuse-*"):
            refusal = mark.read_text()
            mark.unlink()
            raise REFUSALS[refusal]

    def ready(self) -> Ready:
        mark = self._folder / "fingerprint"
        facts = EngineFacts(
            model_name="scripted",
            model_fingerprint=mark.read_text() if mark.exists() else "first",
            device_name="cpu",
            uses_gpu=False,
            languages=frozenset({"en"}),
        )
        return Ready(facts=facts, device_memory_bytes=0, plan=self._plan)

    def answers(self, take: Callable[[bool], Batch | None]) -> Iterator[Done]:
        while (batch := take(True)) is not None:
            yield self._answer(batch)

    def _answer(self, batch: Batch) -> Done:
        words = tuple(self._perform(Act(samples[0]), int(samples[1])) for samples in batch.windows)
        fits = not any(samples[0] == Act.FILL_THE_MEMORY for samples in batch.windows)
        return Done(words=words if fits else None, seconds=0.25, device_memory_bytes=4096)

    def _perform(self, act: Act, number: int) -> tuple[Word, ...]:
        first_time = not (self._folder / "hanging").exists()
        match act:
            case Act.DIE:
                os.kill(os.getpid(), signal.SIGKILL)
            case Act.RAISE:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            case Act.HANG | Act.HANG_ONCE if act is Act.HANG or first_time:
                (self._folder / "hanging").touch()
                while True:
                    signal.pause()
        return (Word(str(number), 0.0, 0.5, 1.0),)


def _open_files() -> list[str]:
    """Return the open descriptors of the process, without the listing's own; empty on systems without the listing."""
    folder = Path("/proc/self/fd")
    names = list(folder.iterdir()) if folder.exists() else []
    return [str(name.readlink()) for name in names if name.is_symlink()]  # the listing's own is closed by now


def main(pipe: Connection, parent_pid: int, options: EngineOptions) -> None:
    """The program."""
    serve(pipe, parent_pid, options, ScriptedModel)
