"""What Google Cloud must hold: the subscription, the topics and the buckets."""

from collections.abc import AsyncIterator, Awaitable, Callable

from worker.adapters.gcs import GcsObjectStore
from worker.adapters.pubsub import PubSub
from worker.errors import ObjectForbidden, ObjectNotFound, QueueServiceError, SubscriptionNotFound, WorkerError
from worker.ports import ObjectRef
from worker.preflight.finding import Finding, with_action
from worker.settings import Settings

# A pull that was cut off may have taken messages; they come back after this.
LONGEST_ACK_DEADLINE_SECONDS = 60


async def cloud_findings(settings: Settings, pubsub: PubSub, store: GcsObjectStore) -> AsyncIterator[Finding]:
    """Whether what the settings name exists and may be used as the worker uses it."""
    async for finding in _subscription(settings, pubsub):
        yield finding
    for name in (settings.completion_topic, settings.dead_letter_topic):
        yield await _found(f"topic {name}", pubsub.topic(name).verify)
    for variable, bucket in (("OUTPUT_BUCKET", settings.output_bucket), ("STATE_BUCKET", settings.state_bucket)):
        yield await _bucket(variable, bucket, store)


async def _subscription(settings: Settings, pubsub: PubSub) -> AsyncIterator[Finding]:
    name = f"subscription {settings.jobs_subscription}"
    try:
        facts = await pubsub.subscription(settings.jobs_subscription).facts()
    except (SubscriptionNotFound, QueueServiceError) as exc:
        yield Finding(name=name, ok=False, detail=with_action(exc))
        return
    deadline, exactly_once = facts.ack_deadline_seconds, "on" if facts.exactly_once else "off"
    yield Finding(name=name, ok=True, detail=f"ack deadline {deadline} s, exactly-once {exactly_once}")
    if deadline > LONGEST_ACK_DEADLINE_SECONDS:
        detail = (
            f"the ack deadline of {deadline} s delays redelivery: at most {LONGEST_ACK_DEADLINE_SECONDS} s is better"
        )
        yield Finding(name=name, ok=True, advice=True, detail=detail)
    if facts.dead_letter_topic is None:
        detail = "no dead-letter policy: a message that kills every worker would be delivered for ever"
        yield Finding(name=name, ok=True, advice=True, detail=detail)


async def _bucket(variable: str, bucket: str, store: GcsObjectStore) -> Finding:
    name = f"bucket {bucket or variable}"
    if not bucket:
        return Finding(name=name, ok=False, detail=f"{variable} is not set")
    return await _found(name, lambda: _touch(store, ObjectRef(bucket, ".klipstream-worker-check")))


async def _touch(store: GcsObjectStore, ref: ObjectRef) -> None:
    await store.write(ref, b"may be deleted at any time\n", content_type="text/plain")
    await store.delete(ref)


async def _found(name: str, check: Callable[[], Awaitable[object]]) -> Finding:
    try:
        await check()
    except ObjectNotFound as exc:
        return Finding(name=name, ok=False, detail=f"{exc}: create the bucket, or correct the setting that names it")
    except ObjectForbidden as exc:
        return Finding(name=name, ok=False, detail=f"{exc}: grant the worker's account roles/storage.objectUser")
    except WorkerError as exc:
        return Finding(name=name, ok=False, detail=with_action(exc))
    return Finding(name=name, ok=True, detail="ok")
