"""NVML without a GPU."""

from types import SimpleNamespace
from typing import Any

import pynvml

HOT_AND_CAPPED = pynvml.nvmlClocksThrottleReasonHwThermalSlowdown | pynvml.nvmlClocksThrottleReasonSwPowerCap


class Driver:
    """NVML with the given number of L4s; `broken` names the calls that it refuses."""

    NVMLError = pynvml.NVMLError

    def __init__(self, count: int = 1, broken: frozenset[str] = frozenset()) -> None:
        self.count, self.broken = count, broken
        self.answers: dict[str, Any] = {
            "nvmlDeviceGetCount": count,
            "nvmlDeviceGetHandleByIndex": object(),
            "nvmlDeviceGetName": "NVIDIA L4",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=5 * 1024**3, total=24 * 1024**3),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=83, memory=20),
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetPowerUsage": 68_500,
            "nvmlDeviceGetCurrentClocksThrottleReasons": HOT_AND_CAPPED,
            "nvmlDeviceGetTotalEccErrors": 2,
        }

    def __getattr__(self, name: str) -> Any:
        if name not in self.answers:
            return getattr(pynvml, name)
        return lambda *_: self._answer(name)

    def _answer(self, name: str) -> Any:
        if name in self.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.answers[name]
