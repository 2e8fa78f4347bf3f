"""Compare the network's tokens with NeMo's on the worker's own speech, while an image is built.

    judge.py MODEL.nemo REPORT.json

Each engine runs in a process of its own, one after the other, so that the build needs the memory of one of them. The
report holds the tokens and what each engine took. Exit 1 where the tokens differ, and where the network does not know
the model: such an image needs NeMo to serve it, and is built with `--build-arg NEMO=1`. Without a model there is
nothing to compare.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SAMPLE_RATE_HZ = 16_000

Judged = Callable[[str, Path], dict[str, Any]]
"""Runs an engine, `network` or `nemo`, on a model; see `judged` and `run`."""


def main(model: Path, report: Path, judged: Judged) -> int:
    """Write the report and return the exit status."""
    if not model.exists():
        report.write_text(json.dumps({"compared": False, "reason": "the image has no model"}))
        return 0
    network = judged("network", model)
    if "unsupported" in network:
        reason = f"the network does not know the model: {network['unsupported']}"
        report.write_text(json.dumps({"compared": False, "reason": reason}))
        if os.environ.get("NEMO") == "1":
            return 0
        print(f"{reason}; build with --build-arg NEMO=1")
        return 1
    nemo = judged("nemo", model)
    are_equal = network["tokens"] == nemo["tokens"]
    count = sum(map(len, network["tokens"]))
    report.write_text(json.dumps({"compared": True, "equal": are_equal, "network": network, "nemo": nemo}))
    for name, run in (("network", network), ("NeMo", nemo)):
        print(f"{name}: {run['seconds']:.1f} s, at most {run['peak_mib']:,} MiB")
    if not are_equal:
        print(f"tokens differ:\n  network {network['tokens']}\n  NeMo    {nemo['tokens']}")
        return 1
    print(f"{count} tokens of the worker's speech are equal")
    return 0


def judged(engine: str, model: Path) -> dict[str, Any]:
    """Run an engine in a process of its own. Raises CalledProcessError where it fails."""
    done = subprocess.run([sys.executable, __file__, "--engine", engine, model], stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run(engine: str, model: Path) -> dict[str, Any]:
    """Return an engine's tokens of each window, its seconds and its peak memory."""
    started = time.monotonic()
    windows = speech()
    try:
        tokens = {"network": by_network, "nemo": by_nemo}[engine](model, windows)
    except UnsupportedByNetwork as error:
        return {"unsupported": str(error)}
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"tokens": tokens, "seconds": time.monotonic() - started, "peak_mib": peak_mib}


class UnsupportedByNetwork(Exception):
    """The network does not know the model."""


def speech() -> list[Any]:
    """Return the worker's speech whole and in halves: 16 kHz, int16."""
    import imageio_ffmpeg  # noqa: PLC0415  # the process that starts the others needs nothing
    import numpy as np  # noqa: PLC0415

    from worker.app.sample import SPEECH  # noqa: PLC0415

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(SPEECH)]
    decoded = subprocess.run(
        [*command, "-f", "s16le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1", "-"], stdout=subprocess.PIPE, check=True
    )
    whole = np.frombuffer(decoded.stdout, np.int16).copy()
    middle = len(whole) // 2
    return [whole, whole[:middle], whole[middle:]]


def by_network(model: Path, windows: Sequence[Any]) -> list[list[str]]:
    """Return the network's tokens. Raises `UnsupportedByNetwork`."""
    import torch  # noqa: PLC0415

    from worker.adapters.parakeet.loading.model_files import open_model_files  # noqa: PLC0415
    from worker.adapters.parakeet.network.config import UnsupportedModel  # noqa: PLC0415
    from worker.adapters.parakeet.network.transcriber import Transcriber  # noqa: PLC0415

    try:
        files = open_model_files(model)
    except UnsupportedModel as error:
        raise UnsupportedByNetwork(str(error)) from error
    transcriber = Transcriber(files, torch.device("cpu"), torch.float32)
    return [[token.piece for token in tokens] for tokens in transcriber.tokens(windows)]


def by_nemo(model: Path, windows: Sequence[Any]) -> list[list[str]]:
    """Return the tokens of NeMo's own `transcribe`, one window at a time: its batches mix up their windows."""
    import torch  # noqa: PLC0415

    from worker.adapters.parakeet.reference import restore  # noqa: PLC0415

    network = restore(model, torch.device("cpu"), torch.float32)
    waves = [window.astype("float32") / 32_768 for window in windows]
    heard = network.transcribe(waves, batch_size=1, return_hypotheses=True, verbose=False)
    return [network.tokenizer.ids_to_tokens([int(label) for label in one.y_sequence]) for one in heard]


if __name__ == "__main__":
    if sys.argv[1] == "--engine":
        print(json.dumps(run(sys.argv[2], Path(sys.argv[3]))))
    else:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), judged))
