"""The parts of `bench.gpu`. Each returns what it found, by name; those of `BY_ITSELF` run in a process of their own."""

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.bare_machine import provoked, rivals
from bench.bare_machine.kernels import profile_pass
from bench.bare_machine.speed import (
    ceiling,
    encode_all,
    encoder_flops,
    seconds_of,
    speech,
    timed,
    transcribe_all,
    windows_of_speech,
)
from worker.adapters.parakeet.loading.model_files import ModelFiles, open_model_files
from worker.adapters.parakeet.network.cuda import open_device
from worker.adapters.parakeet.network.transcriber import Transcriber

Found = Mapping[str, object]

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
RIVAL_SECONDS = 40.0

_TERA = 1e12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """Plan of the measurements: model, device and repeats."""

    model: Path
    files: ModelFiles
    device: torch.device
    precisions: Sequence[str]
    window_counts: Sequence[int]
    ceiling_seconds: float
    """Duration of the sustained ceiling's measurement."""

    @property
    def on_gpu(self) -> bool:
        """True on a GPU."""
        return self.device.type == "cuda"


def setup_for(model: Path, device: torch.device) -> Setup:
    """Return what is measured on the device: on a CPU little of it, in float32."""
    on_gpu = device.type == "cuda"
    return Setup(
        model=model,
        files=open_model_files(model),
        device=device,
        precisions=("bfloat16", "float16") if on_gpu else ("float32",),
        window_counts=(1, 8, 32, 128) if on_gpu else (1, 4),
        ceiling_seconds=10.0 if on_gpu else 2.0,
    )


def machine(setup: Setup) -> Found:
    """Versions and the device."""
    found: dict[str, object] = {"torch": torch.__version__, "device": setup.device.type, "model": str(setup.model)}
    if setup.on_gpu:
        properties = torch.cuda.get_device_properties(setup.device)
        found |= {
            "name": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    return found


def ceilings(setup: Setup) -> Found:
    """TFLOP/s of matrix products: the best of one second, and the mean of ten."""
    return {
        precision: {
            "best_tflops": round(measured.best / _TERA, 3),
            "sustained_tflops": round(measured.sustained / _TERA, 3),
        }
        for precision in setup.precisions
        for measured in [ceiling(setup.device, PRECISIONS[precision], seconds=setup.ceiling_seconds)]
    }


def speeds(setup: Setup) -> Iterator[tuple[str, Found]]:
    """Measure the encoder alone and end to end, by precision, graphs and number of windows; yield each result."""
    for precision in setup.precisions:
        for graphs in (True, False) if setup.on_gpu else (False,):
            transcriber = opened(setup, precision, graphs=graphs)
            if setup.on_gpu:
                torch.cuda.reset_peak_memory_stats(setup.device)
            for count in setup.window_counts:
                windows = windows_of_speech(count)
                recorded(transcriber, windows)
                name = f"{precision}, graphs {'on' if graphs else 'off'}, {count} windows"
                yield name, _speed(setup, transcriber, windows)
            del transcriber


def agreement(setup: Setup) -> Found:
    """Share of tokens that are those of float32, and whether a window's tokens depend on its company."""
    windows = windows_of_speech(32 if setup.on_gpu else 2)
    exact = pieces(opened(setup, "float32", graphs=False), windows)
    found: dict[str, object] = {"tokens": sum(map(len, exact))}
    for precision in setup.precisions:
        transcriber = opened(setup, precision, graphs=setup.on_gpu)
        recorded(transcriber, windows)
        together = pieces(transcriber, windows)
        alone = [pieces(transcriber, [window])[0] for window in windows[:4]]
        found[precision] = {
            "share_equal_to_float32": round(share_equal(together, exact), 5),
            "the_same_alone": together[:4] == alone,
        }
    return found


def profiles(setup: Setup) -> Found:
    """Profile the kernels of a full pass, without graphs."""
    transcriber = opened(setup, setup.precisions[0], graphs=False)
    windows = windows_of_speech(transcriber.flow.batch_windows)
    return dataclasses.asdict(profile_pass(transcriber, windows, setup.device))


def first_text(model: Path, precision: str) -> Found:
    """Seconds from the start of this process to the words of its first window."""
    since = process_seconds()
    device = any_device()
    files = open_model_files(model)
    opened_at = process_seconds()
    transcriber = Transcriber(files, device, PRECISIONS[precision])
    transcriber.warm_up()
    warm = process_seconds()
    transcribe_all(transcriber, [speech(20.0, 1)])
    return {
        "imports": round(since, 2),
        "file": round(opened_at - since, 2),
        "network_and_warm_up": round(warm - opened_at, 2),
        "first_window": round(process_seconds() - warm, 2),
        "seconds": round(process_seconds(), 2),
    }


def lost_workspace(model: Path, precision: str) -> Found:
    """Provoke finding 1: a graph dropped beside others, in torch itself, and ours where recordings are refused."""
    ours = provoked.ours_without_room_for_graphs(open_model_files(model), PRECISIONS[precision])
    return {**ours, "torch_itself": provoked.torch_loses_the_workspace()}


def priorities(model: Path, precision: str) -> Found:
    """Measure finding 2: milliseconds of small kernels beside large products, by the priority of their recording."""
    del model, precision
    return {f"priority {priority}": round(provoked.wait_beside_large_products(priority), 2) for priority in (0, -1)}


def nemo(model: Path, precision: str) -> Found:
    """NeMo's `transcribe`, in times real time."""
    device = any_device()
    on_gpu = device.type == "cuda"
    return rivals.nemo_speeds(
        model,
        windows_of_speech(64 if on_gpu else 4),
        device,
        PRECISIONS[precision],
        batch_sizes=(8, 32, 64) if on_gpu else (1,),
        most_seconds=RIVAL_SECONDS,
    )


def transformers(model: Path, precision: str) -> Found:
    """Measure the encoder in transformers, in times real time."""
    device, layers = any_device(), open_model_files(model).config.n_layers
    sizes = (8, 32) if device.type == "cuda" else (1,)
    return rivals.transformers_speeds(layers, 24.0, device, PRECISIONS[precision], batch_sizes=sizes)


BY_ITSELF: Mapping[str, Callable[[Path, str], Found]] = {
    "first text": first_text,
    "finding 1": lost_workspace,
    "finding 2": priorities,
    "nemo": nemo,
    "transformers": transformers,
}


def opened(setup: Setup, precision: str, *, graphs: bool) -> Transcriber:
    """Return a warm transcriber, in the memory of the last one."""
    release(setup.device)
    transcriber = Transcriber(setup.files, setup.device, PRECISIONS[precision], graphs=graphs)
    transcriber.warm_up()
    return transcriber


def release(device: torch.device) -> None:
    """Give a GPU's memory back that nothing uses: a transcriber with recordings is a circle of references."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def recorded(transcriber: Transcriber, windows: Sequence[NDArray[np.int16]]) -> None:
    """Transcribe the windows once, and record the shapes of their passes."""
    transcribe_all(transcriber, windows)
    while transcriber.idle():
        pass


def pieces(transcriber: Transcriber, windows: Sequence[NDArray[np.int16]]) -> list[list[str]]:
    """Return the pieces of each window."""
    return [[token.piece for token in tokens] for tokens in transcriber.tokens(windows)]


def share_equal(ours: Sequence[Sequence[str]], exact: Sequence[Sequence[str]]) -> float:
    """Return the share of tokens that both have in the same order."""
    matched = sum(
        sum(block.size for block in SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks())
        for mine, theirs in zip(ours, exact, strict=True)
    )
    return matched / max(1, sum(max(len(mine), len(theirs)) for mine, theirs in zip(ours, exact, strict=True)))


def any_device() -> torch.device:
    """Return the GPU, or the CPU where there is none, set up as in the inference process, with all of its memory."""
    return open_device("auto", float("inf"))


def process_seconds() -> float:
    """Return the seconds since this process was started, as Linux notes it."""
    fields = Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()
    ticks_since_boot = int(fields[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks_since_boot / 100  # USER_HZ is 100 on Linux


def _speed(setup: Setup, transcriber: Transcriber, windows: Sequence[NDArray[np.int16]]) -> Found:
    repeats = 2 if setup.on_gpu else 1
    encoder = timed(setup.device, lambda: encode_all(transcriber, windows), repeats)
    whole = timed(setup.device, lambda: transcribe_all(transcriber, windows), repeats)
    flops = sum(encoder_flops(setup.files.config, len(window)) for window in windows)
    found: dict[str, object] = {
        "encoder_times_real_time": round(seconds_of(windows) / encoder, 1),
        "encoder_tflops": round(flops / encoder / _TERA, 3),
        "end_to_end_times_real_time": round(seconds_of(windows) / whole, 1),
    }
    if setup.on_gpu:
        found["peak_memory_gib"] = round(torch.cuda.max_memory_reserved(setup.device) / 2**30, 2)
    return found
