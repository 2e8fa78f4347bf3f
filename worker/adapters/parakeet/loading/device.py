"""The device that a model runs on, set up so that it repeats itself and keeps within its memory."""

import os

import torch

from worker.errors import GpuNotAvailable

CUDA_CONTEXT_GIB = 1.0
"""GPU memory of the process outside torch, which torch's limit does not include."""


def open_device(name: str, memory_limit_gib: float) -> torch.device:
    """Return the device: cuda, cpu, or with auto cuda where there is a GPU. Raises `GpuNotAvailable`."""
    torch.set_num_threads(1)  # windows are encoded side by side, each by one thread
    has_gpu = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not has_gpu):
        return torch.device("cpu")
    if not has_gpu:
        reason = f"CUDA finds no device: {_driver()}, torch is built for CUDA {torch.version.cuda}"
        raise GpuNotAvailable(f"{reason}; PARAKEET_DEVICE=cpu runs without one, slowly")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS then repeats itself bit for bit
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # convolutions in float32 would be rounded to 10 bits
    # Torch prefers it on Hopper and Blackwell, where it chooses a kernel by shape, so that a window's last bits would
    # depend on its pass, and builds a plan of 0.04 to 0.4 s for every shape.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    total_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction(min(1.0, (memory_limit_gib - CUDA_CONTEXT_GIB) / total_gib), 0)
    return torch.device("cuda", 0)


def _driver() -> str:
    """Return the NVIDIA driver's version in words."""
    try:
        import pynvml  # noqa: PLC0415  for this message alone
    except ImportError:
        return "the driver's version is unknown"
    try:
        pynvml.nvmlInit()
        return f"the driver is {pynvml.nvmlSystemGetDriverVersion()}"
    except pynvml.NVMLError as error:
        return f"there is no NVIDIA driver ({error})"
