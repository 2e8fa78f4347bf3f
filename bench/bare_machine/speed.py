"""Seconds, arithmetic and ceilings of the engine on one device."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.bare_machine.weight_shapes import weight_shapes
from worker.adapters.parakeet.child_process.pipeline import Pipeline
from worker.adapters.parakeet.frames import PassPlan
from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.transcriber import Transcriber
from worker.adapters.parakeet.protocol import Batch

SAMPLE_RATE_HZ = 16_000

_CEILING_SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192)}
_PRODUCTS_A_LOOK = 10


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Floating-point operations a second of square matrix products."""

    best: float
    """In the best moment of a second."""
    sustained: float
    """The mean of ten seconds: a GPU that reaches its power limit slows down."""


def ceiling(device: torch.device, dtype: torch.dtype, *, seconds: float) -> Ceiling:
    """Measure both; the size of the product is the faster one."""
    best_by_size = {size: max(_speeds(device, dtype, size, 1.0)) for size in _CEILING_SIZES[device.type]}
    size = max(best_by_size, key=lambda one: best_by_size[one])
    speeds = list(_speeds(device, dtype, size, seconds))
    return Ceiling(best=best_by_size[size], sustained=len(speeds) / sum(1 / speed for speed in speeds))


def speech(seconds: float, seed: int) -> NDArray[np.int16]:
    """Return noise in syllables and pauses: random weights need no words, but the audio must not be silent."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * SAMPLE_RATE_HZ)
    syllables = np.repeat(rng.uniform(0.0, 1.0, -(-samples // 3_200)) ** 2, 3_200)[:samples]
    return (rng.normal(0.0, 6_000.0, samples) * syllables).clip(-32_768, 32_767).astype(np.int16)


def windows_of_speech(count: int) -> list[NDArray[np.int16]]:
    """Return windows of 18 to 30 s, 24 s on average, as the worker cuts them."""
    return [speech(18.0 + 12.0 * ((number * 5) % 12) / 11, number) for number in range(count)]


def seconds_of(windows: Sequence[NDArray[np.int16]]) -> float:
    """Return the length of audio."""
    return sum(map(len, windows)) / SAMPLE_RATE_HZ


def batches(windows: Sequence[NDArray[np.int16]], plan: PassPlan) -> Iterator[Batch]:
    """Yield the windows in passes, as the worker's scheduler packs the windows of one job."""
    waiting = list(windows)
    while waiting:
        taken = set(plan.next_pass([plan.frames_of(len(window)) for window in waiting]))
        batch = tuple(window for place, window in enumerate(waiting) if place in taken)
        waiting = [window for place, window in enumerate(waiting) if place not in taken]
        yield Batch(windows=batch, is_last=not waiting)


def encode_all(transcriber: Transcriber, windows: Sequence[NDArray[np.int16]]) -> None:
    """Spectrogram and encoder of all windows, and nothing else."""
    for batch in batches(windows, transcriber.flow.plan):
        for _ in transcriber.encode(batch.windows).parts:
            pass


def transcribe_all(transcriber: Transcriber, windows: Sequence[NDArray[np.int16]]) -> int:
    """All windows through the loop of the inference process; return the number of words."""
    planned = batches(windows, transcriber.flow.plan)
    words = 0
    for answer in Pipeline(transcriber).answers(lambda _: next(planned, None)):
        if answer.words is None:
            raise torch.OutOfMemoryError
        words += sum(map(len, answer.words))
    return words


def timed(device: torch.device, call: Callable[[], object], repeats: int) -> float:
    """Return the least seconds of some calls on a device that has nothing else to do."""
    best = float("inf")
    for _ in range(repeats):
        finish(device)
        started = time.perf_counter()
        call()
        finish(device)
        best = min(best, time.perf_counter() - started)
    return best


def finish(device: torch.device) -> None:
    """Wait until the device has done everything that is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def encoder_flops(config: NetworkConfig, samples: int) -> float:
    """Return the multiplications and additions of the encoder for a window; norms and activations are left out."""
    frames = config.encoder_frames(samples)
    total = 0.0
    for name, shape in weight_shapes(config):
        if len(shape) == 1 or not name.startswith("encoder.") or not name.endswith("weight") or "linear_pos" in name:
            continue
        positions = _positions(config, name, frames) if ".pre_encode.conv." in name else frames
        total += 2 * float(np.prod(shape)) * positions
    # Of each layer: queries by keys, queries by positions (twice as many), weights by values.
    return total + config.n_layers * 8 * frames * frames * config.d_model


def _positions(config: NetworkConfig, name: str, frames: int) -> float:
    """Return how many outputs a convolution of the subsampling has, channels left out."""
    place = int(name.split(".")[3])
    level = 1 if place == 0 else (place + 1) // 3 + 1
    rows = frames * config.subsampling_factor / 2**level
    bands = -(-config.n_mels // 2**level)
    return float(rows * bands)


def _speeds(device: torch.device, dtype: torch.dtype, size: int, seconds: float) -> Iterator[float]:
    first, second = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    products = _PRODUCTS_A_LOOK if device.type == "cuda" else 1
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        finish(device)
        started = time.perf_counter()
        for _ in range(products):
            torch.matmul(first, second)
        finish(device)
        yield products * 2 * size**3 / (time.perf_counter() - started)
