"""A sick worker harms no job: full and missing disks, refused and failing buckets and topics, on real processes.

`python -m tests.chaos.faults` plays 16 scenes. In 14 of them a worker falls ill, alone or beside a healthy one, 40 good
jobs are published, `/ready` must say 503 and name the cause within a minute, and once the fault is mended all jobs must
be completed within two minutes: no dead letter, no attempt counted. In two more a single job is the culprit.
"""

import argparse
import asyncio
import json
import random
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc
from google.pubsub_v1 import types
from rich.console import Console
from rich.table import Table

from tests.chaos.dice import Dice
from tests.chaos.fleet import Fleet, Member, fleet
from tests.chaos.orders import Order, Recording, job_for, recordings
from tests.chaos.stage import MAX_BACKOFF_SECONDS, MIN_BACKOFF_SECONDS, Scene, Stage, stage
from tests.support.audio.media import MediaKit, riff_wav
from tests.support.jobs.harness import speech
from tests.support.services.http_faults import Fault, faulty_proxy, plainly, refuse
from tests.support.wait import eventually
from worker.embedded.local_cloud import AUDIO_BUCKET, COMPLETION_TOPIC

JOBS = 40
READY_SECONDS, MENDED_SECONDS = 60.0, 120.0
ILL_SECONDS = 15.0
"""Seconds for which the fault lasts after it has been noticed."""
DISK_MIB = 8
FOREIGN_BUCKET = "somebody-elses"


@dataclass(kw_only=True)
class Illness:
    """The faults of one worker's surroundings; set and unset while it runs. A bucket's fault is an HTTP status."""

    buckets: dict[str, int] = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)
    """Name of the account whose publishes are refused."""


@dataclass(frozen=True, kw_only=True)
class Play:
    """One scene: what breaks, how it is mended, and what `/ready` must name."""

    name: str
    break_: Callable[["Ward"], None]
    mend: Callable[["Ward"], None]
    names: str
    on_small_disk: bool = False


@dataclass(kw_only=True)
class Ward:
    """Everything that a scene can break: the sick worker's proxies, and its folder for downloads."""

    illness: Illness
    scene: Scene
    temp_dir: Path


def _bucket(bucket: Callable[[Ward], str], status: int) -> dict[str, Callable[[Ward], None]]:
    return {
        "break_": lambda ward: ward.illness.buckets.update({bucket(ward): status}),
        "mend": lambda ward: ward.illness.buckets.clear(),
    }


def _fill(ward: Ward) -> None:
    with (ward.temp_dir / "filler").open("wb") as file:
        try:
            while file.write(bytes(1 << 16)):
                file.flush()
        except OSError:
            return


PLAYS = (
    Play(
        name="full TEMP_DIR",
        break_=_fill,
        mend=lambda ward: (ward.temp_dir / "filler").unlink(),
        names="TEMP_DIR",
        on_small_disk=True,
    ),
    Play(
        name="missing TEMP_DIR",
        break_=lambda ward: shutil.rmtree(ward.temp_dir),
        mend=lambda ward: ward.temp_dir.mkdir(),
        names="TEMP_DIR",
    ),
    Play(name="output bucket 403", **_bucket(lambda ward: ward.scene.output_bucket, 403), names="OUTPUT_BUCKET"),
    Play(name="output bucket 503", **_bucket(lambda ward: ward.scene.output_bucket, 503), names="OUTPUT_BUCKET"),
    Play(name="audio bucket 401", **_bucket(lambda _: AUDIO_BUCKET, 401), names=f"gs://{AUDIO_BUCKET}"),
    Play(name="state bucket 403", **_bucket(lambda ward: ward.scene.state_bucket, 403), names="STATE_BUCKET"),
    Play(
        name="completion topic 403",
        break_=lambda ward: ward.illness.topics.add(COMPLETION_TOPIC),
        mend=lambda ward: ward.illness.topics.clear(),
        names="COMPLETION_TOPIC",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of a scene. Seconds are None for a moment that never came."""

    name: str
    unready_seconds: float | None
    completed_seconds: float | None
    """From the mending to the last completed event."""
    completed: int
    dead_letters: int
    counted: int
    """Attempts and crashes that workers counted."""
    skipped: str = ""
    most_completed_seconds: float = MENDED_SECONDS
    has_culprit: bool = False
    """One job is at fault, and ends as a dead letter."""

    @property
    def kept(self) -> bool:
        """True where every promise of the scene was kept, or where the machine cannot play it."""
        if self.skipped:
            return True
        unready = self.unready_seconds is not None and self.unready_seconds <= READY_SECONDS
        done = self.completed_seconds is not None and self.completed_seconds <= self.most_completed_seconds
        if self.has_culprit:
            return done and self.dead_letters == 1
        return unready and done and self.dead_letters == self.counted == 0


class RefusingPubSub(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A gRPC proxy that refuses to publish to the topics of an illness; everything else goes to `upstream`."""

    def __init__(self, upstream: grpc.aio.Channel, illness: Illness) -> None:
        self._upstream, self._illness = upstream, illness

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(partial(self._call, handler_call_details.method))

    async def _call(self, path: str, request: bytes, context: Any) -> bytes:
        if path.endswith("/Publish"):
            topic = types.PublishRequest.deserialize(request).topic.rpartition("/")[2]
            if topic in self._illness.topics:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not granted")
        try:
            reply: bytes = await self._upstream.unary_unary(path)(request, timeout=context.time_remaining())
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
        return reply


@asynccontextmanager
async def doors(on: Stage, illness: Illness) -> AsyncIterator[tuple[str, str]]:
    """`host:port` of Pub/Sub and the URL of Cloud Storage as the sick worker sees them."""

    def storage_fault(head: bytes) -> Fault:
        found = re.search(rb"/b/([^/? ]+)", head)
        status = illness.buckets.get(found[1].decode()) if found else None
        return plainly if status is None else refuse(status)

    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(faulty_proxy(on.plain["storage"], storage_fault))
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.aio.insecure_channel(on.plain["pubsub"], options=options)
        upstream = await stack.enter_async_context(channel)
        server = grpc.aio.server(options=[*options, ("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((RefusingPubSub(upstream, illness),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        yield f"127.0.0.1:{port}", storage.url


class SmallDisk:
    """A file system of a few MiB, mounted for the length of the block; `reason` says why there is none."""

    def __init__(self, folder: Path, mib: int = DISK_MIB) -> None:
        self.folder, self._mib, self.reason = folder, mib, ""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self._mib}m", "tmpfs", str(self.folder)]
        try:
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
        except FileNotFoundError as exc:
            self.reason = str(exc)
        else:
            self.reason = "" if done.returncode == 0 else f"no tmpfs can be mounted here: {done.stderr.strip()}"
        return self

    def __exit__(self, *_: object) -> None:
        if not self.reason:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class Theatre:
    """Plays scenes on one stage."""

    def __init__(self, on: Stage, folder: Path, audio: Sequence[Recording], jobs: int) -> None:
        self._on, self._folder = on, folder
        self._audio = [one for one in audio if one.seconds]
        self._jobs = jobs

    async def play(self, play: Play, *, beside_a_healthy_one: bool, **backoff: int) -> Finding:
        """Let one worker fall ill, mend it, and see what became of the jobs."""
        name = play.name + (", a healthy one beside" if beside_a_healthy_one else ", alone")
        folder = self._folder / re.sub(r"\W+", "-", name)
        with SmallDisk(folder / "disk") as disk:
            if play.on_small_disk and disk.reason:
                return _skipped(name, disk.reason)
            temp_dir = disk.folder if play.on_small_disk else folder / "temp"
            temp_dir.mkdir(exist_ok=True)
            scene = await self._on.scene(_project(name), **backoff)
            ward = Ward(illness=Illness(), scene=scene, temp_dir=temp_dir)
            async with self._crew(folder, ward, healthy=beside_a_healthy_one) as (crew, sick):
                found = await self._fall_ill(name, play, ward, crew, sick)
        return found

    @asynccontextmanager
    async def _crew(self, folder: Path, ward: Ward, *, healthy: bool) -> AsyncIterator[tuple[Fleet, Member]]:
        async with doors(self._on, ward.illness) as (pubsub, storage):
            environment = ward.scene.environment(pubsub, storage)
            environment |= {"PARAKEET_MODEL_NAME": "null:400x", "TEMP_DIR": str(ward.temp_dir), "DOWNLOAD_ROOM_GB": "1"}
            async with fleet(folder / "logs", environment) as crew, ward.scene.followed():
                sick = crew.start()
                if healthy:
                    plain = ward.scene.environment(self._on.plain["pubsub"], self._on.plain["storage"])
                    (folder / "other").mkdir()
                    crew.start(**plain, TEMP_DIR=str(folder / "other"))
                await asyncio.gather(*map(crew.ready, crew.members))
                yield crew, sick
                await asyncio.gather(*map(crew.stop, list(crew.members)))

    async def _fall_ill(self, name: str, play: Play, ward: Ward, crew: Fleet, sick: Member) -> Finding:
        began = time.monotonic()
        play.break_(ward)
        await ward.scene.publish(*self._orders())
        unready = await self._until_unready(sick, play.names)
        await asyncio.sleep(ILL_SECONDS)
        play.mend(ward)
        mended = time.monotonic()
        completed = await self._until_completed(ward.scene, self._jobs, MENDED_SECONDS + 60)
        return Finding(
            name=name,
            unready_seconds=None if unready is None else unready - began,
            completed_seconds=None if completed is None else completed - mended,
            completed=len(ward.scene.outcome.completed),
            dead_letters=len(await ward.scene.dead_letters()),
            counted=counted_by(crew),
        )

    def _orders(self) -> list[Order]:
        return [
            job_for(f"good-{number:03d}", self._audio[number % len(self._audio)].name) for number in range(self._jobs)
        ]

    async def _until_unready(self, sick: Member, names: str) -> float | None:
        """Return the time when `/ready` answered 503 and named the cause; None if it did not in time."""
        url = await asyncio.to_thread(health_url, sick.log.path)

        async def is_unready() -> bool:
            status, body = await asyncio.to_thread(look, f"{url}/ready")
            return status == 503 and names in body

        try:
            await eventually(is_unready, READY_SECONDS + 30)
        except TimeoutError:
            return None
        return time.monotonic()

    @staticmethod
    async def _until_completed(scene: Scene, jobs: int, seconds: float) -> float | None:
        try:
            await eventually(lambda: asyncio.sleep(0, len(scene.outcome.completed) >= jobs), seconds)
        except TimeoutError:
            return None
        return time.monotonic()

    async def foreign_bucket(self) -> Finding:
        """One job names a bucket that is refused and none of the worker's: it ends, and the intake never stops."""
        name = "one job names a foreign bucket"
        folder = self._folder / "foreign"
        (folder / "temp").mkdir(parents=True)
        scene = await self._on.scene(_project(name))
        ward = Ward(illness=Illness(buckets={FOREIGN_BUCKET: 403}), scene=scene, temp_dir=folder / "temp")
        culprit = job_for("culprit", "a.mp3", bucket=FOREIGN_BUCKET)
        async with doors(self._on, ward.illness) as (pubsub, storage):
            environment = scene.environment(pubsub, storage) | {"INPUT_BUCKETS": ""}
            environment |= {"PARAKEET_MODEL_NAME": "null:400x", "TEMP_DIR": str(ward.temp_dir)}
            async with fleet(folder / "logs", environment) as crew, scene.followed():
                await crew.ready(crew.start())
                found = await self._with_culprit(name, scene, crew, culprit)
                stops = sum(member.log.events["intake.stopped"] for member in crew.members)
                await asyncio.gather(*map(crew.stop, list(crew.members)))
        return found if not stops else _skipped(name, "", completed_seconds=None)

    async def huge_job(self) -> Finding:
        """One job's audio alone exceeds TEMP_DIR: it ends with that reason, and its neighbours complete."""
        name = "one job exceeds TEMP_DIR"
        folder = self._folder / "huge"
        with SmallDisk(folder / "disk") as disk:
            if disk.reason:
                return _skipped(name, disk.reason)
            audio = riff_wav(speech(DISK_MIB * 1024 * 1024 / 32_000 + 10).tobytes())
            await self._on.upload([Recording(name="huge.wav", content=audio, seconds=0.0)])
            scene = await self._on.scene(_project(name))
            ward = Ward(illness=Illness(), scene=scene, temp_dir=disk.folder)
            async with self._crew(folder, ward, healthy=False) as (crew, _):
                return await self._with_culprit(name, scene, crew, job_for("culprit", "huge.wav"))

    async def _with_culprit(self, name: str, scene: Scene, crew: Fleet, culprit: Order) -> Finding:
        orders = self._orders()
        await scene.publish(culprit, *orders)
        began = time.monotonic()
        completed = await self._until_completed(scene, self._jobs, 600)
        await eventually(lambda: asyncio.sleep(0, bool(scene.outcome.failed_runs["culprit"])), 900)
        return Finding(
            name=name,
            unready_seconds=None,
            completed_seconds=None if completed is None else completed - began,
            completed=len(scene.outcome.completed),
            dead_letters=len(await scene.dead_letters()),
            counted=counted_by(crew),
            most_completed_seconds=600,
            has_culprit=True,
        )


def counted_by(crew: Fleet) -> int:
    """Return how many attempts and crashes the workers counted, by their logs."""
    found = 0
    for path in crew.logs:
        for line in path.read_bytes().splitlines():
            if line.startswith(b"{"):
                event = json.loads(line)
                is_retry = event["event"] == "delivery.settled" and event["outcome"] == "retry"
                found += is_retry or event["event"] == "delivery.crashed_again"
    return found


def health_url(log: Path) -> str:
    """Return the address of a worker's health port, by its log."""
    for line in log.read_bytes().splitlines():
        if b"health.listening" in line:
            return str(json.loads(line)["url"])
    raise AssertionError(f"{log}: no health port")


def look(url: str) -> tuple[int, str]:
    """Return status and body."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own worker's
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def _project(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]


def _skipped(name: str, reason: str, **changes: Any) -> Finding:
    facts: dict[str, Any] = {
        "name": name,
        "unready_seconds": None,
        "completed_seconds": 0.0,
        "completed": 0,
        "dead_letters": 0,
        "counted": 0,
        "skipped": reason,
    }
    return Finding(**{**facts, **changes})


@asynccontextmanager
async def theatre(folder: Path, jobs: int = JOBS) -> AsyncIterator[Theatre]:
    """Servers and audio for scenes below `folder`."""
    media = MediaKit.at(folder)
    audio = await asyncio.to_thread(recordings, media, 4, 60.0)
    quiet = Dice(rng=random.Random(1))
    async with stage(folder, quiet, quiet) as on:
        await on.upload(audio)
        yield Theatre(on, folder, audio, jobs)


def report(found: Sequence[Finding]) -> Table:
    """Return a row a scene."""
    table = Table(title=f"a sick worker and {JOBS} good jobs")
    for column in ("scene", "503 after, s", "all done after mend, s", "done", "dead letters", "counted", "kept"):
        table.add_column(column)
    for one in found:
        cells = [_cell(one.unready_seconds), _cell(one.completed_seconds), str(one.completed), str(one.dead_letters)]
        kept = one.skipped or ("yes" if one.kept else "NO")
        table.add_row(one.name, *cells, str(one.counted), kept)
    return table


def _cell(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"


async def _scenes(folder: Path, only: str, backoff: Mapping[str, int]) -> list[Finding]:
    console, found = Console(stderr=True), []
    async with theatre(folder) as on:
        acts: list[Callable[[], Any]] = [
            partial(on.play, play, beside_a_healthy_one=healthy, **backoff)
            for play in PLAYS
            for healthy in (False, True)
            if only in play.name
        ]
        culprits = {"one job names a foreign bucket": on.foreign_bucket, "one job exceeds TEMP_DIR": on.huge_job}
        acts += [act for name, act in culprits.items() if only in name]
        for act in acts:
            one = await act()
            found.append(one)
            console.print(f"{'kept' if one.kept else 'BROKEN'}: {one}", soft_wrap=True)
    return found


def main() -> None:
    """Exit status 1 where a promise was broken; the logs are then kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.faults")
    parser.add_argument("--only", default="", help="scenes whose name contains this, such as 'one job'")
    parser.add_argument("--min-backoff", type=int, default=MIN_BACKOFF_SECONDS, help="of the subscription, seconds")
    parser.add_argument("--max-backoff", type=int, default=MAX_BACKOFF_SECONDS)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    backoff = {"min_backoff_seconds": arguments.min_backoff, "max_backoff_seconds": arguments.max_backoff}
    began = time.monotonic()
    found = asyncio.run(_scenes(folder, arguments.only, backoff))
    console = Console(width=max(120, shutil.get_terminal_size().columns))
    console.print(report(found))
    console.print(f"{len(found)} scenes in {(time.monotonic() - began) / 60:.1f} minutes")
    if not all(one.kept for one in found):
        console.print(f"logs: {folder}")
        raise SystemExit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
