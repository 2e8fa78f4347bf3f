import asyncio
import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import FakeClock
from worker.adapters.memory.store import MemoryObjectStore
from worker.core.costs.budget import BLOCKS_A_DAY, FallbackBudget, NoLimit
from worker.errors import FallbackBudgetExhausted, PreconditionFailed, StorageServiceError
from worker.ports import ObjectFacts, ObjectRef

CHUNK_USD = 0.045
TODAY = ObjectRef("state", "budget/2026-11-22.json")
SECONDS_A_DAY = 86_400


class RacyStore(MemoryObjectStore):
    """Lets other tasks run inside every call, so that readers of one ledger meet; counts the writers that were late."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock.now)
        self.late = 0
        self.writes = 0

    async def read(self, ref: ObjectRef) -> tuple[bytes, ObjectFacts]:
        found = await super().read(ref)
        await asyncio.sleep(0)
        return found

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        await asyncio.sleep(0)
        try:
            facts = await super().write(ref, data, content_type=content_type, if_generation=if_generation)
        except PreconditionFailed:
            self.late += 1
            raise
        self.writes += 1
        return facts


class Pool:
    """Workers that share a store, a clock and a daily budget."""

    def __init__(self, workers: int = 1, usd_per_day: float = 1.0, store: MemoryObjectStore | None = None) -> None:
        self.clock = FakeClock()
        self.store = store or RacyStore(self.clock)
        ids = itertools.count()
        self.workers: Sequence[FallbackBudget] = [
            FallbackBudget(
                self.store, "state", self.clock, usd_per_day=usd_per_day, new_id=lambda: f"write-{next(ids)}"
            )
            for _ in range(workers)
        ]

    async def reserved_usd(self, ref: ObjectRef = TODAY) -> float:
        return float(json.loads((await self.store.read(ref))[0])["reserved_usd"])


async def spend_all(budget: FallbackBudget, usd: float) -> float:
    """Pay for one chunk after the other until there is nothing left; returns what was paid."""
    paid = 0.0
    try:
        while True:
            await budget.take(usd)
            paid += usd
    except FallbackBudgetExhausted:
        return paid


async def test_eight_workers_that_race_for_a_dollar_spend_at_most_a_dollar() -> None:
    store = RacyStore(FakeClock())
    pool = Pool(workers=8, store=store)

    paid = await asyncio.gather(*(spend_all(worker, CHUNK_USD) for worker in pool.workers))

    assert sum(paid) == pytest.approx(22 * CHUNK_USD)
    assert await pool.reserved_usd() == pytest.approx(sum(paid))
    assert store.late > 20
    assert all(worker.is_spent for worker in pool.workers)


async def test_blocks_save_writes_to_the_one_ledger() -> None:
    store = RacyStore(FakeClock())
    pool = Pool(usd_per_day=100.0, store=store)

    paid = await spend_all(pool.workers[0], CHUNK_USD)

    assert 100 - 2 * CHUNK_USD < paid <= 100
    assert store.writes <= BLOCKS_A_DAY + 1


@given(
    usd_per_day=st.floats(0, 3),
    amounts=st.lists(st.lists(st.floats(0.001, 0.5), max_size=12), min_size=1, max_size=5),
)
async def test_whatever_is_asked_for_the_pool_never_overdraws(usd_per_day: float, amounts: list[list[float]]) -> None:
    pool = Pool(workers=len(amounts), usd_per_day=usd_per_day)
    paid: list[float] = []

    async def work(worker: FallbackBudget, wanted: list[float]) -> None:
        for usd in wanted:
            try:
                await worker.take(usd)
            except FallbackBudgetExhausted:
                continue
            paid.append(usd)

    await asyncio.gather(*(work(worker, wanted) for worker, wanted in zip(pool.workers, amounts, strict=True)))

    assert sum(paid) <= usd_per_day + 1e-5


async def test_the_next_utc_day_has_a_budget_of_its_own() -> None:
    pool = Pool()
    (worker,) = pool.workers
    first = await spend_all(worker, CHUNK_USD)

    await pool.clock.advance(SECONDS_A_DAY)
    is_spent_before_asking = worker.is_spent
    second = await spend_all(worker, CHUNK_USD)

    assert first == second == pytest.approx(22 * CHUNK_USD)
    assert not is_spent_before_asking
    assert await pool.reserved_usd(ObjectRef("state", "budget/2026-11-23.json")) == pytest.approx(second)


async def test_what_was_reserved_yesterday_is_not_spent_today() -> None:
    pool = Pool(usd_per_day=50.0)
    (worker,) = pool.workers
    yesterday = await worker.take(CHUNK_USD)

    await pool.clock.advance(SECONDS_A_DAY)
    yesterday.put_back(CHUNK_USD)
    await worker.take(1.5)

    assert await pool.reserved_usd(ObjectRef("state", "budget/2026-11-23.json")) == pytest.approx(1.5)


async def test_what_a_dead_worker_had_reserved_counts_as_spent() -> None:
    pool = Pool(workers=2, usd_per_day=50.0)
    dead, alive = pool.workers
    await dead.take(CHUNK_USD)

    paid = await spend_all(alive, CHUNK_USD)

    assert paid <= 49.0


async def test_what_was_put_back_is_spent_before_more_is_reserved() -> None:
    pool = Pool()
    (worker,) = pool.workers

    for _ in range(10):
        purse = await worker.take(2 * CHUNK_USD)
        purse.put_back(CHUNK_USD)

    assert await pool.reserved_usd() == pytest.approx(11 * CHUNK_USD)


async def test_a_refused_amount_leaves_room_for_a_smaller_one() -> None:
    (worker,) = Pool(usd_per_day=0.05).workers

    with pytest.raises(FallbackBudgetExhausted) as refused:
        await worker.take(0.06)
    await worker.take(0.05)

    assert (refused.value.usd_per_day, refused.value.day) == (0.05, "2026-11-22")


async def test_a_budget_of_nothing_pays_for_nothing() -> None:
    (worker,) = Pool(usd_per_day=0.0).workers

    with pytest.raises(FallbackBudgetExhausted):
        await worker.take(0.001)


class LosesReplies(MemoryObjectStore):
    """The ledger is written and the reply is lost, for good: the adapter's own retries are over."""

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        await super().write(ref, data, content_type=content_type, if_generation=if_generation)
        raise StorageServiceError("write", ref.uri, "the reply was lost")


async def test_money_whose_reservation_was_not_confirmed_is_not_spent() -> None:
    store = LosesReplies(FakeClock().now)
    pool = Pool(store=store)
    (worker,) = pool.workers

    for _ in range(2):
        with pytest.raises(StorageServiceError):
            await worker.take(CHUNK_USD)

    assert await pool.reserved_usd() == pytest.approx(2 * CHUNK_USD)
    assert not worker.is_spent


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"day": "2026-11-22"}',
        b'{"day": "2026-11-22", "reserved_usd": -5, "written_by": "x"}',
        b'{"day": "2026-11-22", "reserved_usd": NaN, "written_by": "x"}',
    ],
)
async def test_a_ledger_that_cannot_be_read_stops_the_spending(content: bytes) -> None:
    pool = Pool()
    (worker,) = pool.workers
    await pool.store.write(TODAY, content, content_type="application/json")

    with pytest.raises(StorageServiceError, match="not a budget ledger"):
        await worker.take(CHUNK_USD)

    assert (await pool.store.read(TODAY))[0] == content


class NeverFirst(MemoryObjectStore):
    """A store in which another writer always writes the ledger first."""

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        del data, content_type
        raise PreconditionFailed(ref.uri, if_generation)


async def test_a_ledger_that_others_always_write_first_is_given_up_for_now() -> None:
    (worker,) = Pool(store=NeverFirst(FakeClock().now)).workers

    with pytest.raises(StorageServiceError, match="faster"):
        await worker.take(CHUNK_USD)


async def test_without_a_budget_everything_is_granted() -> None:
    purse = await NoLimit().take(1e9)

    purse.put_back(1e9)
    assert not NoLimit().is_spent
