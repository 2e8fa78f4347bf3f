from datetime import UTC, datetime, timedelta

import pytest

from schemas.events import encode
from schemas.state import ResultMarker, StoredMessage
from tests.support.jobs.ended_jobs import completed, cost_of
from worker.adapters.memory.store import MemoryObjectStore
from worker.app.page import bucket as module
from worker.app.page.bucket import Results
from worker.errors import StorageServiceError
from worker.ports import ObjectFacts, ObjectRef


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(module, "SHARE_OF_TIME", 0)


class CountingStore(MemoryObjectStore):
    """Counts reads, and fails to list when asked to."""

    reads = 0
    is_down = False

    async def read(self, ref: ObjectRef) -> tuple[bytes, ObjectFacts]:
        self.reads += 1
        return await super().read(ref)

    async def list(self, bucket: str, prefix: str) -> list[ObjectFacts]:
        if self.is_down:
            raise StorageServiceError("list", f"gs://{bucket}/{prefix}", "503")
        return [*await super().list(bucket, prefix)]


class ShrinkingStore(MemoryObjectStore):
    """Loses a result once it has been listed."""

    async def list(self, bucket: str, prefix: str) -> list[ObjectFacts]:
        listed = [*await super().list(bucket, prefix)]
        await self.delete(ObjectRef("state", "results/b.json"))
        return listed


async def put(store: MemoryObjectStore, job_id: str, name: str | None = None, data: bytes | None = None) -> None:
    messages = [completed(job_id), cost_of(job_id, parakeet_hours=1)]
    marker = ResultMarker(
        job_id=job_id,
        fingerprint="f",
        run=0,
        outcome="completed",
        messages=tuple(
            StoredMessage(topic="completion", data=encode(event).decode(), attributes={}) for event in messages
        ),
        concluded_at=datetime.now(UTC),
    )
    ref = ObjectRef("state", name or f"results/{job_id}.json")
    await store.write(ref, data or marker.model_dump_json().encode(), content_type="application/json")


async def test_each_result_is_read_once_and_again_when_it_has_changed() -> None:
    store = CountingStore(lambda: datetime.now(UTC))
    results = Results(store=store, bucket="state")
    await put(store, "a")
    await put(store, "b")

    first = await results.newest()
    await results.newest()
    reads_before = store.reads
    await put(store, "b")
    await results.newest()

    assert [result.marker.job_id for result in first] == ["b", "a"]
    assert (reads_before, store.reads) == (2, 3)
    assert results.problem == ""


async def test_objects_that_are_no_results_are_left_out() -> None:
    store = CountingStore(lambda: datetime.now(UTC))
    await put(store, "a")
    await put(store, "b", data=b"not json")

    found = await Results(store=store, bucket="state").newest()

    assert [result.marker.job_id for result in found] == ["a"]
    assert found[0].cost is not None


async def test_a_result_that_is_deleted_between_list_and_read_is_left_out() -> None:
    store = ShrinkingStore(lambda: datetime.now(UTC))
    results = Results(store=store, bucket="state")
    await put(store, "a")
    await put(store, "b")

    found = await results.newest()

    assert [result.marker.job_id for result in found] == ["a"]
    assert results.problem == ""


async def test_results_older_than_two_weeks_are_not_read() -> None:
    store = CountingStore(lambda: datetime.now(UTC) - timedelta(days=15))
    await put(store, "a")

    assert await Results(store=store, bucket="state").newest() == []
    assert store.reads == 0


async def test_a_bucket_that_cannot_be_listed_is_reported_and_the_last_results_stay() -> None:
    store = CountingStore(lambda: datetime.now(UTC))
    results = Results(store=store, bucket="state")
    await put(store, "a")
    await results.newest()

    store.is_down = True
    found = await results.newest()

    assert [result.marker.job_id for result in found] == ["a"]
    assert results.problem.startswith("The state bucket cannot be read")
