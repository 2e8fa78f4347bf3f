"""From the start of a process to what it was started for, stage by stage."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import typer

from bench.document import ON_GPU
from bench.machine import this_machine
from bench.options import JsonFlag, Repeats, Write
from bench.outcome import deliver, telling
from bench.report import BenchReport, BenchVerdict, Grid, median
from bench.workers import Crew, crew
from worker.embedded.local_cloud import local_cloud

MOST_SECONDS_OF_HELP = 0.5
MOST_SECONDS_TO_FIRST_CALL = 1.2
MOST_SECONDS_TO_READY = 4.0
MOST_TIMES_TORCH = 2.2
"""From the start of a worker to ready, over `python -c "import torch"` in the same run."""
MOST_SECONDS = 300.0
CALLERS: Mapping[str, tuple[str, ...]] = {
    "submit": ("submit", "gs://bucket/audio.mp3", "--video-id", "1"),
    "watch": ("watch",),
    "dlq list": ("dlq", "list"),
    "check": ("check",),
}


@dataclass(frozen=True, kw_only=True)
class WorkerStart:
    """Seconds from the start of a worker's process to its milestones, and what the inference process took for its."""

    first_log: float
    imports: float
    weights: float
    warm_up: float
    ready: float


def startup(repeats: int, *, as_json: bool, write: Path | None) -> None:
    """Measure and report. Exit 1 unless the limits were kept."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, telling() as say:
        say("commands")
        plain = {name: _several(repeats, partial(_whole, call)) for name, call in _plain().items()}
        calls = {name: _several(repeats, partial(_to_first_call, call, Path(folder))) for name, call in CALLERS.items()}
        starts, torch_alone = [], []
        for number in range(repeats):
            say(f"worker, start {number + 1} of {repeats}")
            torch_alone.append(_whole((sys.executable, "-c", "import torch")))
            starts.append(_worker_start(Path(folder, str(number))))
    machine = this_machine()
    report = BenchReport(
        key="startup" + (ON_GPU if machine.gpus else ""),
        title="Start-up",
        command=f"python -m bench.startup --repeats {repeats}",
        machine=machine,
        grids=(_commands(plain, calls), _worker(starts, torch_alone)),
        figures={
            "commands": plain,
            "to_first_call": calls,
            "worker": [vars(one) for one in starts],
            "import torch": torch_alone,
        },
        verdicts=(
            _most("--help, s", plain["--help"], MOST_SECONDS_OF_HELP),
            _most("a usage error, s", plain["a usage error"], MOST_SECONDS_OF_HELP),
            *(_most(f"{name} to its first call, s", took, MOST_SECONDS_TO_FIRST_CALL) for name, took in calls.items()),
            _most("run, to ready, s", [one.ready for one in starts], MOST_SECONDS_TO_READY),
            _most(
                "run, to ready, times the import of torch",
                [one.ready / alone for one, alone in zip(starts, torch_alone, strict=True)],
                MOST_TIMES_TORCH,
            ),
        ),
        notes=(f"Medians of {repeats}; the files are in the page cache. A first call is a connection to the server.",),
    )
    deliver(report, as_json=as_json, write=write)


def _several(repeats: int, once: Callable[[], float]) -> list[float]:
    once()  # brings the files into the page cache
    return [once() for _ in range(repeats)]


def _plain() -> Mapping[str, Sequence[str]]:
    ours = (sys.executable, "-m", "worker")
    return {
        "the interpreter": (sys.executable, "-c", "pass"),
        "--help": (*ours, "--help"),
        "run --help": (*ours, "run", "--help"),
        "a usage error": (*ours, "submit", "--nonsense"),
    }


def _whole(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def _to_first_call(arguments: Sequence[str], folder: Path) -> float:
    """Until it connects to whatever it takes for Google."""
    with _nobody() as (address, accept):
        environment = {
            **os.environ,
            "PUBSUB_EMULATOR_HOST": address,
            "STORAGE_EMULATOR_HOST": f"http://{address}",
            "OUTPUT_BUCKET": "output",
            "STATE_BUCKET": "state",
            "TEMP_DIR": str(folder),
        }
        started = time.perf_counter()
        process = subprocess.Popen(
            (sys.executable, "-m", "worker", *arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            accept()
            return time.perf_counter() - started
        finally:
            process.kill()
            process.wait()


@contextmanager
def _nobody() -> Iterator[tuple[str, Callable[[], object]]]:
    """Run a server that accepts calls and never answers; yield its address, and a function that waits for a call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(MOST_SECONDS)
        yield f"127.0.0.1:{server.getsockname()[1]}", server.accept


def _worker_start(folder: Path) -> WorkerStart:
    with local_cloud(folder / "gcs") as cloud, crew(folder, cloud.environment) as workers:
        return worker_start(workers)


def worker_start(workers: Crew) -> WorkerStart:
    """Start one and wait until it pulls."""
    began = time.time()
    worker = workers.start()
    ready = worker.wait_for("worker.ready", MOST_SECONDS)
    first = worker.wait_for("worker.starting", MOST_SECONDS)
    imported = worker.wait_for("engine.runtime_imported", MOST_SECONDS)
    loaded = worker.wait_for("engine.loaded", MOST_SECONDS)
    return WorkerStart(
        first_log=_moment(first) - began,
        imports=imported["seconds"],
        weights=loaded["load_seconds"],
        warm_up=loaded["warm_up_seconds"],
        ready=_moment(ready) - began,
    )


def _moment(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _most(claim: str, took: Sequence[float], limit: float) -> BenchVerdict:
    return BenchVerdict(claim=claim, measured=median(took), must_be="at most", limit=limit)


def _commands(plain: Mapping[str, Sequence[float]], calls: Mapping[str, Sequence[float]]) -> Grid:
    rows = [(name, f"{median(took):.2f}", f"{max(took):.2f}") for name, took in plain.items()]
    rows += [(f"{name}, to its first call", f"{median(took):.2f}", f"{max(took):.2f}") for name, took in calls.items()]
    return Grid(title="Commands", columns=("what", "median s", "slowest s"), rows=tuple(rows))


def _worker(starts: Sequence[WorkerStart], torch_alone: Sequence[float]) -> Grid:
    parts = {
        "Python and our modules, to the first log line": [one.first_log for one in starts],
        "torch imported, in the inference process, beside the worker's own imports": [one.imports for one in starts],
        "weights loaded": [one.weights for one in starts],
        "warm-up": [one.warm_up for one in starts],
        "from the start of the process to ready": [one.ready for one in starts],
        'for comparison: python -c "import torch"': list(torch_alone),
    }
    rows = tuple((name, f"{median(took):.2f}") for name, took in parts.items())
    return Grid(title="`run`, tiny model on the CPU", columns=("stage", "median s"), rows=rows)


def main(repeats: Repeats = 3, as_json: JsonFlag = False, write: Write = None) -> None:
    """Measure from the start of a process to what it was started for, stage by stage."""
    startup(repeats, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)
