"""The inference process's answers: a loaded model behind the messages of the pipe."""

import time
from collections.abc import Iterator

import structlog
import torch

from worker.adapters.machine.allocator import return_what_is_free
from worker.adapters.parakeet.child_process.pipeline import Ahead, Take
from worker.adapters.parakeet.inference import WindowsToWords
from worker.adapters.parakeet.model import load_model
from worker.adapters.parakeet.protocol import Done, EngineOptions, Ready
from worker.ports import EngineFacts

log = structlog.get_logger()

BATCHES_TO_TRIM = 4
"""On a CPU. It takes less of the tiny model's time than runs differ by; after every eighth the heap grew by 30 MiB."""


class Serving:
    """Answers batches with a model that is warm."""

    def __init__(self, model: WindowsToWords, facts: EngineFacts) -> None:
        self._model, self._facts = model, facts
        self._untrimmed = 0

    def ready(self) -> Ready:
        """Say what was loaded."""
        return Ready(
            facts=self._facts,
            device_memory_bytes=self._device_memory(),
            mixes_lengths=self._model.mixes_lengths,
            batches_under_way=self._model.windows_under_way // self._model.batch_size,
        )

    def answers(self, take: Take) -> Iterator[Done]:
        """Recognise what is taken, in order, until no more will come."""
        for heard in Ahead(self._model).answers(take):
            self._trim()
            yield Done(words=heard.words, seconds=heard.seconds, device_memory_bytes=self._device_memory())

    def _trim(self) -> None:
        self._untrimmed += 1
        if not self._facts.uses_gpu and self._untrimmed == BATCHES_TO_TRIM:
            self._untrimmed = 0
            return_what_is_free()

    def _device_memory(self) -> int:
        return torch.cuda.max_memory_reserved() if self._facts.uses_gpu else 0


def open_model(options: EngineOptions) -> Serving:
    """Load and warm up the model. Raises what `load_model` raises, and what the first inference may."""
    started = time.perf_counter()
    log.info("engine.loading", phase="model", model=options.model_name)
    loaded, facts = load_model(options)
    restored = time.perf_counter()
    log.info("engine.loading", phase="warm_up", device=facts.device_name)
    model = WindowsToWords(loaded, options.batch_size, threads=options.cpu_threads, graphs=options.gpu_graphs)
    model.warm_up()
    warm = time.perf_counter()
    log.info(
        "engine.loaded",
        model=options.model_name,
        device=facts.device_name,
        load_seconds=round(restored - started, 2),
        warm_up_seconds=round(warm - restored, 2),
    )
    return Serving(model, facts)
