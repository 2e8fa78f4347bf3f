"""Our inference against NeMo's own `transcribe()`, on the same weights, speech and device."""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.document import ON_GPU
from bench.machine import GIB, this_machine
from bench.options import DeviceOption, JsonFlag, Repeats, WeightsOption, Write
from bench.outcome import deliver, telling
from bench.parakeet.results import Agreement, ComparedWay, Comparison, ComparisonPlan, Material
from bench.report import BenchReport, BenchVerdict, Grid, spread
from bench.speech import some_speech, write_audio
from bench.weights import TINY_WEIGHTS, file_name, model_of
from worker.commands.console import fail, load_settings
from worker.core.transcript.planning import ChunkCutter
from worker.errors import GpuNotAvailable, ModelLoadingError
from worker.ports import SAMPLE_RATE_HZ, Pcm

SEED = 5
SECONDS_PER_MINUTE = 60
LEAST_RATIOS = {"cpu": (15.0, 1.3), "cuda": (10.0, 2.0)}
"""Ours over NeMo on chunks, and over NeMo on windows."""
LEAST_SHARE_OF_CEILING = 0.25
MOST_WRONG = {"float32": 0.0, "bfloat16": 0.01, "float16": 0.002}
"""Share of tokens. With random weights, whose best token has a probability of 0.002, another order of adding up in
bfloat16 alone changes 0.4 to 0.6 %, in float16 none of 243."""
_TERA = 1e12


@dataclass(frozen=True, kw_only=True)
class InferenceWish:
    """Options of the command; None: the device's default."""

    weights: str
    device: str
    minutes: float | None
    chunk_minutes: float | None
    batch_sizes: Sequence[int]
    threads: int | None
    repeats: int


def inference(wish: InferenceWish, *, as_json: bool, write: Path | None) -> None:
    """Measure and report. Exit 1 unless the promises were kept."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in the inference process
    logging.disable(logging.WARNING)  # NeMo's
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, telling() as say:
        on_gpu = wish.device == "cuda" or (wish.device == "auto" and bool(this_machine().gpus))
        minutes = wish.minutes or (120.0 if on_gpu else 20.0)
        chunk_minutes = wish.chunk_minutes or (10.0 if on_gpu else 5.0)
        batch_sizes = wish.batch_sizes or ((8, 16, 32, 64, 128, 256) if on_gpu else (1, 2, 4, 8))
        plan = _plan(wish, model_of(wish.weights, Path(folder), say), "cuda" if on_gpu else "cpu", batch_sizes)
        say("making speech")
        audio = some_speech(minutes * SECONDS_PER_MINUTE, SEED)
        measured = _compare(plan, _material(audio, chunk_minutes, Path(folder)), say)
    deliver(_report(wish, plan, measured, minutes, chunk_minutes), as_json=as_json, write=write)


def _plan(wish: InferenceWish, weights: str, device: str, batch_sizes: Sequence[int]) -> ComparisonPlan:
    settings = load_settings().engine
    return ComparisonPlan(
        weights=weights,
        device=device,
        batch_size=settings.gpu_batch_size,
        threads=wish.threads or len(os.sched_getaffinity(0)),
        nemo_batch_sizes=tuple(batch_sizes),
        memory_limit_gib=settings.gpu_memory_limit_gb,
        gpu_precision=settings.gpu_precision,
        gpu_graphs=settings.gpu_graphs,
        repeats=wish.repeats,
    )


def _compare(plan: ComparisonPlan, material: Material, say: Callable[[str], None]) -> Comparison:
    from bench.parakeet.comparison import compare  # noqa: PLC0415  NeMo: 10 s

    try:
        return compare(plan, material, say)
    except (GpuNotAvailable, ModelLoadingError) as exc:
        fail(f"{exc}: {exc.suggested_action}")


# the material


def _material(audio: Pcm, chunk_minutes: float, folder: Path) -> Material:
    return Material(
        seconds=len(audio) / SAMPLE_RATE_HZ,
        windows=tuple(_windows(audio)),
        chunk_files=tuple(_chunk_files(audio, chunk_minutes, folder)),
    )


def _windows(audio: Pcm) -> Iterator[Pcm]:
    cutter = ChunkCutter(chunk_seconds=load_settings().jobs.chunk_duration_minutes * SECONDS_PER_MINUTE)
    for chunk in (*cutter.push(audio), *cutter.finish()):
        yield from map(chunk.samples_of, chunk.windows)


def _chunk_files(audio: Pcm, minutes: float, folder: Path) -> Iterator[Path]:
    step = round(minutes * SECONDS_PER_MINUTE * SAMPLE_RATE_HZ)
    for start in range(0, len(audio), step):
        yield write_audio(folder / f"chunk-{start:012d}.wav", [audio[start : start + step]])


# the report


def _report(
    wish: InferenceWish, plan: ComparisonPlan, measured: Comparison, minutes: float, chunk_minutes: float
) -> BenchReport:
    seconds = minutes * SECONDS_PER_MINUTE
    device = "cuda" if measured.uses_gpu else "cpu"
    options = f"--weights {wish.weights} --minutes {minutes:g} --chunk-minutes {chunk_minutes:g}"
    return BenchReport(
        key=f"inference-{file_name(wish.weights)}" + (ON_GPU if measured.uses_gpu else ""),
        title=f"Inference on {measured.device_name}, {wish.weights} weights",
        command=f"python -m bench.inference {options} --repeats {plan.repeats}",
        machine=this_machine(),
        grids=(
            _speeds(measured, seconds, chunk_minutes),
            _agreements(measured),
            _stages(measured),
            _sweep(measured, seconds),
        ),
        figures=_figures(measured, seconds),
        verdicts=tuple(_verdicts(wish, measured, device)),
        notes=(_note(plan, measured, minutes, chunk_minutes),),
    )


def _note(plan: ComparisonPlan, measured: Comparison, minutes: float, chunk_minutes: float) -> str:
    return (
        f"{minutes:g} minutes of speech, {measured.alone.windows} windows of our planner. Ours and NeMo take turns, "
        f"NeMo {plan.repeats} each, ours before and after; figures are medians. "
        f"(a) is `transcribe()` on files of {chunk_minutes:g} minutes with its default batch size and timestamps, "
        "in float32. (b) is `transcribe()` on our windows, longest first, "
        f"without timestamps, at the best of the batch sizes below, in {measured.precision}. Ours gives words with "
        f"times and confidences, in {measured.precision}, {measured.batch_size} windows a batch. "
        f"Threads on the CPU: {plan.threads} of ours, {measured.nemo_threads} of NeMo's; in a worker, "
        "ours has one fewer than there are cores."
    )


def _verdicts(wish: InferenceWish, measured: Comparison, device: str) -> Iterator[BenchVerdict]:
    if device == "cuda" or wish.weights == TINY_WEIGHTS:  # of big models on a CPU nothing is promised but the tokens
        over_chunks, over_windows = LEAST_RATIOS[device]
        ours = measured.ours.median_seconds
        yield _least("ours / NeMo (a)", measured.chunks.median_seconds / ours, over_chunks)
        yield _least("ours / NeMo (b)", measured.windows.median_seconds / ours, over_windows)
    if measured.uses_gpu:
        yield _least("encoder's share of the ceiling", measured.share_of_ceiling, LEAST_SHARE_OF_CEILING)
    yield BenchVerdict(
        claim="share of tokens other than NeMo's, window by window",
        measured=measured.alone.wrong_share,
        must_be="at most",
        limit=MOST_WRONG[measured.precision],
    )


def _least(claim: str, measured: float, limit: float) -> BenchVerdict:
    return BenchVerdict(claim=claim, measured=measured, must_be="at least", limit=limit)


def _speeds(measured: Comparison, seconds: float, chunk_minutes: float) -> Grid:
    def row(name: str, way: ComparedWay) -> tuple[str, ...]:
        speeds = [seconds / one for one in way.seconds]
        ratio = way.median_seconds / measured.ours.median_seconds
        return name, spread(speeds), f"{ratio:.2f}", f"{way.peak_bytes / GIB:.2f}"

    return Grid(
        title="Speed",
        columns=("way", "times real time", "ours is faster by", "peak GiB beside the weights"),
        rows=(
            row(f"ours, batch {measured.batch_size}", measured.ours),
            row(f"NeMo (a), chunks of {chunk_minutes:g} min", measured.chunks),
            row(f"NeMo (b), windows, batch {measured.best_batch_size}", measured.windows),
        ),
    )


def _agreements(measured: Comparison) -> Grid:
    def row(name: str, one: Agreement) -> tuple[str, ...]:
        return name, f"{one.equal_windows} of {one.windows}", str(one.tokens), str(one.wrong_tokens)

    return Grid(
        title="Tokens of ours against NeMo's on the same windows",
        columns=("NeMo with", "equal windows", "tokens", "other tokens"),
        rows=(
            row("one window at a time", measured.alone),
            row(f"batches of {measured.best_batch_size}", measured.batched),
        ),
    )


def _stages(measured: Comparison) -> Grid:
    total = sum(measured.stages.values())
    rows = [(name, f"{took:.3f}", f"{100 * took / total:.1f} %") for name, took in measured.stages.items()]
    share = (
        f"{100 * measured.share_of_ceiling:.1f} % of {measured.ceiling_flops_per_second / _TERA:.3f} TFLOP/s measured"
    )
    return Grid(
        title=f"Stages of ours, on one thread of a CPU; the encoder does {share}",
        columns=("stage", "seconds", "share"),
        rows=tuple(rows),
    )


def _sweep(measured: Comparison, seconds: float) -> Grid:
    return Grid(
        title="NeMo (b) by batch size",
        columns=("batch size", "times real time"),
        rows=tuple((str(size), f"{seconds / took:.1f}") for size, took in measured.sweep.items()),
    )


def _figures(measured: Comparison, seconds: float) -> dict[str, object]:
    ways = {"ours": measured.ours, "nemo_chunks": measured.chunks, "nemo_windows": measured.windows}
    return {
        "audio_seconds": seconds,
        "device": measured.device_name,
        "precision": measured.precision,
        **{name: _way_figures(way, seconds) for name, way in ways.items()},
        "nemo_batch_size": measured.best_batch_size,
        "nemo_seconds_by_batch_size": dict(measured.sweep),
        "wrong_tokens_window_by_window": measured.alone.wrong_tokens,
        "wrong_tokens_batched": measured.batched.wrong_tokens,
        "tokens": measured.alone.tokens,
        "stages": dict(measured.stages),
        "encoder_flops": measured.encoder_flops,
        "ceiling_flops_per_second": measured.ceiling_flops_per_second,
        "share_of_ceiling": measured.share_of_ceiling,
    }


def _way_figures(way: ComparedWay, seconds: float) -> dict[str, object]:
    return {"seconds": way.seconds, "real_time_factor": seconds / way.median_seconds, "peak_bytes": way.peak_bytes}


def main(
    weights: WeightsOption = "tiny",
    device: DeviceOption = "auto",
    minutes: Annotated[float | None, typer.Option(help="of speech; default: 20 on a CPU, 120 on a GPU")] = None,
    chunk_minutes: Annotated[float | None, typer.Option(help="of NeMo's; default: 5 on a CPU, 10 on a GPU")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(help="of NeMo on windows; the best is taken")] = None,
    threads: Annotated[int | None, typer.Option(help="of ours, on a CPU; default: the cores there are", min=1)] = None,
    repeats: Repeats = 3,
    as_json: JsonFlag = False,
    write: Write = None,
) -> None:
    """Compare ours with NeMo's transcribe(): speed, tokens, memory, stages, share of the device's ceiling."""
    wish = InferenceWish(
        weights=weights,
        device=device,
        minutes=minutes,
        chunk_minutes=chunk_minutes,
        batch_sizes=batch_size or (),
        threads=threads,
        repeats=repeats,
    )
    inference(wish, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)
