"""Ours, NeMo and onnx-asr on the same weights and speech, in turns in one run, on the CPU.

    python -m bench.peers [--weights tiny|random-0.6b|FILE.nemo] [--threads 1 2] [--minutes 3] [--turns 5]

onnx-asr gets the weights as NeMo exports them, one window at a time, which is its best; NeMo its best of three batch
sizes. All have the same number of threads. Needs the extra `nemo` and `pip install onnx-asr onnxruntime`. The figures
are medians of the turns, in times real time and in CPU seconds, which a busy machine changes less; the first turn of
each is not counted.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.parakeet.nemo import Nemo
from bench.speech import some_speech
from bench.weights import model_of
from worker.adapters.parakeet.loading.model_files import open_model_files
from worker.adapters.parakeet.network.transcriber import Transcriber
from worker.core.transcript.planning import ChunkCutter
from worker.ports import SAMPLE_RATE_HZ, Pcm

_NEMO_BATCHES = (4, 8, 16)
_FULL_SCALE = 32_768
_SEED = 5

Transcribe = Callable[[Sequence[Pcm]], list[str]]
"""Returns the text of each window."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One engine's turns."""

    seconds: list[float]
    cpu_seconds: list[float]
    texts: list[str]


def main(weights: str, threads: int, minutes: float, turns: int) -> Mapping[str, float]:
    """Measure all engines with that many threads, print the figures and return the speeds, in times real time."""
    with tempfile.TemporaryDirectory() as folder:
        speech = some_speech(minutes * 60, _SEED)
        windows = _windows(speech)
        model = Path(model_of(weights, Path(folder), print))
        engines = _engines(model, Path(folder), threads)
        measured = {name: Measured(seconds=[], cpu_seconds=[], texts=[]) for name in engines}
        for turn in range(turns + 1):
            for name, transcribe in engines.items():
                started, busy = time.perf_counter(), time.process_time()
                texts = transcribe(windows)
                if turn:
                    measured[name].seconds.append(time.perf_counter() - started)
                    measured[name].cpu_seconds.append(time.process_time() - busy)
                measured[name].texts[:] = texts
    return _report(weights, threads, sum(map(len, windows)) / SAMPLE_RATE_HZ, measured)


def _engines(model: Path, folder: Path, threads: int) -> dict[str, Transcribe]:
    from nemo.collections.asr.models import ASRModel  # noqa: PLC0415  # 10 s

    nemo_model = ASRModel.restore_from(str(model), map_location="cpu")
    onnx = _onnx(nemo_model, model, folder, threads)
    transcriber = Transcriber(
        open_model_files(model), torch.device("cpu"), torch.float32, batch_windows=8, threads=threads
    )
    nemo = Nemo(nemo_model)
    nemo.with_times(False)

    def ours(windows: Sequence[Pcm]) -> list[str]:
        torch.set_num_threads(1)  # windows are encoded side by side
        return [" ".join(word.text for word in words) for words in transcriber(windows)]

    def by_nemo(batch: int) -> Transcribe:
        def transcribe(windows: Sequence[Pcm]) -> list[str]:
            torch.set_num_threads(threads)
            return ["".join(pieces).replace("▁", " ").strip() for pieces in nemo.windows(windows, batch)]

        return transcribe

    batches = {f"NeMo, batch {batch}": by_nemo(batch) for batch in _NEMO_BATCHES}
    return {"ours": ours, "onnx-asr": onnx, **batches}


def _onnx(nemo_model: Any, model: Path, folder: Path, threads: int) -> Transcribe:
    """Export the weights as onnx-asr reads them, and return its way."""
    import onnxruntime  # noqa: PLC0415
    from onnx_asr import load_model  # noqa: PLC0415

    config = open_model_files(model).config
    with torch.inference_mode():
        nemo_model.export(str(folder / "model.onnx"))
    pieces = [*open_model_files(model).pieces, "<blk>"]
    (folder / "vocab.txt").write_text("".join(f"{piece} {number}\n" for number, piece in enumerate(pieces)))
    sizes = {"features_size": config.n_mels, "subsampling_factor": config.subsampling_factor}
    (folder / "config.json").write_text(json.dumps({"model_type": "nemo-conformer-tdt", **sizes}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    recogniser = load_model("nemo-conformer-tdt", folder, sess_options=options, providers=["CPUExecutionProvider"])

    def transcribe(windows: Sequence[Pcm]) -> list[str]:
        return [recogniser.recognize(window.astype(np.float32) / np.float32(_FULL_SCALE)) for window in windows]

    return transcribe


def _windows(speech: Pcm) -> list[Pcm]:
    cutter = ChunkCutter(chunk_seconds=len(speech) / SAMPLE_RATE_HZ + 1)
    chunks = [*cutter.push(speech), *cutter.finish()]
    return [chunk.samples_of(span) for chunk in chunks for span in chunk.windows]


def _report(weights: str, threads: int, seconds: float, measured: Mapping[str, Measured]) -> Mapping[str, float]:
    speeds = {name: seconds / median(one.seconds) for name, one in measured.items()}
    cpu = {name: median(one.cpu_seconds) for name, one in measured.items()}
    same = {name: one.texts == measured["ours"].texts for name, one in measured.items()}
    print(f"{weights}, {threads} thread(s), {seconds:.0f} s of speech, medians:")
    for name, speed in speeds.items():
        texts = "same texts as ours" if same[name] else "other texts than ours"
        print(f"  {name:16} {speed:8.1f} times real time, {cpu[name]:7.2f} CPU seconds, {texts}")
    for rival in ("onnx-asr", max((name for name in speeds if name.startswith("NeMo")), key=lambda name: speeds[name])):
        by_time, by_cpu = speeds["ours"] / speeds[rival], cpu[rival] / cpu["ours"]
        print(f"  ours / {rival}: {by_time:.2f} by time, {by_cpu:.2f} by CPU seconds")
    return speeds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", default="tiny", help="tiny, random-0.6b or a .nemo file")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    if missing := [name for name in ("onnx_asr", "onnxruntime", "nemo") if find_spec(name) is None]:
        sys.exit(f"needs {', '.join(missing)}: pip install onnx-asr onnxruntime, and the extra nemo")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    best: dict[str, float] = {}
    for count in arguments.threads:
        found = main(arguments.weights, count, arguments.minutes, arguments.turns)
        for engine, speed in found.items():
            best[engine] = max(speed, best.get(engine, 0.0))
    print("best of all: " + ", ".join(f"{engine} {speed:.1f}x" for engine, speed in best.items()))
