"""Cost of a misbehaving Deepgram in paid requests: `python -m bench.deepgram_faults [SEED]`.

A hundred chunks of twenty jobs go through worker processes without Parakeet to the stand-in, in three scenes:

- faults: bursts of 429 with Retry-After, 10 % answers of 5xx, 10 % slow ones;
- resets: the same, and 5 % connections reset with the whole audio received, and so paid for;
- kills: the same, while workers are killed with SIGKILL and replaced.

Exit 1 unless every job completes; each chunk is paid for once, and once more at most for each reset of its request and
for each kill that it was in flight at; and none is paid for after it had a checkpoint.
"""

import asyncio
import itertools
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.services.deepgram import hear
from tests.support.wait import eventually
from tests.support.workers.cloud import Cloud, cloud_in
from tests.support.workers.pipeline import Pipeline
from tests.support.workers.worker_process import WorkerProcess
from worker.core.transcript.planning import ChunkCutter
from worker.embedded.deepgram import EmbeddedDeepgram, Receipt, Reset, SeededFaults
from worker.embedded.deepgram.audio import fingerprint
from worker.embedded.local_cloud import JOBS_TOPIC
from worker.embedded.own_thread import in_thread
from worker.embedded.pubsub.provision import SubscriptionPlan, provision
from worker.ports import Pcm

JOBS, JOB_SECONDS, CHUNK_SECONDS = 20, 29, 8
WORKERS, KILLS = 2, 4
CHUNKS_BETWEEN_KILLS = 12
MOST_SECONDS = 400.0
# A short deadline: what a killed worker held comes back soon.
QUICK = SubscriptionPlan(name="jobs-of-the-bench", topic=JOBS_TOPIC, ack_deadline_seconds=10)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Faults of the scene."""

    name: str
    faults: SeededFaults
    kills: int = 0


@dataclass(frozen=True, kw_only=True)
class Kill:
    """State right after a kill: checkpoints by their fingerprints, and the number of requests so far."""

    kept: frozenset[str]
    requests: int


@dataclass(kw_only=True)
class FaultsResult:
    """Result of a scene."""

    scene: Scene
    seconds: float
    chunks: frozenset[str]
    completed: int
    receipts: Sequence[Receipt]
    kills: Sequence[Kill] = field(default_factory=list)

    @property
    def payments(self) -> Counter[str]:
        """Number of payments for each chunk."""
        return Counter(receipt.fingerprint for receipt in self.receipts if receipt.paid and receipt.fingerprint)

    @property
    def resets(self) -> Counter[str]:
        """Number of payments for each chunk whose answer was lost."""
        lost = [each for each in self.receipts if each.paid and isinstance(self.scene.faults(each.number), Reset)]
        return Counter(receipt.fingerprint for receipt in lost if receipt.fingerprint)

    @property
    def in_flight(self) -> Counter[str]:
        """Number of requests for each chunk that were sent completely and not stored when a worker was killed."""
        flights: Counter[str] = Counter()
        for kill in self.kills:
            sent = {receipt.fingerprint for receipt in self.receipts[: kill.requests] if receipt.paid}
            flights.update(chunk for chunk in sent - kill.kept if chunk)
        return flights

    @property
    def paid_after_kept(self) -> int:
        """Payments for chunks that had a checkpoint before."""
        return sum(
            receipt.paid and receipt.fingerprint in kill.kept
            for kill in self.kills
            for receipt in self.receipts[kill.requests :]
        )

    @property
    def problems(self) -> Sequence[str]:
        """Broken promises; empty if there are none."""
        unexcused = self.payments - Counter(self.chunks) - self.resets - self.in_flight
        counts = {
            "jobs that did not complete": JOBS - self.completed,
            "chunks never paid for": len(self.chunks - set(self.payments)),
            "payments for no chunk of ours": len(set(self.payments) - self.chunks),
            "payments without a reset or a kill": unexcused.total(),
            "payments for chunks that had a checkpoint": self.paid_after_kept,
        }
        return [f"{self.scene.name}: {count} {what}" for what, count in counts.items() if count]


def main(seed: Annotated[int, typer.Argument(help="of the faults")] = 1) -> None:
    """Play the scenes and print what they cost."""
    console = Console()
    results = [play(scene) for scene in scenes(seed)]
    console.print(table(results, seed))
    problems = [problem for result in results for problem in result.problems]
    for problem in problems:
        console.print(f"[red]{problem}[/]")
    raise typer.Exit(bool(problems))


def scenes(seed: int) -> Sequence[Scene]:
    """Return the three scenes with their shares of faults."""
    usual = SeededFaults(seed=seed, burst_share=0.1, server_error_share=0.1, slow_share=0.1, slow_seconds=1.0)
    with_resets = replace(usual, reset_share=0.05)
    return (
        Scene(name="faults", faults=usual),
        Scene(name="resets", faults=with_resets),
        Scene(name="kills", faults=with_resets, kills=KILLS),
    )


def play(scene: Scene) -> FaultsResult:
    """One scene on servers of its own."""
    with tempfile.TemporaryDirectory() as folder, cloud_in(Path(folder)) as cloud:
        asyncio.run(provision(cloud.local.pubsub_target, cloud.project, QUICK))
        with in_thread(EmbeddedDeepgram(hear, misbehave=scene.faults)) as deepgram:
            return asyncio.run(_play(scene, cloud, deepgram))


async def _play(scene: Scene, cloud: Cloud, deepgram: EmbeddedDeepgram) -> FaultsResult:
    plans = {f"job-{number}": _chunks(_audio(number)) for number in range(JOBS)}
    names = (f"worker-{number}" for number in itertools.count())
    async with cloud.pipeline() as pipeline:
        for number, job_id in enumerate(plans):
            uri = await pipeline.upload(riff_wav(_audio(number).astype("<i2").tobytes()), job_id)
            await pipeline.submit(uri, job_id)
        began = time.monotonic()
        with ExitStack() as stack:

            def start() -> WorkerProcess:
                return stack.enter_context(cloud.process(next(names), **_environment(deepgram)))

            workers = [start() for _ in range(WORKERS)]
            kills = [await _kill(workers, start, pipeline, plans, deepgram) for _ in range(scene.kills)]
            endings = [await pipeline.ending(job_id, MOST_SECONDS) for job_id in plans]
    return FaultsResult(
        scene=scene,
        seconds=time.monotonic() - began,
        chunks=frozenset(chunk for chunks in plans.values() for chunk in chunks),
        completed=sum(ending.cost.outcome == "completed" for ending in endings),
        receipts=deepgram.receipts,
        kills=kills,
    )


async def _kill(
    workers: list[WorkerProcess],
    start: Callable[[], WorkerProcess],
    pipeline: Pipeline,
    plans: Mapping[str, Sequence[str]],
    deepgram: EmbeddedDeepgram,
) -> Kill:
    """Kill the oldest worker once the others and it have sent some more, and start another."""
    enough, victim = len(deepgram.receipts) + CHUNKS_BETWEEN_KILLS, workers.pop(0)

    async def in_the_midst() -> bool:
        return len(deepgram.receipts) >= enough and bool(victim.logged("chunk.done"))

    await eventually(in_the_midst, MOST_SECONDS)
    victim.send(signal.SIGKILL)
    victim.wait(5)
    workers.append(start())
    kept = await _kept(pipeline, plans)
    return Kill(kept=kept, requests=len(deepgram.receipts))


async def _kept(pipeline: Pipeline, plans: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Every chunk that has a checkpoint, or whose job has its result."""
    checkpoints = [name.split("/") for name in await pipeline.state("checkpoints/")]
    results = [name.removeprefix("results/").removesuffix(".json") for name in await pipeline.state("results/")]
    chunks = [plans[job_id][int(index.removesuffix(".json"))] for _, job_id, _, index in checkpoints]
    return frozenset([*chunks, *(chunk for job_id in results for chunk in plans[job_id])])


def _environment(deepgram: EmbeddedDeepgram) -> Mapping[str, str]:
    return {
        "ENABLE_GPU_TRANSCRIPTION": "false",
        "DEEPGRAM_API_KEY": deepgram.api_key,
        "DEEPGRAM_BASE_URL": deepgram.url,
        "JOBS_SUBSCRIPTION": QUICK.name,
        "CHUNK_DURATION_MINUTES": str(CHUNK_SECONDS / 60),
        "CLAIM_TTL_SECONDS": "5",
        "MAX_CRASHES": "100",
    }


def _audio(number: int) -> Pcm:
    return speech(JOB_SECONDS, seed=number)


def _chunks(audio: Pcm) -> Sequence[str]:
    """Return the fingerprints of the chunks that a worker will cut."""
    cutter = ChunkCutter(chunk_seconds=CHUNK_SECONDS)
    return [
        fingerprint(audio[chunk.start_sample : chunk.end_sample]) for chunk in (*cutter.push(audio), *cutter.finish())
    ]


def table(results: Sequence[FaultsResult], seed: int) -> Table:
    """Return the figures as a table."""
    found = Table(title=f"a misbehaving Deepgram, seed {seed}, {WORKERS} workers")
    for name in ("", *(result.scene.name for result in results)):
        found.add_column(name, justify="right")
    rows: Mapping[str, Callable[[FaultsResult], object]] = {
        "jobs completed": lambda result: f"{result.completed} of {JOBS}",
        "chunks": lambda result: len(result.chunks),
        "requests": lambda result: len(result.receipts),
        "refused with 429": lambda result: sum(each.status == 429 for each in result.receipts),
        "answered with 5xx": lambda result: sum((each.status or 0) >= 500 for each in result.receipts),
        "reset after the upload": lambda result: result.resets.total(),
        "workers killed": lambda result: len(result.kills),
        "in flight at kills": lambda result: result.in_flight.total(),
        "payments": lambda result: result.payments.total(),
        "paid requests a chunk": lambda result: f"{result.payments.total() / len(result.chunks):.2f}",
        "paid more than once": lambda result: (result.payments - Counter(result.chunks)).total(),
        "paid after a checkpoint": lambda result: result.paid_after_kept,
        "seconds": lambda result: f"{result.seconds:.0f}",
    }
    for name, figure in rows.items():
        found.add_row(name, *(str(figure(result)) for result in results))
    return found


if __name__ == "__main__":
    typer.run(main)
