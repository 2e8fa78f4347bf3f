"""Results of `bench.pipeline`, compared with the promises."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.cases import CLIPS, SECONDS_PER_HOUR, SHORT_FILES, Case
from bench.document import ON_GPU
from bench.machine import GIB, this_machine
from bench.report import BenchReport, BenchVerdict, Grid, median
from bench.weights import TINY_WEIGHTS, file_name
from bench.workers import JobsDone
from worker.commands.console import load_settings

LEAST_SPEED = 40.0
MOST_MINUTES = {0.5: 2.0, 2.0: 6.0, 4.0: 12.0}
MOST_OVER_INFERENCE = {"a file of 4 h": 1.10, SHORT_FILES: 1.25, CLIPS: 1.5}
MOST_MEMORY_GROWTH = 1.2
LONG_HOURS = 5.0
"""Duration above which a file is measured once."""


@dataclass(frozen=True, kw_only=True)
class PipelineWish:
    """Options of the command."""

    weights: str
    device: str
    hours: Sequence[float]
    short_files: int
    repeats: int

    def turns(self, case: Case) -> int:
        """Return the number of turns of a case: more if it is held to a ratio, since turns differ by a tenth."""
        if case.hours > LONG_HOURS:
            return 1
        return 2 * self.repeats - 1 if case.name in MOST_OVER_INFERENCE else self.repeats


@dataclass(kw_only=True)
class CaseResult:
    """A case, measured."""

    case: Case
    done: list[JobsDone] = field(default_factory=list)
    alone_seconds: list[float] = field(default_factory=list)
    first_window_seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    """Processor seconds of the worker and its ffmpegs in each turn, without the engine's."""
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
        """Share of the end-to-end time in which the engine computed."""
        return median(one.engine_seconds / one.seconds for one in self.done)

    @property
    def processor_seconds_an_hour(self) -> float:
        """Processor seconds per hour of audio, without the engine's."""
        return median(self.processor_seconds) / self.case.hours


def report(wish: PipelineWish, results: Sequence[CaseResult]) -> BenchReport:
    """Everything that was found, judged."""
    machine, settings = this_machine(), load_settings()
    jobs = settings.jobs
    lengths = " ".join(f"--hours {hours:g}" for hours in wish.hours)
    options = f"--weights {wish.weights} --device {wish.device} {lengths} --short-files {wish.short_files}"
    return BenchReport(
        key=f"pipeline-{file_name(wish.weights)}" + (ON_GPU if machine.gpus and wish.device != "cpu" else ""),
        title=f"The whole worker, {wish.weights} weights",
        command=f"python -m bench.pipeline {options} --repeats {wish.repeats}",
        machine=machine,
        grids=(_grid(results),),
        figures={result.case.name: _figures(result) for result in results},
        verdicts=tuple(_verdicts(wish, results)),
        notes=(
            (
                "From the publication of the job to its event, on the development servers of this machine, as 16 kHz "
                "FLAC; against an engine like the worker's own that is offered the same windows from memory, in turns. "
                f"Medians; what is longer than {LONG_HOURS:g} h is measured once. Memory is the proportional set size "
                f"of the worker, its inference process and ffmpeg. Batches of {settings.engine.gpu_batch_size}, "
                f"{jobs.chunks_in_flight} chunks of {jobs.chunk_duration_minutes:g} min in flight. What the "
                "worker and its ffmpegs take of the processors, beside the engine, is what it costs to keep an engine "
                "of any speed at work: at N times real time N / 3600 of it in each second."
            ),
        ),
    )


def _grid(results: Sequence[CaseResult]) -> Grid:
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
            "processor s an hour of audio",
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
                f"{result.processor_seconds_an_hour:.1f}",
                f"{result.peak_bytes / (GIB / 1024):.0f}",
            )
            for result in results
        ),
    )


def _verdicts(wish: PipelineWish, results: Sequence[CaseResult]) -> Iterator[BenchVerdict]:
    by_hours = {round(result.case.hours, 3): result for result in results if len(result.case.files) == 1}
    for result in results:
        name = result.case.name
        yield BenchVerdict(
            claim=f"{name}: times real time", measured=result.speed, must_be="at least", limit=LEAST_SPEED
        )
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


def _baseline(by_hours: Mapping[float, CaseResult]) -> float:
    """Return the file of an hour if there is one, or else the shortest."""
    return 1.0 if 1.0 in by_hours else min(by_hours)


def _most(claim: str, measured: float, limit: float) -> BenchVerdict:
    return BenchVerdict(claim=claim, measured=measured, must_be="at most", limit=limit)


def _figures(result: CaseResult) -> Mapping[str, object]:
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
        "processor_seconds": result.processor_seconds,
        "peak_bytes": result.peak_bytes,
    }
