"""The model that the inference process serves: opened, warmed up, and kept from growing."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import structlog
import torch

from worker.adapters.machine.process import return_what_is_free
from worker.adapters.parakeet.child_process.pipeline import Pipeline, Take
from worker.adapters.parakeet.frames import WINDOWS_OF_A_BATCH
from worker.adapters.parakeet.loading.facts import (
    digest,
    known_languages,
    model_fingerprint,
    read_calibration,
    weights_sum,
)
from worker.adapters.parakeet.loading.model_files import open_model_files, stored_precision
from worker.adapters.parakeet.loading.model_path import model_path
from worker.adapters.parakeet.network.boosting import BOOSTING_VERSION
from worker.adapters.parakeet.network.config import UnsupportedModel
from worker.adapters.parakeet.network.cuda import open_device
from worker.adapters.parakeet.network.transcriber import Transcriber, TwoStepTranscriber
from worker.adapters.parakeet.network.weights import WrongWeights
from worker.adapters.parakeet.protocol import Done, EngineOptions, Ready
from worker.errors import ModelLoadingError
from worker.ports import EngineFacts

log = structlog.get_logger()

WINDOWS_TO_TRIM = 32
"""On a CPU. It takes less of the tiny model's time than runs differ by; after every 64 the heap grew by 30 MiB."""


class ServedModel:
    """A warm model behind the messages of the pipe."""

    def __init__(self, model: TwoStepTranscriber, facts: EngineFacts, *, overlap: bool) -> None:
        self._trims = not facts.uses_gpu
        self._pipeline = Pipeline(model, overlap=overlap)
        self._ready = Ready(
            facts=facts,
            device_memory_bytes=torch.cuda.max_memory_reserved(),
            plan=model.flow.plan,
            batches_in_flight=model.flow.batches_in_flight,
            pieces=model.pieces,
        )
        self._untrimmed = 0

    def ready(self) -> Ready:
        """Return what was loaded."""
        return self._ready

    def answers(self, take: Take) -> Iterator[Done]:
        """Recognise what is taken, in order, until no more come."""
        for done in self._pipeline.answers(take):
            self._untrimmed += len(done.words or ())
            if self._trims and self._untrimmed >= WINDOWS_TO_TRIM:
                self._untrimmed = 0
                return_what_is_free()
            yield done


def open_engine(options: EngineOptions) -> ServedModel:
    """Load and warm up the model.

    Raises `ModelLoadingError`, `GpuNotAvailable`, and what the first inference may.
    """
    started = time.perf_counter()
    log.info("engine.loading", phase="model", model=options.model_name)
    model, facts = _open(options)
    restored = time.perf_counter()
    log.info("engine.loading", phase="warm_up", device=facts.device_name)
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


def _open(options: EngineOptions) -> tuple[TwoStepTranscriber, EngineFacts]:
    device = open_device(options.device, options.memory_limit_gib)
    dtype: torch.dtype = getattr(torch, options.gpu_precision) if device.type == "cuda" else torch.float32
    path = model_path(options.model_name)
    with ThreadPoolExecutor(1, "sum") as aside:
        summed = aside.submit(weights_sum, path)
        if options.engine == "nemo":
            model, languages = _by_nemo(options, "PARAKEET_ENGINE is nemo", path, device, dtype)
        else:
            try:
                model, languages = _by_network(options, path, device, dtype)
            except WrongWeights as error:
                raise ModelLoadingError(str(path), str(error)) from error
            except UnsupportedModel as unknown:
                if options.engine == "native":
                    raise ModelLoadingError(options.model_name, str(unknown)) from unknown
                model, languages = _by_nemo(options, str(unknown), path, device, dtype)
        # Products of other sizes may add up in another order, and so give other last bits.
        arithmetic = f"{type(model).__name__}, blocks of {model.block_frames}"
        calibration = read_calibration(path, summed.result())
        model.calibrate(calibration)
        fingerprint = model_fingerprint(summed.result(), dtype, arithmetic + digest(calibration))
    facts = EngineFacts(
        model_name=options.model_name,
        model_fingerprint=fingerprint,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        uses_gpu=device.type == "cuda",
        languages=options.languages or languages,
        is_calibrated=calibration is not None,
        keyterm_fingerprint=f"boosting {BOOSTING_VERSION}, weight {options.keyterm_weight}",
    )
    return model, facts


def _by_network(
    options: EngineOptions, path: Path, device: torch.device, dtype: torch.dtype
) -> tuple[TwoStepTranscriber, frozenset[str]]:
    """Return the model and its languages. Raises `UnsupportedModel`."""
    files = open_model_files(path)
    stored = stored_precision(files.weights)
    if torch.float32 not in {stored, dtype} and stored != dtype:
        log.warning("engine.precision_differs", file=str(path), stored=str(stored), used=str(dtype))
    model = Transcriber(
        files,
        device,
        dtype,
        batch_windows=options.batch_size,
        threads=options.cpu_threads,
        graphs=options.gpu_graphs,
        keyterm_weight=options.keyterm_weight,
        report=log.warning,
    )
    return model, known_languages(options.model_name, files.config.vocabulary_size)


def _by_nemo(
    options: EngineOptions, why: str, path: Path, device: torch.device, dtype: torch.dtype
) -> tuple[TwoStepTranscriber, frozenset[str]]:
    """Return a model that the network does not compute. Raises `ModelLoadingError` where NeMo is not installed."""
    if find_spec("nemo") is None:
        reason = f"{why}. NeMo, which could serve such a model, is not installed"
        raise ModelLoadingError(options.model_name, reason)
    from worker.adapters.parakeet.reference import (  # noqa: PLC0415  10 s and 0.7 GB
        NemoTranscriber,
        languages_of,
        restore,
    )

    log.warning("engine.served_by_nemo", model=options.model_name, reason=why)
    network = restore(path, device, dtype)
    model = NemoTranscriber(
        network,
        options.model_name,
        device,
        dtype,
        batch_windows=options.batch_size or WINDOWS_OF_A_BATCH,
        keyterm_weight=options.keyterm_weight,
    )
    return model, languages_of(network) or known_languages(options.model_name, len(model.pieces))
