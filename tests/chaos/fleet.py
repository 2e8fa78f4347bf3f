"""Real worker processes with the null engine, to be killed, stopped and replaced."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from tests.chaos.logbook import Book, Log
from tests.support.wait import eventually

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
LOOK_SECONDS = 0.05
CHAOS = {
    "CHUNK_DURATION_MINUTES": "1",
    "CLAIM_TTL_SECONDS": "5",
    "HEALTH_PORT": "0",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "debug",
}


class Member:
    """One worker process."""

    def __init__(self, number: int, log: Path, environment: Mapping[str, str], book: Book) -> None:
        self.number = number
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"], env={**os.environ, **environment}, stderr=file, cwd=ROOT
            )
        self.log = Log(log, book)
        self.stopping = False

    @property
    def is_ready(self) -> bool:
        """It pulls jobs."""
        return self.log.events["worker.ready"] > 0

    @property
    def holds_checkpoint(self) -> bool:
        """It works on a job of which some is done and kept."""
        return not self.stopping and any(held.has_checkpoint for held in self.log.held.values())

    def kill(self) -> bool:
        """Kill with SIGKILL after a last look; return True if the process held a job with a checkpoint."""
        self.process.send_signal(signal.SIGSTOP)
        self.log.read()
        held = self.holds_checkpoint
        self.process.kill()
        self.process.wait()
        self.log.read()
        self.log.interrupt("kill -9")
        return held

    async def stop(self) -> float:
        """SIGTERM; how long it took to exit. Fails after 20 s, and where the status is not 0."""
        self.stopping, began = True, time.monotonic()
        self.process.terminate()
        await eventually(self._has_ended, 20)
        took = time.monotonic() - began
        assert self.process.returncode == 0, f"{self.log.path}: exit status {self.process.returncode}"
        self.log.read()
        self.log.interrupt("SIGTERM")
        return took

    async def _has_ended(self) -> bool:
        return self.process.poll() is not None


class Fleet:
    """Members that share an environment and a book; made by `fleet`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.book = Book()
        self.members: list[Member] = []
        self.starts = 0
        self._folder, self._environment = folder, environment
        self.logs: list[Path] = []

    def start(self, **environment: str) -> Member:
        """Another worker, still starting."""
        self.starts += 1
        log = self._folder / f"worker-{self.starts:03d}.log"
        self.logs.append(log)
        member = Member(self.starts, log, {**CHAOS, **self._environment, **environment}, self.book)
        self.members.append(member)
        return member

    async def ready(self, member: Member) -> None:
        """Return once it pulls; fails when it ends before."""

        async def is_ready() -> bool:
            assert member.process.poll() is None, member.log.path.read_text()[-4000:]
            return member.is_ready

        await eventually(is_ready, START_SECONDS)

    def kill(self, member: Member) -> bool:
        """See `Member.kill`; it is no longer of the fleet."""
        self.members.remove(member)
        return member.kill()

    async def stop(self, member: Member) -> float:
        """See `Member.stop`; it is no longer of the fleet."""
        took = await member.stop()
        self.members.remove(member)
        return took

    async def watch(self) -> None:
        """Read all logs in an endless loop. A worker that ends by itself ends the campaign."""
        while True:
            for member in self.members:
                member.log.read()
                ended = member.process.poll() is not None and not member.stopping
                assert not ended, f"{member.log.path}: it ended by itself with status {member.process.returncode}"
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def fleet(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Fleet]:
    """Run a fleet and watch it; every process is gone on exit."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    opened = Fleet(folder, environment)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(opened.watch(), name="fleet")
        try:
            yield opened
        finally:
            watching.cancel()
            for member in opened.members:
                member.process.kill()
                member.process.wait()


def descendants() -> dict[int, str]:
    """Command lines of our descendants that run, by process id; for a process that has called `adopt_orphans`."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
    return found


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none can hide. Linux only."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - not everywhere

        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)
