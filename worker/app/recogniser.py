"""The window recogniser that the settings ask for; imports little, so that its process can be started first."""

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib.util import find_spec
from math import inf

import structlog

from worker.adapters.gpu import absent_gpu
from worker.adapters.machine.process import processors
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.adapters.parakeet.loading.model_path import demand_model
from worker.adapters.parakeet.protocol import EngineOptions
from worker.errors import GpuNotAvailable, ModelLoadingError
from worker.ports import EngineFacts, Pcm, Recognition, WindowRecogniser
from worker.settings import CloudSettings, EngineSettings, ParakeetDevice
from worker.telemetry import LogFormat, LogLevel

_NULL_NAME = re.compile(r"null(?::(\d+(?:\.\d+)?)x)?")

log = structlog.get_logger(__name__)


def may_do_without_gpu(settings: EngineSettings) -> bool:
    """Return True where Deepgram may do everything on a machine without a GPU."""
    return settings.deepgram_api_key is not None and settings.enable_fallback


def demand_engine(settings: EngineSettings, *, may_do_without: bool = False) -> None:
    """Raise `ModelLoadingError` or `GpuNotAvailable` where Parakeet certainly cannot start here; imports no torch.

    A missing GPU is no error where the caller may do without.
    """
    if not settings.enable_gpu_transcription or null_speed(settings.parakeet_model_name) is not None:
        return
    if settings.parakeet_device is ParakeetDevice.CUDA and (reason := absent_gpu()):
        if may_do_without:
            return
        raise GpuNotAvailable(f"{reason}; PARAKEET_DEVICE=cpu runs without one, slowly")
    demand_model(settings.parakeet_model_name)


def make_engine(
    settings: EngineSettings,
    cloud: CloudSettings,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "info",
    *,
    may_do_without: bool = False,
) -> AbstractAsyncContextManager[WindowRecogniser]:
    """Return Parakeet; entering it loads the model in a process of its own, which logs as the arguments say.

    With ENABLE_GPU_TRANSCRIPTION=false nothing is started, nor without a GPU where the caller may do without. Raises at
    once what `demand_engine` raises, and `ModelLoadingError` for the null engine anywhere but on development servers,
    which are in the checkout, as it is.
    """
    if not settings.enable_gpu_transcription:
        return nullcontext(NoEngine("ENABLE_GPU_TRANSCRIPTION is false"))
    if (speed := null_speed(settings.parakeet_model_name)) is not None:
        if not cloud.is_emulated or find_spec("worker.adapters.memory") is None:  # the wheel leaves it out
            reason = "it recognises nothing: for load tests on emulators, from the checkout, only"
            raise ModelLoadingError(settings.parakeet_model_name, reason)
        from worker.adapters.memory.recogniser import null_engine  # noqa: PLC0415  see the line above

        return nullcontext(null_engine(speed))
    try:
        demand_engine(settings)
    except GpuNotAvailable as exc:
        if not may_do_without:
            raise
        return nullcontext(without_gpu(exc.reason))
    return ParakeetEngine(
        EngineOptions(
            model_name=settings.parakeet_model_name,
            languages=settings.parakeet_languages,
            engine=settings.parakeet_engine,
            device=settings.parakeet_device.value,
            batch_size=settings.gpu_batch_size,
            memory_limit_gib=settings.gpu_memory_limit_gb,
            gpu_precision=settings.gpu_precision,
            gpu_graphs=settings.gpu_graphs,
            overlap=settings.parakeet_overlap,
            log_format=log_format,
            log_level=log_level,
            keyterm_weight=settings.keyterm_weight,
            cpu_threads=max(1, processors(settings.instance_vcpus) - 1),  # one is the event loop's
        )
    )


def start_early(engine: AbstractAsyncContextManager[WindowRecogniser]) -> None:
    """Start the engine's process, where it has one: the model loads until the engine is entered."""
    if isinstance(engine, ParakeetEngine):
        engine.start()


def without_gpu(reason: str) -> "NoEngine":
    """Return the engine of a worker that leaves every job to Deepgram, and log the reason."""
    log.warning("worker.no_gpu", reason=reason, consequence="every job goes to Deepgram")
    return NoEngine(reason)


class NoEngine:
    """Engine of workers and commands without Parakeet, which raises the reason."""

    facts = EngineFacts(
        model_name="none", model_fingerprint="none", device_name="none", uses_gpu=False, languages=frozenset()
    )

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def unspeakable(self, keyterms: Sequence[str]) -> tuple[str, ...]:
        """Return none: there is no vocabulary."""
        del keyterms
        return ()

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        """Raise `GpuNotAvailable`, always."""
        del samples, job_id, keyterms, team_id
        raise GpuNotAvailable(self.reason)


def null_speed(model_name: str) -> float | None:
    """Return the speed in times real time that `null:200x` names, infinity for `null`, None for a model."""
    if (asked := _NULL_NAME.fullmatch(model_name)) is None:
        return None
    return float(asked[1] or inf) or inf
