"""Confidences against the share of right words, before and after calibration: `python -m bench.calibration`.

Transcribes files of the speech bank clean, with noise and as the pipeline's MP3, and compares each word's confidence,
that of its weakest piece and the calibrated one, with whether the word is right. Exit 1 unless the calibrated error is
at most half of the other over all conditions, and in none of them larger. `--write` also draws docs/calibration.svg.

With `--fit MANIFEST` it first fits the calibration of the model on other speech, in the same conditions, and writes
calibration.json beside the model: lines of `audio_filepath` and `text`, as `accuracy` reads them. An hour or two of
speech like yours is enough. The tiny model's comes from `examples/tiny_model/samples.py calibration FOLDER`.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from bench.machine import this_machine
from bench.options import JsonFlag, WeightsOption, Write
from bench.outcome import deliver, telling
from bench.reliability import Judged, calibration_error, drawn, fitted, judged_words
from bench.report import BenchReport, BenchVerdict, Grid
from bench.weights import TINY_WEIGHTS
from tests.support.audio.conditions import NOISE_DB
from tests.support.audio.speech_bank import build_long_file, decode, transcode, write_wave
from worker.adapters.parakeet.loading.facts import read_calibration, weights_sum, write_calibration
from worker.adapters.parakeet.loading.model_files import open_model_files
from worker.adapters.parakeet.loading.model_path import model_path
from worker.adapters.parakeet.network.transcriber import Transcriber
from worker.adapters.parakeet.network.words import Calibration
from worker.commands.accuracy import read_manifest
from worker.commands.console import fail
from worker.core.transcript.planning import ChunkCutter
from worker.embedded.samples import tiny_model
from worker.ports import Pcm

CLEAN, MP3 = "clean", "8 kHz MP3"
ALL = "all"
CHUNK_SECONDS = 600
WINDOWS_AT_ONCE = 16
SPEECH_LEVEL = 200  # of 32,768: about -44 dB; below are pauses
MOST_ERROR_LEFT = 0.5


def main(
    seeds: Annotated[list[int] | None, typer.Argument(help="of the speech bank's files")] = None,
    minutes: Annotated[float, typer.Option(help="of each file")] = 10,
    fit: Annotated[Path | None, typer.Option(help="manifest of speech to fit the calibration on")] = None,
    weights: WeightsOption = TINY_WEIGHTS,
    write: Write = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Fit if asked to, then measure on the speech bank."""
    path = tiny_model() if weights == TINY_WEIGHTS else model_path(weights)
    torch.set_num_threads(1)
    model = Transcriber(open_model_files(path), torch.device("cpu"), torch.float32)
    checksum = weights_sum(path)
    with telling() as say:
        if fit:
            learnt: list[Judged] = []
            for entry in read_manifest(fit):
                say(f"fitting on {entry.audio.name}")
                learnt += chain.from_iterable(_judged(model, decode(entry.audio), entry.text).values())
            write_calibration(path, checksum, fitted(learnt), f"{len(learnt)} windows of {fit.name}")
        calibration = read_calibration(path, checksum)
        if calibration is None:
            fail(f"{path} has no calibration: --fit makes one")
        held_out: dict[str, list[Judged]] = {}
        for seed in seeds or [1, 2]:
            say(f"file {seed}")
            for condition, windows in _bank_file(model, seed, minutes * 60).items():
                held_out.setdefault(condition, []).extend(windows)
    report = _report(held_out, calibration, seeds or [1, 2], minutes)
    if write:
        everything = list(chain.from_iterable(held_out.values()))
        (write.parent / "calibration.svg").write_text(drawn(everything, calibration))
    deliver(report, as_json=as_json, write=write)


def _bank_file(model: Transcriber, seed: int, seconds: float) -> Mapping[str, list[Judged]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.wav")
        reference = build_long_file(seed, seconds, path)
        return _judged(model, decode(path), reference.text)


def _judged(model: Transcriber, samples: Pcm, text: str) -> dict[str, list[Judged]]:
    """Return the windows of the file in every condition, each word with its pieces and whether it is right."""
    found = {}
    for condition, audio in _conditions(samples):
        cutter = ChunkCutter(CHUNK_SECONDS)
        chunks = (*cutter.push(audio), *cutter.finish())
        windows = [chunk.samples_of(span) for chunk in chunks for span in chunk.windows]
        tokens = chain.from_iterable(
            model.tokens(windows[first : first + WINDOWS_AT_ONCE]) for first in range(0, len(windows), WINDOWS_AT_ONCE)
        )
        found[condition] = judged_words(list(tokens), text)
    return found


def _conditions(samples: Pcm) -> Iterator[tuple[str, Pcm]]:
    yield CLEAN, samples
    for decibels in NOISE_DB:
        yield f"noise {decibels} dB", _noisy(samples, decibels)
    with tempfile.TemporaryDirectory() as folder:
        wave, mp3 = Path(folder, "a.wav"), Path(folder, "a.mp3")
        write_wave(wave, samples)
        transcode(wave, mp3)
        yield MP3, decode(mp3)


def _noisy(samples: Pcm, decibels: float) -> Pcm:
    """Add white noise that is `decibels` quieter than the speech, which is what is loud."""
    loud: NDArray[np.float64] = samples[np.abs(samples) > SPEECH_LEVEL].astype(np.float64)
    scale = np.sqrt(np.mean(np.square(loud)) / 10 ** (decibels / 10))
    noise = np.random.default_rng(len(samples)).standard_normal(len(samples)) * scale
    mixed: Pcm = np.clip(samples + noise, -32768, 32767).astype(np.int16)
    return mixed


def _report(
    held_out: Mapping[str, Sequence[Judged]], calibration: Calibration, seeds: Sequence[int], minutes: float
) -> BenchReport:
    groups = {**held_out, ALL: list(chain.from_iterable(held_out.values()))}
    errors = {
        name: (calibration_error(windows, None), calibration_error(windows, calibration))
        for name, windows in groups.items()
    }
    rows = tuple(
        (
            name,
            str(sum(len(window) for window in groups[name])),
            f"{100 * np.mean([word.is_right for window in groups[name] for word in window]):.1f}",
            f"{before:.4f}",
            f"{after:.4f}",
            f"{after / before:.2f}",
        )
        for name, (before, after) in errors.items()
    )
    columns = ("condition", "words", "right, %", "error before", "calibrated", "of before")
    verdicts = [
        BenchVerdict(
            claim=f"{name}: calibrated error over the error before",
            measured=after / before,
            must_be="at most",
            limit=MOST_ERROR_LEFT if name == ALL else 1.0,
        )
        for name, (before, after) in errors.items()
    ]
    numbers = " ".join(map(str, seeds))
    return BenchReport(
        key="calibration",
        title="Confidences",
        command=f"python -m bench.calibration {numbers} --minutes {minutes:g}",
        machine=this_machine(),
        grids=(
            Grid(title="Expected calibration error, 15 bins, held-out voices and texts", columns=columns, rows=rows),
        ),
        figures={name: {"before": before, "after": after} for name, (before, after) in errors.items()},
        verdicts=verdicts,
        notes=(
            f"The tiny model, files of {minutes:g} minutes in five conditions. Before: that of a word's weakest piece.",
            "The reliability curve is [calibration.svg](calibration.svg).",
        ),
    )


if __name__ == "__main__":
    typer.run(main)
