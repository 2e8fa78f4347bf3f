"""Urgent jobs first on a real server: the filter, the head start, and both deliveries of an urgent message."""

import random

from tests.support.queues.pubsub_server import Server
from worker.adapters.machine.clock import SystemClock
from worker.adapters.pubsub.pubsub import open_pubsub
from worker.core.delivery.intake import UrgentFirst
from worker.embedded.local_cloud import JOBS_SUBSCRIPTION, JOBS_SUBSCRIPTION_URGENT, JOBS_TOPIC, PLANS
from worker.embedded.pubsub.provision import provision
from worker.ports import Delivery


async def test_an_urgent_message_behind_a_hundred_is_pulled_first_and_once_more_in_its_turn(
    embedded_server: Server,
) -> None:
    await provision(embedded_server.target, embedded_server.project, *PLANS)
    async with open_pubsub(embedded_server.project, emulator_host=embedded_server.target) as pubsub:
        urgent, plain = pubsub.subscription(JOBS_SUBSCRIPTION_URGENT), pubsub.subscription(JOBS_SUBSCRIPTION)
        both = UrgentFirst(urgent, plain, SystemClock(), random.Random(1))
        topic = pubsub.topic(JOBS_TOPIC)
        for number in range(100):
            await topic.publish(b"plain-%d" % number, {"priority": "high"})
        await topic.publish(b"urgent", {"priority": "urgent"})

        pulled: list[Delivery] = []
        while len(pulled) < 102:
            for delivery in await both.pull(8):
                pulled.append(delivery)
                await both.ack(delivery.ack_id)

        assert [one.data for one in pulled].index(b"urgent") == 0
        assert [one.data for one in pulled].count(b"urgent") == 2
        assert len({one.data for one in pulled}) == 101
        assert await both.extend([pulled[0].ack_id, pulled[1].ack_id], 0) == frozenset()
        both.cancel_pulls()
