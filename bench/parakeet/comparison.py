"""Ours against NeMo's `transcribe()`: the same weights, speech and device, in turns."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch
from nemo.collections.asr.models import ASRModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.parakeet.device import DeviceRun, Stopwatch, kept_bytes, matmul_ceiling, timed
from bench.parakeet.nemo import Nemo
from bench.parakeet.results import Agreement, ComparedWay, Comparison, ComparisonPlan, Material, agreement
from worker.adapters.parakeet.child_process.pipeline import Pipeline
from worker.adapters.parakeet.loading.model_files import ModelFiles, open_model_files
from worker.adapters.parakeet.loading.model_path import model_path
from worker.adapters.parakeet.network.cuda import ignore, open_device
from worker.adapters.parakeet.network.passes import Lap, LonePasses
from worker.adapters.parakeet.network.transcriber import Transcriber
from worker.adapters.parakeet.protocol import Batch
from worker.ports import Pcm

_SWEEPS = 2
"""Batch sizes of NeMo; the faster time of each counts."""


def compare(plan: ComparisonPlan, material: Material, say: Callable[[str], None]) -> Comparison:
    """Load the model twice, as ours and as NeMo's own, and measure. `say` receives a line for every step.

    Raises `ModelLoadingError` and `GpuNotAvailable`.
    """
    say(f"loading {plan.weights} twice")
    nemo_threads = torch.get_num_threads()
    loaded = Loaded.of(plan)
    rivals = _Rivals(
        plan=plan,
        material=material,
        say=say,
        ours=Ours(loaded, plan),
        nemo=Nemo(untouched(plan, loaded.device)),
        device=loaded.device,
        dtype=loaded.dtype,
        nemo_threads=nemo_threads,
    )
    sweep = rivals.sweep()
    best = min(sweep, key=lambda size: sweep[size])
    turns = rivals.take_turns(best)
    alone, batched = rivals.agreements(best)
    say("the encoder's arithmetic and the device's ceiling")
    torch.set_num_threads(1)
    return Comparison(
        device_name=torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else "cpu",
        uses_gpu=loaded.device.type == "cuda",
        precision=str(loaded.dtype).removeprefix("torch."),
        nemo_threads=nemo_threads,
        ours=_way(turns.ours, kept_bytes=rivals.ours.kept_bytes),
        batch_size=rivals.ours.batch_size,
        chunks=_way(turns.chunks),
        windows=_way(turns.windows),
        best_batch_size=best,
        sweep=sweep,
        alone=alone,
        batched=batched,
        stages=turns.median_stages(),
        encoder_flops=_encoder_flops(loaded, plan, material.windows),
        ceiling_flops_per_second=matmul_ceiling(loaded.device, loaded.dtype),
    )


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The model's files, and where and in which precision it runs."""

    files: ModelFiles
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, plan: ComparisonPlan) -> "Loaded":
        """Open the model. Raises `ModelLoadingError` and `GpuNotAvailable`."""
        device = open_device(plan.device, plan.memory_limit_gib)
        dtype = getattr(torch, plan.gpu_precision) if device.type == "cuda" else torch.float32
        return cls(files=open_model_files(model_path(plan.weights)), device=device, dtype=dtype)

    def transcriber(self, plan: ComparisonPlan, *, threads: int = 1, lap: Lap = ignore) -> Transcriber:
        """Return a network of its own on these weights."""
        return Transcriber(
            self.files,
            self.device,
            self.dtype,
            batch_windows=plan.batch_size,
            threads=threads,
            graphs=plan.gpu_graphs,
            lap=lap,
        )


@dataclass(kw_only=True)
class _Turns:
    ours: list[DeviceRun] = field(default_factory=list)
    windows: list[DeviceRun] = field(default_factory=list)
    chunks: list[DeviceRun] = field(default_factory=list)
    stages: list[Mapping[str, float]] = field(default_factory=list)

    def median_stages(self) -> Mapping[str, float]:
        return {name: median(one[name] for one in self.stages) for name in self.stages[0]}


class Ours:
    """Our network, in batches as the worker's scheduler packs the windows of one job."""

    def __init__(self, loaded: Loaded, plan: ComparisonPlan) -> None:
        self._loaded, self._plan = loaded, plan
        before = kept_bytes(loaded.device)
        self._model = loaded.transcriber(plan, threads=plan.threads)
        self._model.warm_up()
        self.kept_bytes = kept_bytes(loaded.device) - before

    @property
    def batch_size(self) -> int:
        """Windows of 30 s in a full batch."""
        return self._model.flow.batch_windows

    def hear(self, windows: Sequence[Pcm]) -> None:
        """Recognise the windows, as the worker does."""
        self._hear(self._model, windows)

    def tokens(self, windows: Sequence[Pcm]) -> list[list[str]]:
        """Return the pieces of each window's tokens."""
        pieces: list[list[str]] = [[] for _ in windows]
        for batch in self._batches(windows):
            heard = self._model.tokens([windows[number] for number in batch])
            for number, tokens in zip(batch, heard, strict=True):
                pieces[number] = [token.piece for token in tokens]
        return pieces

    def stages(self, windows: Sequence[Pcm]) -> Mapping[str, float]:
        """Return seconds by stage, on one thread."""
        watch = Stopwatch(self._loaded.device)
        model = self._loaded.transcriber(self._plan, lap=watch.lap)
        model.warm_up()
        watch.seconds.clear()
        watch.go()
        self._hear(model, windows)
        return watch.seconds

    def _hear(self, model: Transcriber, windows: Sequence[Pcm]) -> None:
        batches = self._batches(windows)

        def take(_: bool) -> Batch | None:
            numbers = next(batches, None)
            if numbers is None:
                return None
            is_last = numbers[-1] == len(windows) - 1
            return Batch(windows=tuple(windows[number] for number in numbers), is_last=is_last)

        for heard in Pipeline(model).answers(take):
            if heard.words is None:
                raise torch.OutOfMemoryError("a batch of ours")

    def _batches(self, windows: Sequence[Pcm]) -> Iterator[list[int]]:
        plan, waiting = self._model.flow.plan, list(range(len(windows)))
        while waiting:
            places = plan.next_pass([plan.frames_of(len(windows[number])) for number in waiting])
            taken = [waiting[place] for place in places]
            waiting = [number for number in waiting if number not in taken]
            yield taken


@dataclass(kw_only=True)
class _Rivals:
    plan: ComparisonPlan
    material: Material
    say: Callable[[str], None]
    ours: Ours
    nemo: Nemo
    device: torch.device
    dtype: torch.dtype
    nemo_threads: int

    def sweep(self) -> Mapping[int, float]:
        """NeMo's best seconds for each batch size that fits."""
        self._nemos_turn(times=False)
        self.nemo.in_precision(self.dtype)
        self.nemo.windows(self.material.windows[:1], 1)  # costs of the first call are not counted
        best: dict[int, float] = {}
        for size in list(self.plan.nemo_batch_sizes) * _SWEEPS:
            self.say(f"NeMo on windows, batch size {size}")
            with contextlib.suppress(torch.OutOfMemoryError):
                run = timed(self.device, partial(self.nemo.windows, self.material.windows, size))
                best[size] = min(best.get(size, run.seconds), run.seconds)
        return best

    def take_turns(self, best: int) -> _Turns:
        """Each of NeMo's ways as often as the plan says; ours, the shortest, before and after each of them."""
        turns, windows = _Turns(), self.material.windows
        for number in range(1, self.plan.repeats + 1):
            of = f"turn {number} of {self.plan.repeats}"
            self.say(f"{of}: ours")
            turns.ours.append(self._hear())
            turns.stages.append(self.ours.stages(windows))
            self.say(f"{of}: NeMo on windows")
            self._nemos_turn(times=False)
            self.nemo.in_precision(self.dtype)
            turns.windows.append(timed(self.device, lambda: self.nemo.windows(windows, best)))
            turns.ours.append(self._hear())
            self.say(f"{of}: NeMo on chunks")
            self._nemos_turn(times=True)
            self.nemo.in_precision(torch.float32)
            turns.chunks.append(timed(self.device, lambda: self.nemo.chunks(self.material.chunk_files)))
            turns.ours.append(self._hear())
        return turns

    def _hear(self) -> DeviceRun:
        torch.set_num_threads(1)
        return timed(self.device, lambda: self.ours.hear(self.material.windows))

    def agreements(self, best: int) -> tuple[Agreement, Agreement]:
        """Ours against NeMo window by window, and against NeMo at its best batch size."""
        self.say("tokens, window by window")
        windows = self.material.windows
        torch.set_num_threads(1)
        ours = self.ours.tokens(windows)
        self._nemos_turn(times=False)
        self.nemo.in_precision(self.dtype)
        return agreement(ours, self.nemo.windows(windows, 1)), agreement(ours, self.nemo.windows(windows, best))

    def _nemos_turn(self, *, times: bool) -> None:
        """Let NeMo have the whole memory of a GPU: the cap is ours."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)
        torch.set_num_threads(self.nemo_threads)
        self.nemo.with_times(times)


def untouched(plan: ComparisonPlan, device: torch.device) -> Any:
    """Return the model as NeMo restores it."""
    return ASRModel.restore_from(str(model_path(plan.weights)), map_location=device)


def _way(runs: Sequence[DeviceRun], *, kept_bytes: int = 0) -> ComparedWay:
    return ComparedWay(
        seconds=tuple(run.seconds for run in runs), peak_bytes=kept_bytes + max(run.peak_bytes for run in runs)
    )


@torch.inference_mode()
def _encoder_flops(loaded: Loaded, plan: ComparisonPlan, windows: Sequence[Pcm]) -> float:
    """Return the floating-point operations of the encoder for the windows at their own lengths, counted by torch."""
    flops = 0
    encode = LonePasses(loaded.transcriber(plan).parts)
    for window in windows:
        # Of torch's kinds of attention it counts only the plain one on every device.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            encode([window])
        flops += counter.get_total_flops()
    return float(flops)
