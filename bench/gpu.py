"""Measures the engine on a bare machine: `python -m bench.gpu [--model FILE.nemo] [--write FILE.json]`.

Needs Python, torch with CUDA, numpy, sentencepiece, PyYAML and this checkout; no network and no other package. Without
a model it writes one with random weights in the shape of parakeet-tdt-0.6b-v2. It ends within four minutes: parts that
there is no time for are left out and named. NeMo and transformers are compared where they are installed. Without a GPU
the same code runs on the CPU, with few layers and windows, which says nothing about a GPU.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench.bare_machine import parts
from bench.bare_machine.random_model import PIECES, write_model
from bench.bare_machine.rivals import is_installed
from bench.bare_machine.speed import windows_of_speech

MOST_SECONDS = 215.0
"""A part that has been begun may take some seconds more: in all they are less than four minutes."""

_CPU_LAYERS, _LAYERS = 2, 24
_LEAST_SECONDS_FOR_A_PART = 8.0
_MOST_SECONDS_OF_A_PROCESS = 60.0
_NO_GPU = "No GPU: the same code on this CPU, with few layers and windows. These figures say nothing about a GPU."


def main() -> None:
    """Run all parts, or the one that this process was started for."""
    options = _options()
    if options.part:
        found = parts.BY_ITSELF[options.part](options.model, options.precision)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        results = GpuFigures(write=options.write, until=time.monotonic() + MOST_SECONDS)
        _measure(results, options.model, Path(folder))
    sys.stdout.write(f"written: {options.write}\n")


@dataclasses.dataclass(kw_only=True)
class GpuFigures:
    """Results so far. Printed and written one by one, so that nothing is lost if the machine goes away."""

    write: Path
    until: float
    found: dict[str, object] = dataclasses.field(default_factory=dict)

    def say(self, line: str) -> None:
        """Print a line."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def add(self, name: str, found: object) -> None:
        """Print and write what a part has found."""
        self.found[name] = found
        self.say(f"{name}: {json.dumps(found, indent=2) if isinstance(found, dict) else found}")
        self.write.write_text(json.dumps(self.found, indent=2) + "\n")

    @property
    def seconds_left(self) -> float:
        """Until no part is begun any more."""
        return self.until - time.monotonic()

    def run(self, name: str, part: Callable[[], object]) -> None:
        """Run a part, unless there is no time for it. A part that fails does not stop the others."""
        if self.seconds_left < _LEAST_SECONDS_FOR_A_PART:
            self.add(name, "left out: no time")
            return
        try:
            self.add(name, part())
        except (RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:  # torch's are RuntimeErrors
            self.add(name, f"failed: {type(error).__name__}: {error}")


def _measure(results: GpuFigures, model: Path | None, folder: Path) -> None:
    device = parts.any_device()
    if device.type == "cpu":
        results.say(_NO_GPU)
    if model is None:
        model = folder / "random.nemo"
        results.say(f"writing a model with random weights and {PIECES} pieces")
        write_model(
            model,
            layers=_CPU_LAYERS if device.type == "cpu" else _LAYERS,
            tuned_on=(windows_of_speech(1), device),
        )
    setup = parts.setup_for(model, device)
    results.run("machine", lambda: parts.machine(setup))
    results.run("first text", lambda: _by_itself("first text", setup, results))
    results.run("ceiling", lambda: parts.ceilings(setup))
    results.run("speed", lambda: _speeds(setup, results))
    results.run("agreement", lambda: parts.agreement(setup))
    if setup.on_gpu:
        for name in ("finding 1", "finding 2"):
            results.run(name, partial(_by_itself, name, setup, results))
    results.run("profile of a pass", lambda: parts.profiles(setup))
    for name in ("nemo", "transformers"):
        if is_installed(name):
            results.run(name, partial(_by_itself, name, setup, results))
        else:
            results.add(name, "not installed")


def _speeds(setup: parts.Setup, results: GpuFigures) -> Mapping[str, object]:
    found: dict[str, object] = {}
    for name, speed in parts.speeds(setup):
        found[name] = speed
        results.say(f"  {name}: {json.dumps(speed)}")
        if results.seconds_left < MOST_SECONDS / 4:
            found["left out"] = "the rest: no time"
            break
    return found


def _by_itself(name: str, setup: parts.Setup, results: GpuFigures) -> object:
    """Run a part in a process of its own, which may die: that is then what was found. It gets the GPU's memory."""
    parts.release(setup.device)
    command = [sys.executable, "-m", "bench.gpu", "--part", name]
    command += ["--model", str(setup.model), "--precision", setup.precisions[0]]
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=min(results.seconds_left, _MOST_SECONDS_OF_A_PROCESS),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "no answer in the time that was left"
    if ended.returncode:
        return f"the process died with {ended.returncode}: {ended.stderr.strip().splitlines()[-1:]}"
    found: object = json.loads(ended.stdout.splitlines()[-1])
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--model", type=Path, help="a .nemo file; default: random weights in the shape of 0.6B v2")
    parser.add_argument("--write", type=Path, default=Path("gpu.json"), help="where the figures go")
    parser.add_argument("--part", choices=sorted(parts.BY_ITSELF), help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="bfloat16", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
