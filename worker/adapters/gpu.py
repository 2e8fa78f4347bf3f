"""The machine's GPUs, as NVML sees them.

For the operator. Needs NVIDIA's driver (libnvidia-ml.so.1), which Cloud Run and GKE put into the container; without it
there are no readings. NVML counts every GPU of the machine, whatever CUDA_VISIBLE_DEVICES says.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml
import structlog

PERCENT = 100
MILLIWATTS = 1000

DEVICE_FILES = ("nvidia[0-9]*", "nvidiactl", "nvhost*", "nvmap", "nvgpu", "dxg", "kfd")
"""Device files of NVIDIA's drivers, of Linux on Windows, and of AMD's driver, which torch calls CUDA too."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuReading:
    """Readings of one GPU; None for values that the GPU does not report."""

    index: int
    name: str
    memory_used_bytes: int
    memory_total_bytes: int
    utilisation: float | None
    """Share of the last moments in which a kernel ran, 0 to 1."""
    temperature_celsius: float | None
    power_watts: float | None
    throttled_by: frozenset[str]
    """Active throttle reasons: thermal, power, hardware."""
    ecc_errors: int | None
    """Uncorrected ones since the driver was loaded."""


class Gpus:
    """Reads them all. `nvml` is the module pynvml, initialised, or None where there is no driver."""

    def __init__(self, nvml: Any | None) -> None:
        self._nvml = nvml

    def read(self) -> tuple[GpuReading, ...]:
        """Return current readings; a GPU that does not answer is left out. Blocks for milliseconds."""
        if self._nvml is None:
            return ()
        with contextlib.suppress(self._nvml.NVMLError):
            count = self._nvml.nvmlDeviceGetCount()
            return tuple(reading for index in range(count) if (reading := _read(self._nvml, index)))
        return ()


def _read(nvml: Any, index: int) -> GpuReading | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = nvml.nvmlDeviceGetName(handle)
    except nvml.NVMLError as exc:
        log.warning("gpu.unreadable", gpu=index, reason=str(exc))
        return None

    def reported(ask: Callable[..., Any], *what: int) -> Any:
        """Return what the GPU reports; None where it does not."""
        with contextlib.suppress(nvml.NVMLError):
            return ask(handle, *what)
        return None

    power = reported(nvml.nvmlDeviceGetPowerUsage)
    rates = reported(nvml.nvmlDeviceGetUtilizationRates)
    return GpuReading(
        index=index,
        name=name,
        memory_used_bytes=memory.used,
        memory_total_bytes=memory.total,
        utilisation=None if rates is None else rates.gpu / PERCENT,
        temperature_celsius=reported(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        power_watts=None if power is None else power / MILLIWATTS,
        throttled_by=_throttling(nvml, reported(nvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0),
        ecc_errors=reported(
            nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
    )


def _throttling(nvml: Any, mask: int) -> frozenset[str]:
    reasons = {
        "thermal": nvml.nvmlClocksThrottleReasonSwThermalSlowdown | nvml.nvmlClocksThrottleReasonHwThermalSlowdown,
        "power": nvml.nvmlClocksThrottleReasonSwPowerCap | nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
        "hardware": nvml.nvmlClocksThrottleReasonHwSlowdown,
    }
    return frozenset(name for name, bits in reasons.items() if mask & bits)


@contextmanager
def open_gpus() -> Iterator[Gpus]:
    """NVML for the length of the block; a machine without it has no GPUs."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as exc:
        log.info("gpu.none", reason=str(exc))
        yield Gpus(None)
        return
    try:
        yield Gpus(pynvml)
    finally:
        pynvml.nvmlShutdown()


def absent_gpu(devices: Path = Path("/dev")) -> str:
    """Return why there is certainly no GPU for CUDA here; an empty string where there may be one.

    Takes milliseconds, and no torch.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if any(True for pattern in DEVICE_FILES for _ in devices.glob(pattern)):
        return ""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as exc:
        return f"this machine has no NVIDIA GPU ({exc})"
    try:
        return "" if pynvml.nvmlDeviceGetCount() else "the NVIDIA driver finds no GPU"
    finally:
        pynvml.nvmlShutdown()
