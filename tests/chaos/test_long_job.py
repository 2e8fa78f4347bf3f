"""A lease is extended until its job is settled, however long that takes: over the wire, on a clock of the test's."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.dice import Dice
from tests.chaos.grpc_proxy import grpc_proxy
from tests.support.clock import FakeClock
from tests.support.queues.consumer_harness import ScriptedHandler, ScriptedSelfTest, fitness_of
from tests.support.queues.pubsub_server import Server, connected
from tests.support.wait import eventually
from worker.adapters.pubsub.pubsub import open_pubsub
from worker.core.delivery.consumer import Consumer
from worker.embedded.pubsub import EmbeddedPubSub

ACK_DEADLINE_SECONDS = 10


@asynccontextmanager
async def consumer_on(
    server: Server, subscription: str, handler: ScriptedHandler, clock: FakeClock, door: str
) -> AsyncIterator[Consumer]:
    async with open_pubsub(server.project, emulator_host=door) as pubsub:
        consumer = Consumer(
            pubsub.subscription(subscription),
            handler,
            slots=1,
            max_parked=1,
            ack_deadline_seconds=ACK_DEADLINE_SECONDS,
            max_attempts=3,
            fitness=fitness_of(ScriptedSelfTest(), clock),
            fuse_threshold=3,
            clock=clock,
            rng=random.Random(1),
        )
        run = asyncio.create_task(consumer.run(), name="consumer")
        yield consumer
        consumer.stop("the test is over")
        consumer.stop("at once")
        await run


async def test_a_job_longer_than_three_leases_is_delivered_once() -> None:
    clock, dice = FakeClock(), Dice(rng=random.Random(1))
    handler = ScriptedHandler(clock)
    async with (
        EmbeddedPubSub(clock=clock) as embedded,
        connected(embedded.target, clock.advance) as server,
        grpc_proxy(embedded.target, dice) as door,
    ):
        topic, subscription = await server.queue(ack_deadline_seconds=ACK_DEADLINE_SECONDS)
        (message_id,) = await server.publish(topic, b"{}")
        async with consumer_on(server, subscription, handler, clock, door) as consumer:

            def is_confirmed() -> bool:
                leases = consumer._leases._leases.values()
                return [lease.deadline for lease in leases] == [clock.monotonic() + ACK_DEADLINE_SECONDS]

            await eventually(lambda: asyncio.sleep(0, is_confirmed()))
            for _ in range(8):
                await clock.advance(ACK_DEADLINE_SECONDS / 2)
                await eventually(lambda: asyncio.sleep(0, is_confirmed()))
            handler.finish(message_id)
            await eventually(lambda: asyncio.sleep(0, not consumer.snapshot.unsettled and not consumer.snapshot.jobs))

            await clock.advance(3 * ACK_DEADLINE_SECONDS)
            assert handler.started == [message_id]
            assert await server.pull_now(subscription) == []
    assert dice.count("Acknowledge") == 1
    assert dice.count("ModifyAckDeadline") == 9
