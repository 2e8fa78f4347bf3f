"""A real inference process on a simulated GPU: without a model, but its memory runs out as an allocator's does."""

from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from tests.support.engines.mortal_engine import FACTS
from tests.support.engines.scripted_engine import PATIENT, plan_of
from worker.adapters.memory.recogniser import words_in
from worker.adapters.parakeet.child_process.serve import serve
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.adapters.parakeet.protocol import Batch, Done, EngineOptions, Ready
from worker.ports import SAMPLE_RATE_HZ

WEIGHTS_BYTES = 2 * 2**30
BYTES_PER_SECOND = 20 * 2**20
"""Memory of a pass for a second of audio, so that an L4's 20 GiB hold 30 windows of 30 s."""
BLOCK_SECONDS = 30
MEASURED, UNMEASURED = "measured", "unmeasured"
NEIGHBOUR_BYTES = 12 * 2**30
"""Memory taken by another process during every second hundred of batches."""


class SimulatedGpu:
    """An allocator with a cap."""

    def __init__(self, cap_bytes: float) -> None:
        self._cap_bytes = cap_bytes
        self.taken_by_others_bytes = 0
        self.peak_bytes = 0

    def encode(self, seconds: int) -> None:
        import torch  # noqa: PLC0415  for the inference process alone

        wanted = WEIGHTS_BYTES + seconds * BYTES_PER_SECOND
        if wanted + self.taken_by_others_bytes > self._cap_bytes:
            raise torch.OutOfMemoryError
        self.peak_bytes = max(self.peak_bytes, wanted)


class CappedModel:
    """Recognises as the twin does, in passes as large as the worker's own code finds to fit."""

    def __init__(self, options: EngineOptions) -> None:
        from worker.adapters.parakeet.network.passes import PassLimit, blocks_within  # noqa: PLC0415  needs torch

        self._plan, self._batches = plan_of(options), 0
        cap_bytes = options.memory_limit_gib * 2**30
        self._gpu, self._limit = SimulatedGpu(cap_bytes), PassLimit(options.batch_size)
        if options.model_name == MEASURED:
            free, block_bytes = cap_bytes - WEIGHTS_BYTES, BLOCK_SECONDS * BYTES_PER_SECOND
            self._limit.set_most(blocks_within(free, block_bytes, options.batch_size))

    def ready(self) -> Ready:
        return Ready(facts=FACTS, device_memory_bytes=0, plan=self._plan)

    def answers(self, take: Callable[[bool], Batch | None]) -> Iterator[Done]:
        while (batch := take(True)) is not None:
            yield self._answer(batch)

    def _answer(self, batch: Batch) -> Done:
        import torch  # noqa: PLC0415

        self._batches += 1
        self._gpu.taken_by_others_bytes = NEIGHBOUR_BYTES if self._batches // 100 % 2 else 0
        blocks = sum(-(-len(window) // (BLOCK_SECONDS * SAMPLE_RATE_HZ)) for window in batch.windows)
        while blocks > 0:
            size = self._limit.blocks
            try:
                self._gpu.encode(size * BLOCK_SECONDS)
            except torch.OutOfMemoryError:
                if not self._limit.shrink():
                    raise
            else:
                self._limit.fitted()
                blocks -= size
        words = tuple(tuple(words_in(window)) for window in batch.windows)
        return Done(words=words, seconds=0.01, device_memory_bytes=self._gpu.peak_bytes)


def capped_engine(model_name: str, *, batch_size: int, cap_gib: float) -> ParakeetEngine:
    """To be entered."""
    return ParakeetEngine(
        EngineOptions(
            model_name=model_name,
            heartbeat_seconds=0.05,
            device="cpu",
            batch_size=batch_size,
            memory_limit_gib=cap_gib,
            log_format="json",
        ),
        patience=PATIENT,
        program=main,
    )


def main(pipe: Connection, parent_pid: int, options: EngineOptions) -> None:
    """The program of the process."""
    serve(pipe, parent_pid, options, CappedModel)
