"""State of the fleet from the logs of its processes: current holders of jobs, and the history of every chunk."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTLED = frozenset({"ack", "dead_letter"})


@dataclass(kw_only=True)
class Held:
    """One delivery in the hands of a worker."""

    message_id: str
    job_id: str | None = None
    started: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    over: bool = False
    """Concluded; what is left is to publish and to ack."""

    @property
    def in_flight(self) -> int:
        """Chunks whose work would be lost with the worker."""
        return 0 if self.over else len(self.started - self.finished)

    @property
    def has_checkpoint(self) -> bool:
        """Some of the job is done and kept, and the job goes on."""
        return bool(self.finished) and not self.over


@dataclass(kw_only=True)
class Book:
    """Totals over all workers."""

    received: Counter[str] = field(default_factory=Counter)
    """Deliveries by message id."""
    attempts: set[int] = field(default_factory=set)
    """Every delivery attempt that Pub/Sub counted."""
    settled: dict[str, str] = field(default_factory=dict)
    """Message id -> the outcome that took it off the subscription."""
    started: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    done: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    skipped: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Job id -> chunk -> number of times it was begun, finished, and taken from its checkpoint."""
    interrupted: Counter[str] = field(default_factory=Counter)
    """Chunks that were in flight when something stopped their job, by what it was."""
    events: Counter[str] = field(default_factory=Counter)

    @property
    def redone(self) -> int:
        """Chunks begun again, each time counted."""
        return sum(times - 1 for chunks in self.started.values() for times in chunks.values())


class Log:
    """The log of one worker process, read as it grows."""

    def __init__(self, path: Path, book: Book) -> None:
        self.path = path
        self.held: dict[str, Held] = {}
        self.events: Counter[str] = Counter()
        self.times: dict[str, str] = {}
        """When each message was received last, as the log has it."""
        self.most_in_flight = 0
        """Known chunks of one job."""
        self._book, self._offset, self._rest = book, 0, b""

    @property
    def in_flight(self) -> int:
        """Chunks that would have to be done again if the worker died now."""
        return sum(held.in_flight for held in self.held.values())

    def read(self) -> None:
        """Take in what was written since the last time."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            *lines, self._rest = (self._rest + file.read()).split(b"\n")
            self._offset = file.tell()
        for line in lines:
            if line.startswith(b"{"):
                self._take(json.loads(line))

    def interrupt(self, cause: str) -> None:
        """Note that the process is gone: it holds nothing any more."""
        self._book.interrupted[cause] += self.in_flight
        self.held.clear()

    def _take(self, event: Mapping[str, Any]) -> None:
        name, message_id = event["event"], event.get("message_id")
        self.events[name] += 1
        self._book.events[name] += 1
        if name == "delivery.received":
            self.held[event["message_id"]] = Held(message_id=event["message_id"])
            self._book.received[event["message_id"]] += 1
            self._book.attempts.add(event["attempt"])
            self.times[event["message_id"]] = event["time"]
        elif message_id in self.held:
            held = self.held[message_id]
            held.job_id = event.get("job_id", held.job_id)
            self._follow(held, name, event)

    def _follow(self, held: Held, name: str, event: Mapping[str, Any]) -> None:
        match name:
            case "chunk.started" | "chunk.done" | "chunk.resumed":
                self._count(held, name, event["chunk"])
            case "job.done" | "job.failed" | "job.concluded_before":
                held.over = True
            case "delivery.settled":
                self._settle(self.held.pop(held.message_id), event["outcome"])

    def _count(self, held: Held, name: str, chunk: int) -> None:
        book = {"chunk.started": self._book.started, "chunk.done": self._book.done, "chunk.resumed": self._book.skipped}
        book[name][str(held.job_id)][chunk] += 1
        (held.started if name == "chunk.started" else held.finished).add(chunk)
        self.most_in_flight = max(self.most_in_flight, held.in_flight)

    def _settle(self, held: Held, outcome: str) -> None:
        if outcome in SETTLED:
            self._book.settled[held.message_id] = outcome
        elif held.in_flight:
            self._book.interrupted[f"outcome {outcome}"] += held.in_flight
