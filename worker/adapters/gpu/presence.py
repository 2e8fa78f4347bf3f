"""A look for a GPU that costs milliseconds and no torch: it finds machines that certainly have none."""

import os
from pathlib import Path

import pynvml

DEVICE_FILES = ("nvidia[0-9]*", "nvidiactl", "nvhost*", "nvmap", "nvgpu", "dxg", "kfd")
"""Device files of NVIDIA's drivers, of Linux on Windows, and of AMD's driver, which torch calls CUDA too."""


def absent_gpu(devices: Path = Path("/dev")) -> str:
    """Return why there is certainly no GPU for CUDA here; an empty string where there may be one."""
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
