"""Progress of the demo, read from the worker's log: what is waited for, and a bar for each job."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from schemas.text import plain
from worker.commands.console import out

LOOK_SECONDS = 0.2
BAR_CHARACTERS = 24


class DemoBars:
    """One row for the model and one for each job, kept up to date by a thread inside the block.

    `jobs` are the names of the files by job id; `log` is the JSON log of the worker, which may still be empty.
    """

    def __init__(self, jobs: Mapping[str, str], log: Path) -> None:
        name, says = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[says]}", markup=False)
        self._bars = Progress(name, BarColumn(BAR_CHARACTERS), TimeElapsedColumn(), says, console=out())
        self._log, self._position = log, 0
        self._model = self._bars.add_task("the model", total=None, says="loading")
        self._rows = {
            job_id: self._bars.add_task(plain(name, 30), total=None, says="waits for the model", start=False)
            for job_id, name in jobs.items()
        }
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="demo-bars", daemon=True)

    def __enter__(self) -> Self:
        self._bars.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._bars.stop()

    def _watch(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._ended.wait(LOOK_SECONDS)
            for event in self._news():
                self._take(event)

    def _news(self) -> Iterator[Mapping[str, Any]]:
        """Yield the log events since the last call; others write to the file too, and its last line may be half."""
        with self._log.open("rb") as file:
            file.seek(self._position)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                return
            self._position += len(line)
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event

    def _take(self, event: Mapping[str, Any]) -> None:
        name, row = event.get("event"), self._rows.get(str(event.get("job_id")))
        if name == "worker.ready":
            self._finish(self._model, "loaded")
        elif row is not None:
            self._follow(row, str(name), event)

    def _follow(self, row: TaskID, name: str, event: Mapping[str, Any]) -> None:
        match name:
            case "job.received":
                self._bars.start_task(row)
                self._bars.update(row, says="reads the audio")
            case "job.routed":
                self._bars.update(row, total=event.get("chunks"), completed=0, says="transcribes")
            case "chunk.done" | "chunk.resumed":
                self._bars.update(row, advance=1)
            case "job.done":
                self._finish(row, f"completed: {event['audio_seconds']:.0f} s of audio, {event['speed']:.0f}x")
            case "job.failed":
                self._bars.update(row, says=f"failed: {plain(event.get('code'))}")
                self._bars.stop_task(row)

    def _finish(self, row: TaskID, says: str) -> None:
        self._bars.update(row, total=1, completed=1, says=says)
        self._bars.stop_task(row)
