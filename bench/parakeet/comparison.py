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

from bench.parakeet.attention import attentions, with_our_attention
from bench.parakeet.device import DeviceRun, Stopwatch, kept_bytes, matmul_ceiling, timed
from bench.parakeet.nemo import Nemo
from bench.parakeet.results import Agreement, ComparedWay, Comparison, ComparisonPlan, Material, agreement
from worker.adapters.parakeet.attention import sees_its_whole_input
from worker.adapters.parakeet.buckets import bucket_of
from worker.adapters.parakeet.child_process.pipeline import Pipeline
from worker.adapters.parakeet.inference import WindowsToWords
from worker.adapters.parakeet.loaded import LoadedModel
from worker.adapters.parakeet.model import load_model, model_file
from worker.adapters.parakeet.protocol import Batch, EngineOptions
from worker.ports import Pcm

_SWEEPS = 2
"""Of NeMo's batch sizes; the faster time of each counts."""


def compare(plan: ComparisonPlan, material: Material, say: Callable[[str], None]) -> Comparison:
    """Load the model twice, once as ours and once as NeMo's own, and measure. `say` is told of every step.

    Raises what `load_model` raises.
    """
    say(f"loading {plan.weights} twice")
    nemo_threads = torch.get_num_threads()
    options = _options(plan)
    loaded, facts = load_model(options)
    rivals = _Rivals(
        plan=plan,
        material=material,
        say=say,
        ours=_Ours(loaded, plan),
        nemo=Nemo(_untouched(options, loaded.device)),
        device=loaded.device,
        dtype=loaded.dtype,
        nemo_threads=nemo_threads,
    )
    sweep = rivals.sweep()
    best = min(sweep, key=lambda size: sweep[size])
    turns = rivals.take_turns(best)
    alone, batched = rivals.agreements(best)
    say("kinds of attention, the encoder's arithmetic and the device's ceiling")
    torch.set_num_threads(1)
    return Comparison(
        device_name=facts.device_name,
        uses_gpu=facts.uses_gpu,
        precision=str(loaded.dtype).removeprefix("torch."),
        nemo_threads=nemo_threads,
        ours=_way(turns.ours, kept_bytes=rivals.ours.kept_bytes),
        chunks=_way(turns.chunks),
        windows=_way(turns.windows),
        best_batch_size=best,
        sweep=sweep,
        alone=alone,
        batched=batched,
        stages=turns.median_stages(),
        attentions=attentions(loaded, plan, material.windows),
        encoder_flops=_encoder_flops(loaded, material.windows),
        ceiling_flops_per_second=matmul_ceiling(loaded.device, loaded.dtype),
    )


@dataclass(kw_only=True)
class _Turns:
    ours: list[DeviceRun] = field(default_factory=list)
    windows: list[DeviceRun] = field(default_factory=list)
    chunks: list[DeviceRun] = field(default_factory=list)
    stages: list[Mapping[str, float]] = field(default_factory=list)

    def median_stages(self) -> Mapping[str, float]:
        return {name: median(one[name] for one in self.stages) for name in self.stages[0]}


class _Ours:
    """Our inference, batched as the batcher does it for one job."""

    def __init__(self, loaded: LoadedModel, plan: ComparisonPlan) -> None:
        self._loaded, self._batch_size, self._graphs = loaded, plan.batch_size, plan.gpu_graphs
        before = kept_bytes(loaded.device)
        self._model = WindowsToWords(loaded, plan.batch_size, threads=plan.threads, graphs=plan.gpu_graphs)
        self._model.warm_up()
        self.kept_bytes = kept_bytes(loaded.device) - before

    def hear(self, windows: Sequence[Pcm]) -> None:
        self._hear(self._model, windows)

    def tokens(self, windows: Sequence[Pcm]) -> list[list[str]]:
        pieces: list[list[str]] = [[] for _ in windows]
        for batch in self._batches(windows):
            heard = self._model.tokens([windows[number] for number in batch])
            for number, tokens in zip(batch, heard, strict=True):
                pieces[number] = [token.piece for token in tokens]
        return pieces

    def stages(self, windows: Sequence[Pcm]) -> Mapping[str, float]:
        """Seconds by stage, on one thread."""
        watch = Stopwatch(self._loaded.device)
        model = WindowsToWords(self._loaded, self._batch_size, graphs=self._graphs, lap=watch.lap)
        model.warm_up()
        watch.seconds.clear()
        watch.go()
        self._hear(model, windows)
        return watch.seconds

    def _hear(self, model: WindowsToWords, windows: Sequence[Pcm]) -> None:
        batches = self._batches(windows)

        def take(_: bool) -> Batch | None:
            numbers = next(batches, None)
            if numbers is None:
                return None
            return Batch(windows=tuple(windows[number] for number in numbers), is_last=len(numbers) < self._batch_size)

        for heard in Pipeline(model).answers(take):
            if heard.words is None:
                raise torch.OutOfMemoryError("a batch of ours")

    def _batches(self, windows: Sequence[Pcm]) -> Iterator[list[int]]:
        by_bucket: dict[int, list[int]] = {}
        for number, window in enumerate(windows):
            bucket = 0 if self._model.mixes_lengths else bucket_of(len(window))
            by_bucket.setdefault(bucket, []).append(number)
        for numbers in by_bucket.values():
            for start in range(0, len(numbers), self._batch_size):
                yield numbers[start : start + self._batch_size]


@dataclass(kw_only=True)
class _Rivals:
    plan: ComparisonPlan
    material: Material
    say: Callable[[str], None]
    ours: _Ours
    nemo: Nemo
    device: torch.device
    dtype: torch.dtype
    nemo_threads: int

    def sweep(self) -> Mapping[int, float]:
        """NeMo's best seconds for each batch size that fits."""
        self._nemos_turn(times=False)
        self.nemo.in_precision(self.dtype)
        self.nemo.windows(self.material.windows[:1], 1)  # what only the first call pays is nobody's
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
        torch.set_num_threads(self.nemo_threads)
        self.nemo.with_times(times)


def _options(plan: ComparisonPlan) -> EngineOptions:
    return EngineOptions(
        model_name=plan.weights,
        device=plan.device,
        batch_size=plan.batch_size,
        memory_limit_gib=plan.memory_limit_gib,
        gpu_precision=plan.gpu_precision,
        gpu_graphs=plan.gpu_graphs,
        cpu_threads=plan.threads,
        overlap=True,
        heartbeat_seconds=1,
        log_format="auto",
    )


def _untouched(options: EngineOptions, device: torch.device) -> Any:
    return ASRModel.restore_from(str(model_file(options.model_name)), map_location=device)


def _way(runs: Sequence[DeviceRun], *, kept_bytes: int = 0) -> ComparedWay:
    return ComparedWay(
        seconds=tuple(run.seconds for run in runs), peak_bytes=kept_bytes + max(run.peak_bytes for run in runs)
    )


@torch.inference_mode()
def _encoder_flops(loaded: LoadedModel, windows: Sequence[Pcm]) -> float:
    """Of the encoder on each window alone, counted by torch; positions are projected once for all windows, so never."""
    flops, network = 0, loaded.network
    encoder = with_our_attention(network) if sees_its_whole_input(network.encoder) else network.encoder
    for window in windows:
        wave = torch.from_numpy(window).to(loaded.device).float()[None] / 32768
        length = torch.tensor([len(window)], device=loaded.device)
        features, frames = network.preprocessor(input_signal=wave, length=length)
        # Of torch's kinds of attention it counts only the plain one on every device.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            encoder(audio_signal=features.to(loaded.dtype), length=frames)
        flops += counter.get_total_flops()
    return float(flops)
