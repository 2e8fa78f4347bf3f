"""Two jobs at once against one of their joint length: `python -m bench.two_jobs [MINUTES]`.

One worker process, warm, with the tiny model or another; it does one file of twice that length and two files of that
length in turns, so that whatever else the machine does hits both. Exit 1 when two at once take more than 1.15 times as
long, by the median of the turns. `--model null:300x` leaves the engine to a timer: then only the rest is measured.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.workers import crew, do_jobs, upload
from tests.support.audio.long_audio import speech_file
from worker.embedded.local_cloud import local_cloud
from worker.embedded.samples import tiny_model

MOST_RATIO = 1.15
MOST_SECONDS = 3600


def main() -> int:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.two_jobs")
    parser.add_argument("minutes", type=float, nargs="?", default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=str(tiny_model()))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        turns = measure(asked.minutes, asked.rounds, asked.model, Path(folder))
    ratio = statistics.median(two / one for one, two in turns)
    table = Table("one job, s", "two at once, s", "ratio", title=f"{2 * asked.minutes:g} minutes of audio")
    for one, two in turns:
        table.add_row(f"{one:.2f}", f"{two:.2f}", f"{two / one:.3f}")
    Console().print(table)
    print(f"median {ratio:.3f} (at most {MOST_RATIO})")
    return int(ratio > MOST_RATIO)


def measure(minutes: float, rounds: int, model: str, folder: Path) -> Sequence[tuple[float, float]]:
    """Return the seconds of one job and of two at once, for each round."""
    half = speech_file(minutes * 60, folder / "half.mp3")
    joint = speech_file(2 * minutes * 60, folder / "joint.mp3")
    with (
        local_cloud(folder / "gcs") as cloud,
        crew(folder, {**cloud.environment, "PARAKEET_MODEL_NAME": model}) as workers,
    ):
        workers.start().wait_for("worker.ready")
        upload([half, joint])
        _seconds_of(half)
        return [(_seconds_of(joint), _seconds_of(half, half)) for _ in range(rounds)]


def _seconds_of(*files: Path) -> float:
    return do_jobs([file.name for file in files], MOST_SECONDS).seconds


if __name__ == "__main__":
    sys.exit(main())
