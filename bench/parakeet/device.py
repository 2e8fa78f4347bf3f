"""Performance of the device: seconds, peak memory, the fastest matrix product."""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_CEILING_SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}
_CEILING_SECONDS = 1.0
_KIBIBYTE = 1024


@dataclass(frozen=True, kw_only=True)
class DeviceRun:
    """One timed call."""

    seconds: float
    peak_bytes: int
    """The most memory during the call, above that before it."""


def timed(device: torch.device, call: Callable[[], object]) -> DeviceRun:
    """Call it once on a device that has nothing else to do, and wait for the device."""
    before = _reset_peak(device)
    started = time.perf_counter()
    call()
    finish(device)
    seconds = time.perf_counter() - started
    return DeviceRun(seconds=seconds, peak_bytes=max(0, _peak(device) - before))


def kept_bytes(device: torch.device) -> int:
    """GPU memory while idle: models, and the pools of graphs."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def finish(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Seconds by stage. Each look at it waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._since = device, 0.0
        self.seconds: dict[str, float] = {}

    def go(self) -> None:
        """Start the next stage."""
        finish(self._device)
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to this stage."""
        finish(self._device)
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of the fastest square matrix product, in the best second of its size."""
    return max(_matmul_speed(device, dtype, size) for size in _CEILING_SIZES[device.type])


def _matmul_speed(device: torch.device, dtype: torch.dtype, size: int) -> float:
    first, second = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    best, until = 0.0, time.perf_counter() + _CEILING_SECONDS
    while time.perf_counter() < until:
        best = max(best, 2 * size**3 / _seconds_of_product(device, first, second))
    return best


def _seconds_of_product(device: torch.device, first: Tensor, second: Tensor) -> float:
    finish(device)
    started = time.perf_counter()
    torch.matmul(first, second)
    finish(device)
    return time.perf_counter() - started


def _reset_peak(device: torch.device) -> int:
    """Forget earlier peaks; the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)  # what an earlier call freed must not count as held
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * _KIBIBYTE
    raise LookupError(f"/proc/self/status has no {field}")
