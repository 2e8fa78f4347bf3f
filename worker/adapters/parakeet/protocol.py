"""Messages between the worker and its inference process."""

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from schemas.codes import ErrorCode
from schemas.speech import Word
from worker.adapters.parakeet.frames import PassPlan
from worker.ports import EngineFacts, Pcm

if TYPE_CHECKING:
    from worker.telemetry import LogFormat, LogLevel  # which imports structlog, and a bare GPU machine has none

Precision: TypeAlias = Literal["bfloat16", "float16", "float32"]
"""Precision of the model; torch's names."""

EngineKind: TypeAlias = Literal["auto", "native", "nemo"]
"""The worker's own network, NeMo, or with auto the network where it knows the model and NeMo otherwise."""

DEFAULT_KEYTERM_WEIGHT = 3.5
"""The default of KEYTERM_WEIGHT."""

PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""A terminal and a platform send these to the whole process group; only the worker acts on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """Options of an inference process."""

    model_name: str
    """A hub name, or a file or folder."""
    device: str
    """cuda, cpu or auto; `cuda` without a GPU never falls back to the CPU."""
    batch_size: int | None
    """Most windows of 30 s in a pass of the encoder; None: as suits the device."""
    memory_limit_gib: float
    gpu_precision: Precision = "bfloat16"
    gpu_graphs: bool = True
    cpu_threads: int = 1
    """Number of windows encoded concurrently on a CPU."""
    overlap: bool = True
    """Encode the next batches before the decoder has finished the last; False: one batch after the other."""
    heartbeat_seconds: float = 0.5
    log_format: "LogFormat" = "auto"
    log_level: "LogLevel" = "info"
    keyterm_weight: float = DEFAULT_KEYTERM_WEIGHT
    """Boost of a whole keyterm in log-probability; 0: keyterms change nothing."""
    engine: EngineKind = "auto"
    languages: frozenset[str] = frozenset()
    """The model's languages; empty: those that it is known for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """To the process: the windows of one pass of the encoder, within the plan that the process was ready with."""

    windows: tuple[Pcm, ...]
    is_last: bool
    """No other window was waiting when the batch was sent: a chunk ends with it."""
    keyterms: tuple[tuple[str, ...], ...] = ()
    """Those of each window; empty where no window has any."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The process is alive and gets processor time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The model is loaded and warm."""

    facts: EngineFacts
    device_memory_bytes: int
    plan: PassPlan
    batches_in_flight: int = 2
    """Number of full batches that keep the process busy: it encodes some before it answers others."""
    pieces: tuple[str, ...] = ()
    """The vocabulary; empty: not known, and every keyterm passes for speakable."""


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
