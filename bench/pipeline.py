"""Files through the whole worker, against its inference alone on the same windows."""

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bench.cases import SECONDS_PER_HOUR, Case, make_cases
from bench.options import DeviceOption, JsonFlag, Repeats, WeightsOption, Write
from bench.outcome import deliver, telling
from bench.pipeline_report import CaseResult, PipelineWish, report
from bench.speech import write_audio
from bench.weights import model_of
from bench.workers import Worker, crew, do_jobs, processor_seconds, upload, watching_memory
from schemas.speech import WindowSpan
from worker.app.recogniser import make_engine
from worker.commands.console import load_settings
from worker.embedded.local_cloud import local_cloud
from worker.ports import SAMPLE_RATE_HZ, WindowRecogniser
from worker.settings import ParakeetDevice

WINDOWS_UNDER_WAY = 64
"""Offered to the engine alone at once: more than it takes in two batches, fewer than would fill the memory."""
WARM_UP_SECONDS = 660.0
SLOWEST = 10.0
"""Times real time; what is slower is taken for stuck."""
LEAST_PATIENCE_SECONDS = 300.0


def pipeline(wish: PipelineWish, *, as_json: bool, write: Path | None) -> None:
    """Measure and report. Exit 1 unless the promises were kept."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, telling() as say:
        folder = Path(name)
        model = model_of(wish.weights, folder, say)
        cases = list(make_cases(wish.hours, wish.short_files, folder, say))
        results = _measure(wish, model, cases, folder, say)
    deliver(report(wish, results), as_json=as_json, write=write)


def _measure(
    wish: PipelineWish, model: str, cases: Sequence[Case], folder: Path, say: Callable[[str], None]
) -> Sequence[CaseResult]:
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
    wish: PipelineWish, model: str, worker: Worker, cases: Sequence[Case], say: Callable[[str], None]
) -> Sequence[CaseResult]:
    """Measure the worker and an engine like its own in turns, case by case."""
    results = []
    async with engine_like_the_workers(model, wish.device) as engine:
        for case in cases:
            result = CaseResult(case=case)
            turns = wish.turns(case)
            for number in range(1, turns + 1):
                say(f"{case.name}, turn {number} of {turns}: the worker")
                await asyncio.to_thread(_one_turn, worker, result)
                say(f"{case.name}, turn {number} of {turns}: inference alone")
                result.alone_seconds.append(await hear_alone(engine, case))
            results.append(result)
    return results


def engine_like_the_workers(model: str, device: str) -> AbstractAsyncContextManager[WindowRecogniser]:
    """To be entered."""
    settings = load_settings()
    asked = {"parakeet_model_name": model, "parakeet_device": ParakeetDevice(device)}
    return make_engine(settings.engine.model_copy(update=asked), settings.cloud)


def _one_turn(worker: Worker, result: CaseResult) -> None:
    patience = max(LEAST_PATIENCE_SECONDS, result.case.hours * SECONDS_PER_HOUR / SLOWEST)
    before = processor_seconds(worker.pid)
    with watching_memory(worker.pid, worker.notes) as held:
        result.done.append(do_jobs([file.name for file in result.case.files], patience))
    result.processor_seconds.append(processor_seconds(worker.pid) - before)
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


# when the first window reached the engine


def _find_first_windows(results: Sequence[CaseResult], traces: Path) -> None:
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


def main(
    weights: WeightsOption = "tiny",
    device: DeviceOption = "auto",
    hours: Annotated[list[float] | None, typer.Option(help="of a file; default: 0.5, 1, 2, 4 and 12", min=0.01)] = None,
    short_files: Annotated[int, typer.Option(help="of 1 to 10 min, sent at once, and as many clips", min=0)] = 50,
    repeats: Repeats = 3,
    as_json: JsonFlag = False,
    write: Write = None,
) -> None:
    """Compare files through the whole worker with its inference alone: time, memory, how busy the engine is."""
    lengths = hours or [0.5, 1.0, 2.0, 4.0, 12.0]
    wish = PipelineWish(weights=weights, device=device, hours=lengths, short_files=short_files, repeats=repeats)
    pipeline(wish, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)
