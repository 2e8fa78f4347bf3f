"""What crosses the pipe between the worker and its inference process."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.codes import ErrorCode
from schemas.speech import Word
from worker.ports import EngineFacts, Pcm
from worker.telemetry import LogFormat

Precision: TypeAlias = Literal["bfloat16", "float16", "float32"]
"""Of the model; torch's names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """What an inference process is started with."""

    model_name: str
    device: str
    batch_size: int
    memory_limit_gib: float
    gpu_precision: Precision
    gpu_graphs: bool
    cpu_threads: int
    """How many windows are encoded side by side on a CPU."""
    heartbeat_seconds: float
    log_format: LogFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """To the process: windows of one bucket, or of any where it mixes lengths; at most `batch_size` of them."""

    windows: tuple[Pcm, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """The process is alive and gets processor time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The model is loaded and warm."""

    facts: EngineFacts
    device_memory_bytes: int
    mixes_lengths: bool = False
    """A batch may hold windows of any lengths, and none costs more for it."""
    batches_under_way: int = 2
    """So many full ones keep the process busy: it begins some before it answers others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The process ends: it could not start, or an error that it cannot survive struck it."""

    code: ErrorCode
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """The words of each window of the batch, in order; None: not even one window fits into device memory.

    `seconds` is the batch's share of the engine's time; the shares add up to what the engine was busy.
    """

    words: tuple[tuple[Word, ...], ...] | None
    seconds: float
    device_memory_bytes: int


Answer: TypeAlias = Beat | Ready | Failed | Done
