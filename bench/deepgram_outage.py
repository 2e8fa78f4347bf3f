"""Cost of an outage of Deepgram: `python -m bench.deepgram_outage [SECONDS] [refused|silent]`.

Thirty jobs that need Deepgram and ten that do not go to two worker processes, while the stand-in for Deepgram refuses
every request (503) or never answers. The subscription delivers again after 1 to 10 s, and forwards at 100 deliveries.

Exit 1 unless every job completes within three minutes of the mend, without a dead letter, without a counted attempt
(refused) or with fewer than a job has (silent), and each chunk that was answered was paid for once.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.services.deepgram import hear
from tests.support.workers.cloud import Cloud, cloud_in
from tests.support.workers.pipeline import Pipeline
from tests.support.workers.worker_process import WorkerProcess
from worker.embedded.deepgram import EmbeddedDeepgram, Reply, Slow
from worker.embedded.local_cloud import DEAD_LETTER_TOPIC, JOBS_TOPIC
from worker.embedded.own_thread import in_thread
from worker.embedded.pubsub.provision import SubscriptionPlan, provision

NEEDING, OTHERS, JOB_SECONDS = 30, 10, 20
MOST_SECONDS_AFTER = 180.0
MOST_ATTEMPTS = 5
PLAN = SubscriptionPlan(
    name="jobs-of-the-bench",
    topic=JOBS_TOPIC,
    ack_deadline_seconds=60,
    min_backoff_seconds=1,
    max_backoff_seconds=10,
    dead_letter_topic=DEAD_LETTER_TOPIC,
)


class Kind(StrEnum):
    """Answer of Deepgram during the outage."""

    REFUSED = "refused"
    SILENT = "silent"


FAULTS: dict[Kind, Reply | Slow] = {
    Kind.REFUSED: Reply(status=503, body=b"upstream trouble"),
    Kind.SILENT: Slow(seconds=3600),
}


@dataclass
class Outage:
    """Behaviour of the development server until it is mended."""

    fault: Reply | Slow
    over: bool = False
    served_from: int = 0
    seen: list[int] = field(default_factory=list)

    def __call__(self, number: int) -> Reply | Slow | None:
        """Return the fault of request `number`, or None once the outage is over."""
        self.seen.append(number)
        return None if self.over else self.fault

    def mend(self) -> None:
        """Serve from now on."""
        self.served_from, self.over = len(self.seen), True


@dataclass(frozen=True, kw_only=True)
class OutageResult:
    """Result of the outage."""

    kind: Kind
    completed: int
    others_meanwhile: int
    seconds_after: float
    dead_letters: int
    attempts: Counter[str]
    most_deliveries: int
    requests_meanwhile: int
    payments: Sequence[int]

    @property
    def problems(self) -> Sequence[str]:
        """Broken promises; empty if there are none."""
        allowed = 0 if self.kind is Kind.REFUSED else MOST_ATTEMPTS - 1
        counts = {
            "jobs that did not complete": NEEDING + OTHERS - self.completed,
            "jobs without need of Deepgram that waited": OTHERS - self.others_meanwhile,
            "dead letters": self.dead_letters,
            "jobs with too many counted attempts": sum(count > allowed for count in self.attempts.values()),
            "chunks paid for again": sum(count > 1 for count in self.payments),
        }
        return [f"{count} {what}" for what, count in counts.items() if count]


def main(
    seconds: Annotated[float, typer.Argument(help="of the outage", min=0)] = 300.0,
    kind: Annotated[Kind, typer.Argument(help="what Deepgram does meanwhile")] = Kind.REFUSED,
) -> None:
    """Play the outage and print what it cost."""
    outage, console = Outage(FAULTS[kind]), Console()
    with tempfile.TemporaryDirectory() as folder, cloud_in(Path(folder)) as cloud:
        asyncio.run(provision(cloud.local.pubsub_target, cloud.project, PLAN))
        with in_thread(EmbeddedDeepgram(hear, misbehave=outage)) as deepgram:
            result = asyncio.run(play(cloud, deepgram, outage, kind, seconds))
    console.print(table(result, seconds))
    for problem in result.problems:
        console.print(f"[red]{problem}[/]")
    raise typer.Exit(bool(result.problems))


async def play(cloud: Cloud, deepgram: EmbeddedDeepgram, outage: Outage, kind: Kind, seconds: float) -> OutageResult:
    """One outage, from the first job to the last."""
    needing = [f"needing-{number}" for number in range(NEEDING)]
    others = [f"other-{number}" for number in range(OTHERS)]
    async with cloud.pipeline() as pipeline:
        with ExitStack() as stack:
            workers = [stack.enter_context(cloud.process(name, **_environment(deepgram))) for name in ("one", "two")]
            for worker in workers:
                await asyncio.to_thread(worker.wait_ready)
            for number, job_id in enumerate([*needing, *others]):
                wav = riff_wav(speech(JOB_SECONDS, seed=number).astype("<i2").tobytes())
                method = {"force_method": "deepgram"} if job_id in needing else {"force_method": "parakeet"}
                await pipeline.submit(await pipeline.upload(wav, job_id), job_id, **method)
            await asyncio.sleep(seconds)
            for job_id in others:
                await _ended(pipeline, job_id, 5)
            meanwhile = _completed(pipeline, others)
            outage.mend()
            mended = time.monotonic()
            for job_id in needing:
                await _ended(pipeline, job_id, MOST_SECONDS_AFTER - (time.monotonic() - mended))
            seconds_after = time.monotonic() - mended
        answered = [receipt for receipt in deepgram.receipts if receipt.number >= outage.served_from and receipt.paid]
        return OutageResult(
            kind=kind,
            completed=_completed(pipeline, [*needing, *others]),
            others_meanwhile=meanwhile,
            seconds_after=seconds_after,
            dead_letters=len(await pipeline.dead_letters()),
            attempts=Counter(event["job_id"] for event in _logged(workers, "delivery.failed")),
            most_deliveries=max(event["attempt"] for event in _logged(workers, "delivery.received")),
            requests_meanwhile=outage.served_from,
            payments=list(Counter(receipt.fingerprint for receipt in answered).values()),
        )


def _environment(deepgram: EmbeddedDeepgram) -> Mapping[str, str]:
    return {
        "PARAKEET_MODEL_NAME": "null:60x",
        "DEEPGRAM_API_KEY": deepgram.api_key,
        "DEEPGRAM_BASE_URL": deepgram.url,
        "JOBS_SUBSCRIPTION": PLAN.name,
    }


async def _ended(pipeline: Pipeline, job_id: str, seconds: float) -> None:
    try:
        await pipeline.ending(job_id, max(seconds, 0.1))
    except TimeoutError:
        return


def _completed(pipeline: Pipeline, job_ids: Sequence[str]) -> int:
    found = {event.job.job_id for event in pipeline.events if event.event_type == "transcription.completed"}
    return len(found & set(job_ids))


def _logged(workers: Sequence[WorkerProcess], message: str) -> list[dict[str, Any]]:
    return [event for worker in workers for event in worker.logged(message)]


def table(result: OutageResult, seconds: float) -> Table:
    """Return the figures as a table."""
    found = Table("", "", title=f"Deepgram {result.kind} for {seconds:.0f} s")
    rows = {
        "jobs completed": f"{result.completed} of {NEEDING + OTHERS}",
        "of those without need of it, meanwhile": f"{result.others_meanwhile} of {OTHERS}",
        "seconds from the mend to the last": f"{result.seconds_after:.0f}",
        "dead letters": result.dead_letters,
        "counted attempts, all jobs": result.attempts.total(),
        "of one job, at most": max(result.attempts.values(), default=0),
        "deliveries of one job, at most": result.most_deliveries,
        "requests meanwhile": result.requests_meanwhile,
        "chunks paid for": len(result.payments),
        "payments of one chunk, at most": max(result.payments, default=0),
    }
    for name, figure in rows.items():
        found.add_row(name, str(figure))
    return found


if __name__ == "__main__":
    typer.run(main)
