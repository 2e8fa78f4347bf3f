"""The model that the inference process serves."""

import time
from collections.abc import Iterator

import structlog
import torch

from worker.adapters.machine.allocator import return_what_is_free
from worker.adapters.parakeet.child_process.pipeline import Pipeline, Take
from worker.adapters.parakeet.frames import PassPlan, pass_capacity
from worker.adapters.parakeet.inference import WindowsToWords
from worker.adapters.parakeet.model import load_model
from worker.adapters.parakeet.protocol import Done, EngineOptions, Ready
from worker.ports import EngineFacts

log = structlog.get_logger()

BATCHES_TO_TRIM = 4
"""On a CPU. It takes less of the tiny model's time than runs differ by; after every eighth the heap grew by 30 MiB."""


class ServedModel:
    """A warm model behind the messages of the pipe."""

    def __init__(self, model: WindowsToWords, facts: EngineFacts, *, overlap: bool) -> None:
        self._model, self._facts = model, facts
        self._pipeline = Pipeline(model, overlap=overlap)
        self._untrimmed = 0

    def ready(self) -> Ready:
        """Return what was loaded."""
        return Ready(
            facts=self._facts,
            device_memory_bytes=self._device_memory(),
            plan=PassPlan(capacity=pass_capacity(self._model.batch_size), most_windows=self._model.batch_size),
            batches_in_flight=self._model.windows_under_way // self._model.batch_size,
        )

    def answers(self, take: Take) -> Iterator[Done]:
        """Recognise what is taken, in order, until no more come."""
        for answer in self._pipeline.answers(take):
            self._trim()
            yield Done(words=answer.words, seconds=answer.seconds, device_memory_bytes=self._device_memory())

    def _trim(self) -> None:
        self._untrimmed += 1
        if not self._facts.uses_gpu and self._untrimmed == BATCHES_TO_TRIM:
            self._untrimmed = 0
            return_what_is_free()

    def _device_memory(self) -> int:
        return torch.cuda.max_memory_reserved() if self._facts.uses_gpu else 0


def open_engine(options: EngineOptions) -> ServedModel:
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
    return ServedModel(model, facts, overlap=options.overlap)
