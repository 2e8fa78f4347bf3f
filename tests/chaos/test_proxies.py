import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from google.api_core import exceptions
from google.pubsub_v1 import types

from tests.chaos.dice import Dice, Fate, Odds
from tests.chaos.gcs_proxy import gcs_proxy
from tests.chaos.grpc_proxy import grpc_proxy
from tests.support.queues.pubsub_server import Server, connected, let_it_pass
from tests.support.services.gcs import store_at
from worker.adapters.gcs import GcsObjectStore, Retries
from worker.embedded.gcs import EmbeddedGcs
from worker.embedded.pubsub import EmbeddedPubSub
from worker.errors import ObjectNotFound, StorageServiceError
from worker.ports import ObjectRef

REF = ObjectRef("bucket", "object")


def dice(**odds: Odds) -> Dice:
    """Certain of everything, so that there is no chance in a test."""
    return Dice(rng=random.Random(1), odds=odds)


@asynccontextmanager
async def pubsub_behind(thrown: Dice) -> AsyncIterator[tuple[Server, Server]]:
    """A Pub/Sub server through a proxy and straight; both know one project."""
    async with (
        EmbeddedPubSub() as server,
        grpc_proxy(server.target, thrown) as door,
        connected(door, let_it_pass) as behind,
        connected(server.target, let_it_pass) as straight,
    ):
        straight.project = behind.project
        yield behind, straight


@pytest.fixture
async def bucket(tmp_path: pytest.TempPathFactory) -> AsyncIterator[EmbeddedGcs]:
    with EmbeddedGcs(tmp_path) as server:
        server.create_buckets([REF.bucket])
        yield server


@asynccontextmanager
async def store_behind(server: EmbeddedGcs, thrown: Dice, attempts: int = 1) -> AsyncIterator[GcsObjectStore]:
    retries = Retries(attempts=attempts, first_wait_seconds=0.001, longest_wait_seconds=0.01)
    async with gcs_proxy(server.url, thrown) as proxy, store_at(proxy.url, retries) as store:
        yield store


def test_fates_come_as_often_as_their_odds_and_equal_seeds_throw_alike() -> None:
    odds = Odds(refused=0.1, reply_lost=0.2, cut=0.3, stalled=0.05)
    first, second = (Dice(rng=random.Random(7), otherwise=odds) for _ in range(2))

    fates = [first.fate("Pull") for _ in range(10_000)]

    assert fates == [second.fate("Pull") for _ in range(10_000)]
    shares = {fate: first.count("Pull", fate) / 10_000 for fate in Fate}
    assert shares == pytest.approx(
        {Fate.REFUSED: 0.1, Fate.REPLY_LOST: 0.2, Fate.CUT: 0.3, Fate.STALLED: 0.05, Fate.WELL: 0.35}, abs=0.02
    )


@pytest.mark.parametrize(("odds", "arrived"), [(Odds(refused=1), 0), (Odds(reply_lost=1), 1)])
async def test_a_call_fails_before_or_after_the_server_did_it(odds: Odds, arrived: int) -> None:
    async with pubsub_behind(dice(Publish=odds)) as (behind, straight):
        topic, subscription = await straight.queue()

        with pytest.raises(exceptions.ServiceUnavailable, match="chaos"):
            await behind.publish(topic, b"x")

        assert len(await straight.pull_now(subscription)) == arrived


async def test_what_the_server_refuses_is_refused_in_its_own_words() -> None:
    async with pubsub_behind(dice()) as (behind, _):
        with pytest.raises(exceptions.NotFound, match=r"Resource not found"):
            await behind.publish(behind.name("topics"), b"x")


async def test_a_pull_that_its_caller_gave_up_takes_no_message() -> None:
    async with pubsub_behind(dice()) as (behind, straight):
        topic, subscription = await straight.queue()
        with pytest.raises(exceptions.DeadlineExceeded):
            await behind.pull(subscription, seconds=0.2)

        await straight.publish(topic, b"x")

        assert len(await straight.receive(subscription)) == 1


async def test_a_stream_is_cut_after_its_first_answer() -> None:
    async with pubsub_behind(dice(StreamingPull=Odds(cut=1))) as (behind, straight):
        topic, subscription = await straight.queue()
        await straight.publish(topic, b"x")
        request = types.StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=10)

        async def requests() -> AsyncIterator[types.StreamingPullRequest]:
            yield request

        answers = await behind.subscriber.streaming_pull(requests=requests(), retry=None, timeout=10)
        first = await anext(aiter(answers))

        assert [one.message.data for one in first.received_messages] == [b"x"]
        with pytest.raises(exceptions.ServiceUnavailable, match="cut"):
            await anext(aiter(answers))


@pytest.mark.parametrize(("odds", "stands"), [(Odds(refused=1), False), (Odds(reply_lost=1), True)])
async def test_an_upload_fails_before_or_after_it_was_stored(bucket: EmbeddedGcs, odds: Odds, stands: bool) -> None:
    async with store_behind(bucket, dice(upload=odds)) as store, store_at(bucket.url) as straight:
        with pytest.raises(StorageServiceError):
            await store.write(REF, b"x", content_type="text/plain")

        if stands:
            assert (await straight.read(REF))[0] == b"x"
        else:
            with pytest.raises(ObjectNotFound):
                await straight.stat(REF)


async def test_the_worker_s_store_gets_through_hard_times(bucket: EmbeddedGcs) -> None:
    hard = Dice(rng=random.Random(3), otherwise=Odds(refused=0.2, reply_lost=0.2, cut=0.1))
    content = random.Random(4).randbytes(30_000)
    async with store_behind(bucket, hard, attempts=50) as store:
        for number in range(10):
            ref = ObjectRef(REF.bucket, f"object-{number}")
            await store.write(ref, content, content_type="text/plain", if_generation=0)
            assert (await store.read(ref))[0] == content
            await store.delete(ref)

        assert not await store.list(REF.bucket, "object-")

    assert {operation for operation, _ in hard.tally} == {"upload", "stat", "download", "delete", "list"}
    assert {fate for _, fate in hard.tally} == set(Fate) - {Fate.STALLED}
