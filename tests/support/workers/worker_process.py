"""A worker process: `python -m worker run` with the tiny model, its log, its family of processes, its end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.support.wait import wait_until
from worker.embedded.samples import tiny_model

START_SECONDS = 300.0  # importing the model's library takes 10 s of a free processor, minutes of a busy one
RUN = (sys.executable, "-m", "worker", "run")
TINY = {
    "PARAKEET_MODEL_NAME": str(tiny_model()),
    "PARAKEET_DEVICE": "cpu",
    "LOG_FORMAT": "json",
    "HEALTH_PORT": "0",  # any: several may run
}


class WorkerProcess:
    """Starts on entering, and may still be loading; leaving kills it and everything that it started."""

    def __init__(self, log: Path, environment: Mapping[str, str], command: Sequence[str | Path] = RUN) -> None:
        self._log, self._environment, self._command = log, {**os.environ, **TINY, **environment}, command
        self._started: dict[int, psutil.Process] = {}

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stderr=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self._process.wait()
        wait_until(lambda: not self.family())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every event it has logged."""
        written, _, _ = self._log.read_text("utf-8").rpartition("\n")  # the last line may be half written
        return [json.loads(line) for line in written.splitlines() if line.startswith("{")]

    def logged(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The log events of that name and with these fields."""
        return [event for event in self.log if event["event"] == name and fields.items() <= event.items()]

    def wait_for(self, name: str, count: int = 1, seconds: float = 60.0, **fields: Any) -> None:
        """Wait for the given number of log events; fail if the process ends before."""

        def enough() -> bool:
            assert self._process.poll() is None, f"the worker ended early:\n{self._log.read_text('utf-8')[-4000:]}"
            return len(self.logged(name, **fields)) >= count

        wait_until(enough, seconds)

    def wait_ready(self) -> None:
        """Return once it pulls jobs."""
        self.wait_for("worker.ready", seconds=START_SECONDS)

    def family(self) -> Sequence[psutil.Process]:
        """The worker and its descendants: those that live now, and those seen by earlier calls that still do."""
        try:
            worker = psutil.Process(self.pid)
            found = [worker, *worker.children(recursive=True)]
        except psutil.NoSuchProcess:
            found = []
        self._started.update({member.pid: member for member in found if member.pid not in self._started})
        return [member for member in self._started.values() if _lives(member)]

    def inference(self) -> psutil.Process:
        """The process that holds the model."""
        (found,) = (member for member in self.family() if "parakeet.child" in " ".join(member.cmdline()))
        return found

    def send(self, number: signal.Signals) -> None:
        """Send the worker alone a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit status; fails when it takes longer."""
        return self._process.wait(seconds)


def _lives(process: psutil.Process) -> bool:
    """Return True for a zombie, which holds no resources any more."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
