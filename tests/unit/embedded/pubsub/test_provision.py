from datetime import timedelta

from google.pubsub_v1 import types

from tests.support.queues.pubsub_server import ONCE, Server
from worker.embedded.pubsub.provision import SubscriptionPlan, provision

PLAN = SubscriptionPlan(
    name="jobs-worker", topic="jobs", dead_letter_topic="dead-letters", min_backoff_seconds=10, exactly_once=True
)


async def test_a_plan_makes_the_subscription_its_topics_and_a_place_for_dead_letters(embedded_server: Server) -> None:
    await provision(embedded_server.target, embedded_server.project, PLAN)

    jobs = await describe(embedded_server, "jobs-worker")
    assert jobs.topic == embedded_server.name("topics", "jobs")
    assert jobs.dead_letter_policy.dead_letter_topic == embedded_server.name("topics", "dead-letters")
    assert jobs.dead_letter_policy.max_delivery_attempts == 100
    assert jobs.retry_policy.minimum_backoff == timedelta(seconds=10)
    assert jobs.enable_exactly_once_delivery
    kept = await describe(embedded_server, "dead-letters")
    assert kept.topic == embedded_server.name("topics", "dead-letters")


async def test_what_exists_is_left_as_it_is(embedded_server: Server) -> None:
    await provision(embedded_server.target, embedded_server.project, PLAN)

    await provision(embedded_server.target, embedded_server.project, SubscriptionPlan(name="jobs-worker", topic="jobs"))

    assert (await describe(embedded_server, "jobs-worker")).enable_exactly_once_delivery


async def describe(server: Server, name: str) -> types.Subscription:
    request = types.GetSubscriptionRequest(subscription=server.name("subscriptions", name))
    return await server.subscriber.get_subscription(request, **ONCE)
