"""Several workers on one subscription, with a timer for an engine: throughput and fairness."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.machine import this_machine
from bench.options import JsonFlag, Repeats, Write
from bench.outcome import deliver, telling
from bench.report import BenchReport, BenchVerdict, Grid, median
from bench.speech import conversation, packaged_utterances, write_audio
from bench.workers import JobsDone, crew, do_jobs, upload
from worker.embedded.local_cloud import local_cloud

PIPELINES_MP3 = ("-ar", "8000", "-c:a", "libmp3lame", "-b:a", "32k")
SEED = 9
LEAST_EFFICIENCY = 0.8
LEAST_FAIRNESS = 0.9
MOST_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class ScaleWish:
    """Options of the command."""

    workers: Sequence[int]
    jobs: int
    """For each worker."""
    minutes: float
    speed: float
    """Speed of each worker's engine, in times real time."""
    repeats: int


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """Measurements of a number of workers."""

    workers: int
    turns: Sequence[JobsDone]

    @property
    def throughput(self) -> float:
        """Seconds of audio a second."""
        return median(turn.audio_seconds / turn.seconds for turn in self.turns)

    @property
    def fairness(self) -> float:
        """Fairness of the least fair turn."""
        return min(fairness(self.jobs_by_worker(turn)) for turn in self.turns)

    def jobs_by_worker(self, turn: JobsDone) -> Sequence[int]:
        """Return the number of jobs that each worker did, idle workers included."""
        counted = Counter(event.transcription_metadata.worker for event in turn.completed)
        return [*counted.values(), *([0] * (self.workers - len(counted)))]


def fairness(shares: Sequence[float]) -> float:
    """Jain's index: 1 where all shares are the same, 1/n where one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def scale(wish: ScaleWish, *, as_json: bool, write: Path | None) -> None:
    """Measure and report. Exit 1 unless workers add up and share fairly."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, telling() as say:
        folder = Path(name)
        say("making speech")
        talk = conversation(asyncio.run(packaged_utterances()), wish.minutes * 60, SEED)
        audio = write_audio(folder / "talk.mp3", talk, *PIPELINES_MP3)
        scaled = [_measure(wish, count, audio, folder / str(count), say) for count in wish.workers]
    deliver(_report(wish, scaled), as_json=as_json, write=write)


def _measure(wish: ScaleWish, count: int, audio: Path, folder: Path, say: Callable[[str], None]) -> Scaled:
    with local_cloud(folder / "gcs") as cloud:
        environment = {**cloud.environment, "PARAKEET_MODEL_NAME": f"null:{wish.speed:g}x"}
        with crew(folder, environment) as workers:
            say(f"starting {count} worker(s)")
            for worker in [workers.start() for _ in range(count)]:
                worker.wait_for("worker.ready")
            upload([audio])
            do_jobs([audio.name] * count, MOST_SECONDS)  # their connections
            turns = []
            for number in range(1, wish.repeats + 1):
                say(f"{count} worker(s), turn {number} of {wish.repeats}")
                turns.append(do_jobs([audio.name] * wish.jobs * count, MOST_SECONDS))
    return Scaled(workers=count, turns=turns)


def _report(wish: ScaleWish, scaled: Sequence[Scaled]) -> BenchReport:
    counts = " ".join(f"--workers {count}" for count in wish.workers)
    options = f"{counts} --jobs {wish.jobs} --minutes {wish.minutes:g} --speed {wish.speed:g}"
    first = scaled[0]
    efficiency = {one.workers: one.throughput / first.throughput / (one.workers / first.workers) for one in scaled}
    return BenchReport(
        key="scale",
        title="Several workers on one subscription",
        command=f"python -m bench.scale {options} --repeats {wish.repeats}",
        machine=this_machine(),
        grids=(_grid(scaled, efficiency),),
        figures={str(one.workers): _figures(one, efficiency[one.workers]) for one in scaled},
        verdicts=tuple(
            verdict
            for one in scaled[1:]
            for verdict in (
                _least(
                    f"{one.workers} workers: throughput of each / of one", efficiency[one.workers], LEAST_EFFICIENCY
                ),
                _least(f"{one.workers} workers: fairness", one.fairness, LEAST_FAIRNESS),
            )
        ),
        notes=(
            (
                f"For each worker {wish.jobs} jobs of {wish.minutes:g} minutes, as the pipeline's MP3, all at once. "
                f"Each engine is a timer of {wish.speed:g} times real time, so everything but recognition is real, and "
                "all share this machine's cores. Fairness is Jain's index over jobs by worker, of the worst turn."
            ),
        ),
    )


def _least(claim: str, measured: float, limit: float) -> BenchVerdict:
    return BenchVerdict(claim=claim, measured=measured, must_be="at least", limit=limit)


def _grid(scaled: Sequence[Scaled], efficiency: Mapping[int, float]) -> Grid:
    rows = []
    for one in scaled:
        shares = "; ".join("/".join(map(str, sorted(one.jobs_by_worker(turn), reverse=True))) for turn in one.turns)
        speed = f"{one.throughput:.0f}", f"{100 * efficiency[one.workers]:.0f} %"
        rows.append((str(one.workers), *speed, shares, f"{one.fairness:.3f}"))
    columns = ("workers", "audio s a second", "each against one", "jobs by worker, turn by turn", "fairness")
    return Grid(title="Throughput and fairness", columns=columns, rows=tuple(rows))


def _figures(one: Scaled, efficiency: float) -> Mapping[str, object]:
    return {
        "audio_seconds_a_second": [turn.audio_seconds / turn.seconds for turn in one.turns],
        "efficiency": efficiency,
        "jobs_by_worker": [one.jobs_by_worker(turn) for turn in one.turns],
        "fairness": one.fairness,
    }


def main(
    workers: Annotated[list[int] | None, typer.Option(help="how many; default: 1, 2 and 4", min=1)] = None,
    jobs: Annotated[int, typer.Option(help="for each worker; published at once", min=1)] = 12,
    minutes: Annotated[float, typer.Option(help="of each job", min=0.1)] = 5.0,
    speed: Annotated[float, typer.Option(help="of each engine, in times real time", min=1)] = 200.0,
    repeats: Repeats = 3,
    as_json: JsonFlag = False,
    write: Write = None,
) -> None:
    """Measure several workers on one subscription, with a timer for an engine: throughput and fairness."""
    wish = ScaleWish(workers=workers or (1, 2, 4), jobs=jobs, minutes=minutes, speed=speed, repeats=repeats)
    scale(wish, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)
