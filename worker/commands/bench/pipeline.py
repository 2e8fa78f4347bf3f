"""`bench pipeline`: files through the whole worker, against its inference alone on the very same windows."""

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from schemas.speech import WindowSpan
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.commands.bench.document import ON_GPU
from worker.commands.bench.machine import GIB, this_machine
from worker.commands.bench.outcome import deliver, telling
from worker.commands.bench.report import Grid, Report, Verdict, median
from worker.commands.bench.speech import conversation, packaged_utterances, write_audio
from worker.commands.bench.weights import TINY_WEIGHTS, file_name, model_of
from worker.commands.bench.workers import Done, Worker, crew, do_jobs, upload, watching_memory
from worker.commands.console import load_settings
from worker.core.transcript.planning import ChunkCutter
from worker.embedded.local_cloud import local_cloud
from worker.ports import SAMPLE_RATE_HZ, Pcm, WindowRecogniser

SECONDS_PER_HOUR = 3600.0
SHORT_SECONDS = (30.0, 120.0)
WINDOWS_UNDER_WAY = 64
"""Offered to the engine alone at once: more than it takes in two batches, fewer than would fill the memory."""
LEAST_SPEED = 40.0
MOST_MINUTES = {0.5: 2.0, 2.0: 6.0, 4.0: 12.0}
MOST_OVER_INFERENCE = {"a file of 4 h": 1.10, "short files": 1.25}
MOST_MEMORY_GROWTH = 1.2
LONG_HOURS = 4.0
"""What is longer is measured once."""
WARM_UP_SECONDS = 660.0
SLOWEST = 10.0
"""Times real time; what is slower is taken for stuck."""
LEAST_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the command was asked for."""

    weights: str
    device: str
    hours: Sequence[float]
    short_files: int
    repeats: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Files that are sent together, and their windows. `samples` lie on disk."""

    name: str
    hours: float
    """Of the file; all of them together where there are several."""
    files: Sequence[Path]
    samples: Pcm
    windows: Sequence[WindowSpan]


@dataclass(kw_only=True)
class Result:
    """A case, measured."""

    case: Case
    done: list[Done] = field(default_factory=list)
    alone_seconds: list[float] = field(default_factory=list)
    first_window_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def seconds(self) -> float:
        """End to end."""
        return median(one.seconds for one in self.done)

    @property
    def speed(self) -> float:
        """End to end, in times real time."""
        return self.case.hours * SECONDS_PER_HOUR / self.seconds

    @property
    def over_inference(self) -> float:
        """End to end against inference alone, each turn for itself."""
        return median(done.seconds / alone for done, alone in zip(self.done, self.alone_seconds, strict=True))

    @property
    def busy_share(self) -> float:
        """Of the time end to end in which the engine computed."""
        return median(one.engine_seconds / one.seconds for one in self.done)


def pipeline(wish: Wish, *, as_json: bool, write: Path | None) -> None:
    """Measure and report. Exit 1 unless the promises were kept."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, telling() as say:
        folder = Path(name)
        model = model_of(wish.weights, folder, say)
        cases = list(_cases(wish, folder, say))
        results = _measure(wish, model, cases, folder, say)
    deliver(_report(wish, results), as_json=as_json, write=write)


def _measure(
    wish: Wish, model: str, cases: Sequence[Case], folder: Path, say: Callable[[str], None]
) -> Sequence[Result]:
    traces = folder / "traces"
    with local_cloud(folder / "gcs") as cloud:
        environment = {
            **cloud.environment,
            "PARAKEET_MODEL_NAME": model,
            "PARAKEET_DEVICE": wish.device,
            "TRACES_EXPORTER": "file",
            "TRACES_FILE": str(traces),
        }
        with crew(folder, environment) as workers:
            say("starting a worker")
            worker = workers.start()
            worker.wait_for("worker.ready")
            warm_up = write_audio(folder / "warm-up.flac", [cases[0].samples[: int(WARM_UP_SECONDS) * SAMPLE_RATE_HZ]])
            upload([warm_up, *(file for case in cases for file in case.files)])
            do_jobs([warm_up.name], LEAST_PATIENCE_SECONDS)
            results = asyncio.run(_turns(wish, model, worker, cases, say))
    _find_first_windows(results, traces)
    return results


async def _turns(
    wish: Wish, model: str, worker: Worker, cases: Sequence[Case], say: Callable[[str], None]
) -> Sequence[Result]:
    """The worker and an engine like its own take turns, case by case."""
    results = []
    async with engine_like_the_workers(model, wish.device) as engine:
        for case in cases:
            result = Result(case=case)
            turns = wish.repeats if case.hours <= LONG_HOURS else 1
            for number in range(1, turns + 1):
                say(f"{case.name}, turn {number} of {turns}: the worker")
                await asyncio.to_thread(_one_turn, worker, result)
                say(f"{case.name}, turn {number} of {turns}: inference alone")
                result.alone_seconds.append(await hear_alone(engine, case))
            results.append(result)
    return results


def engine_like_the_workers(model: str, device: str) -> ParakeetEngine:
    """To be entered."""
    settings = load_settings()
    return ParakeetEngine(
        model_name=model,
        device=device,
        batch_size=settings.gpu_batch_size,
        memory_limit_gib=settings.gpu_memory_limit_gb,
    )


def _one_turn(worker: Worker, result: Result) -> None:
    patience = max(LEAST_PATIENCE_SECONDS, result.case.hours * SECONDS_PER_HOUR / SLOWEST)
    with watching_memory(worker.pid) as held:
        result.done.append(do_jobs([file.name for file in result.case.files], patience))
    result.peak_bytes = max(result.peak_bytes, *held)


async def hear_alone(engine: WindowRecogniser, case: Case) -> float:
    """Seconds for all windows of the case, offered as fast as the engine takes them."""
    room, loop = asyncio.Semaphore(WINDOWS_UNDER_WAY), asyncio.get_running_loop()

    async def hear(span: WindowSpan) -> None:
        try:
            await engine.recognise(np.array(case.samples[span.start_sample : span.end_sample]), "bench")
        finally:
            room.release()

    began = loop.time()
    async with asyncio.TaskGroup() as tasks:
        for span in case.windows:
            await room.acquire()
            tasks.create_task(hear(span))
    return loop.time() - began


# what is sent


def _cases(wish: Wish, folder: Path, say: Callable[[str], None]) -> Iterator[Case]:
    utterances = asyncio.run(packaged_utterances())
    for seed, hours in enumerate(sorted(wish.hours), 1):
        say(f"making a file of {hours:g} h")
        name = f"a file of {hours:g} h"
        yield _case(name, folder / f"{hours:g}h", [conversation(utterances, hours * SECONDS_PER_HOUR, seed)])
    if wish.short_files:
        say(f"making {wish.short_files} short files")
        lengths = np.linspace(*SHORT_SECONDS, wish.short_files)
        talks = [conversation(utterances, float(length), 100 + seed) for seed, length in enumerate(lengths)]
        yield _case("short files", folder / "short", talks)


def _case(name: str, stem: Path, talks: Sequence[Iterator[Pcm]]) -> Case:
    """Write each talk as 16 kHz FLAC, and all of them as samples in one file, with their windows."""
    raw = stem.with_suffix(".pcm")
    chunk_seconds = load_settings().chunk_duration_minutes * 60
    files, windows, written = [], [], 0
    with raw.open("wb") as samples:
        for number, talk in enumerate(talks):
            kept = _Kept(ChunkCutter(chunk_seconds=chunk_seconds), samples)
            files.append(write_audio(stem.with_name(f"{stem.name}-{number}.flac"), kept.blocks(talk)))
            windows += [WindowSpan(written + one.start_sample, written + one.end_sample) for one in kept.windows()]
            written += kept.total_samples
    return Case(
        name=name,
        hours=written / SAMPLE_RATE_HZ / SECONDS_PER_HOUR,
        files=files,
        samples=np.memmap(raw, np.int16, mode="r"),
        windows=windows,
    )


class _Kept:
    """Looks on while a talk is written: keeps its samples and learns its windows."""

    def __init__(self, cutter: ChunkCutter, samples: BinaryIO) -> None:
        self._cutter, self._samples = cutter, samples
        self._spans: list[WindowSpan] = []

    def blocks(self, talk: Iterator[Pcm]) -> Iterator[Pcm]:
        for block in talk:
            self._samples.write(block.tobytes())
            self._spans += [span for chunk in self._cutter.push(block) for span in chunk.windows]
            yield block

    def windows(self) -> Sequence[WindowSpan]:
        """Once all blocks have gone through."""
        return [*self._spans, *(span for chunk in self._cutter.finish() for span in chunk.windows)]

    @property
    def total_samples(self) -> int:
        return self._cutter.total_samples


# when the first window reached the engine


def _find_first_windows(results: Sequence[Result], traces: Path) -> None:
    starts = sorted(chunk_starts(traces.read_text("utf-8").splitlines()))
    for result in results:
        for done in result.done:
            first = next(start for start in starts if start > done.published_at)
            result.first_window_seconds.append(first - done.published_at)


def chunk_starts(lines: Sequence[str]) -> Iterator[float]:
    """When the windows of a chunk went to the engine, from the worker's trace: lines of OTLP JSON."""
    for line in lines:
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    if span["name"] == "chunk":
                        yield int(span["startTimeUnixNano"]) / 1e9


# what is told


def _report(wish: Wish, results: Sequence[Result]) -> Report:
    machine, settings = this_machine(), load_settings()
    lengths = " ".join(f"--hours {hours:g}" for hours in wish.hours)
    options = f"--weights {wish.weights} --device {wish.device} {lengths} --short-files {wish.short_files}"
    return Report(
        key=f"pipeline-{file_name(wish.weights)}" + (ON_GPU if machine.gpus and wish.device != "cpu" else ""),
        title=f"The whole worker, {wish.weights} weights",
        command=f"klipstream-worker bench pipeline {options} --repeats {wish.repeats}",
        machine=machine,
        grids=(_grid(results),),
        figures={result.case.name: _figures(result) for result in results},
        verdicts=tuple(_verdicts(wish, results)),
        notes=(
            (
                "From the publication of the job to its event, on the development servers of this machine, as 16 kHz "
                "FLAC; against an engine like the worker's own that is offered the same windows from memory, in turns. "
                f"Medians; what is longer than {LONG_HOURS:g} h is measured once. Memory is the proportional set size "
                f"of the worker, its inference process and ffmpeg. Batches of {settings.gpu_batch_size}, "
                f"{settings.chunks_in_flight} chunks of {settings.chunk_duration_minutes:g} min in flight."
            ),
        ),
    )


def _grid(results: Sequence[Result]) -> Grid:
    return Grid(
        title="End to end",
        columns=(
            "what",
            "turns",
            "seconds",
            "inference alone",
            "ratio",
            "times real time",
            "engine busy",
            "first window after, s",
            "peak MiB",
        ),
        rows=tuple(
            (
                f"{len(result.case.files)} {result.case.name}" if len(result.case.files) > 1 else result.case.name,
                str(len(result.done)),
                f"{result.seconds:.1f}",
                f"{median(result.alone_seconds):.1f}",
                f"{result.over_inference:.3f}",
                f"{result.speed:.0f}",
                f"{100 * result.busy_share:.0f} %",
                f"{median(result.first_window_seconds):.2f}",
                f"{result.peak_bytes / (GIB / 1024):.0f}",
            )
            for result in results
        ),
    )


def _verdicts(wish: Wish, results: Sequence[Result]) -> Iterator[Verdict]:
    by_hours = {round(result.case.hours, 3): result for result in results if len(result.case.files) == 1}
    for result in results:
        name = result.case.name
        yield Verdict(claim=f"{name}: times real time", measured=result.speed, must_be="at least", limit=LEAST_SPEED)
        if name in MOST_OVER_INFERENCE and wish.weights == TINY_WEIGHTS:
            over = MOST_OVER_INFERENCE[name]
            yield _most(f"{name}: end to end / inference alone", result.over_inference, over)
    for hours, minutes in MOST_MINUTES.items():
        if hours in by_hours:
            yield _most(f"a file of {hours:g} h: minutes", by_hours[hours].seconds / 60, minutes)
    if len(by_hours) > 1:
        shortest, longest = (by_hours[pick] for pick in (_baseline(by_hours), max(by_hours)))
        growth = longest.peak_bytes / shortest.peak_bytes
        claim = f"peak memory, {longest.case.hours:g} h / {shortest.case.hours:g} h"
        yield _most(claim, growth, MOST_MEMORY_GROWTH)


def _baseline(by_hours: Mapping[float, Result]) -> float:
    """An hour where there is one, else the shortest."""
    return 1.0 if 1.0 in by_hours else min(by_hours)


def _most(claim: str, measured: float, limit: float) -> Verdict:
    return Verdict(claim=claim, measured=measured, must_be="at most", limit=limit)


def _figures(result: Result) -> Mapping[str, object]:
    return {
        "hours": result.case.hours,
        "files": len(result.case.files),
        "windows": len(result.case.windows),
        "seconds": [one.seconds for one in result.done],
        "inference_alone_seconds": result.alone_seconds,
        "over_inference": result.over_inference,
        "real_time_factor": result.speed,
        "engine_busy_share": result.busy_share,
        "first_window_seconds": result.first_window_seconds,
        "peak_bytes": result.peak_bytes,
    }
