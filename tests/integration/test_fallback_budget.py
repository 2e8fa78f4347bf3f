"""Eight workers and one dollar: what it buys, what becomes of the rest, and the next day."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from schemas.codes import ErrorCode
from schemas.dead_letter import parse_dead_letter
from schemas.events import CompletedEvent, CostEvent, FailedEvent
from tests.support.clock import FakeClock
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.store import MemoryObjectStore
from worker.core.costs.budget import FallbackBudget, PaidRecogniser
from worker.core.jobs.routing import RoutingPolicy
from worker.errors import FallbackBudgetExhausted

WORKERS = 8
CHUNK_SECONDS = 20.0
USD_A_CHUNK = 0.045
AFFORDABLE_CHUNKS = 22
FRENCH = [f"french-{number}" for number in range(40)]
ENGLISH = [f"english-{number}" for number in range(8)]
SECONDS_A_DAY = 86_400


class Pool:
    """Workers that share the state bucket and a dollar a day; English videos are outside of Parakeet's rollout."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.store = MemoryObjectStore(self.clock.now)
        self.cloud = MemoryCloudRecogniser()
        self.workers: Sequence[JobsRoom] = [self._worker(folder, number) for number in range(WORKERS)]

    def _worker(self, folder: Path, number: int) -> JobsRoom:
        budget = FallbackBudget(self.store, "state", self.clock, usd_per_day=1.0)
        price = USD_A_CHUNK / CHUNK_SECONDS * 60
        return JobsRoom(
            folder,
            store=self.store,
            deepgram=PaidRecogniser(recogniser=self.cloud, usd_per_minute=price, budget=budget),
            claim_ttl_seconds=30,
            chunk_seconds=CHUNK_SECONDS,
            routing=RoutingPolicy(rollout_percent=0),
            worker=f"worker-{number}",
        )

    async def work(self, jobs: Sequence[str], run: str | None = None) -> None:
        """Let every worker take jobs until there is none; jobs that fail for good are given up."""
        queue = list(jobs)

        async def until_empty(room: JobsRoom) -> None:
            while queue:
                job_id = queue.pop(0)
                language = "fr" if job_id.startswith("french") else "en"
                attempt = room.attempt(job_id=job_id, video_id=job_id, language=language, run=run)
                try:
                    await attempt.handle(OnlySlot())
                except FallbackBudgetExhausted as error:
                    await attempt.give_up(error, 1)

        await asyncio.gather(*(until_empty(room) for room in self.workers))

    def events(self, kind: type) -> list:
        return [event for room in self.workers for event in room.events if isinstance(event, kind)]

    @property
    def dead_letters(self) -> list[str]:
        letters = [parse_dead_letter(data) for room in self.workers for data, _ in room.dead_letters.messages]
        assert {letter.code for letter in letters} == {ErrorCode.FALLBACK_BUDGET_EXHAUSTED}
        return [letter.original.data.decode() for letter in letters]


@pytest.fixture
async def pool(tmp_path: Path) -> Pool:
    made = Pool(tmp_path)
    await made.workers[0].upload(speech(CHUNK_SECONDS))
    return made


async def test_a_dollar_buys_a_dollars_worth_and_the_rest_is_replayed_the_next_day(pool: Pool) -> None:
    await pool.work(FRENCH)
    bought = len(pool.cloud.answered)
    done = {event.job.job_id for event in pool.events(CompletedEvent)}
    failed = {event.job.job_id for event in pool.events(FailedEvent)}

    await pool.clock.advance(SECONDS_A_DAY)
    await pool.work(sorted(failed), run="1")

    assert bought == len(done) == AFFORDABLE_CHUNKS
    assert done | failed == set(FRENCH)
    assert all(event.error.error_code is ErrorCode.FALLBACK_BUDGET_EXHAUSTED for event in pool.events(FailedEvent))
    assert len(pool.dead_letters) == len(failed) == len(FRENCH) - AFFORDABLE_CHUNKS
    assert {event.job.job_id for event in pool.events(CompletedEvent)} == set(FRENCH)
    assert len(pool.cloud.answered) == len(FRENCH)


async def test_jobs_that_parakeet_can_do_go_on_when_the_budget_is_spent(pool: Pool) -> None:
    await pool.work(FRENCH)

    await pool.work(ENGLISH)

    told = [event.transcription_metadata for event in pool.events(CompletedEvent) if event.job.job_id in ENGLISH]
    assert [(each.method_used.value, each.routing_reason) for each in told] == [("parakeet", "rollout_percent")] * 8
    assert len(pool.cloud.answered) == AFFORDABLE_CHUNKS


async def test_what_the_cost_events_say_was_spent_is_below_the_dollar(pool: Pool) -> None:
    await pool.work(FRENCH)

    requests = [engine.requests for event in pool.events(CostEvent) for engine in event.engines]
    assert sum(requests) == AFFORDABLE_CHUNKS
    assert sum(requests) * USD_A_CHUNK <= 1.0
