"""Pub/Sub and Cloud Storage on this machine, with the names the worker needs: for `demo`, `emulators` and tests."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.job import URGENT_FILTER
from worker.embedded.gcs import EmbeddedGcs
from worker.embedded.own_thread import in_thread
from worker.embedded.pubsub.provision import SubscriptionPlan, provision
from worker.embedded.pubsub.server import EmbeddedPubSub

PROJECT = "local"
JOBS_TOPIC = "transcription-jobs"
JOBS_SUBSCRIPTION = "transcription-jobs-worker"
JOBS_SUBSCRIPTION_URGENT = "transcription-jobs-urgent"
COMPLETION_TOPIC = "transcription-completions"
COMPLETION_SUBSCRIPTION = "transcription-completions-pipeline"
DEAD_LETTER_TOPIC = "transcription-dead-letters"
AUDIO_BUCKET = "local-audio"
OUTPUT_BUCKET = "local-transcripts"
STATE_BUCKET = "local-worker-state"

PLANS = (
    SubscriptionPlan(
        name=JOBS_SUBSCRIPTION,
        topic=JOBS_TOPIC,
        min_backoff_seconds=1,
        max_backoff_seconds=60,
        dead_letter_topic=DEAD_LETTER_TOPIC,
    ),
    SubscriptionPlan(
        name=JOBS_SUBSCRIPTION_URGENT,
        topic=JOBS_TOPIC,
        min_backoff_seconds=1,
        max_backoff_seconds=60,
        dead_letter_topic=DEAD_LETTER_TOPIC,
        filter=URGENT_FILTER,
    ),
    SubscriptionPlan(name=COMPLETION_SUBSCRIPTION, topic=COMPLETION_TOPIC),
)


@dataclass(frozen=True, kw_only=True)
class LocalCloud:
    """Running servers. `root` is where the objects lie, as files below a folder for each bucket."""

    pubsub_target: str
    storage_url: str
    root: Path
    has_filters: bool = True
    """False for Google's emulator, which ignores the filters of subscriptions."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables of a worker and a publisher on this machine."""
        return {
            "PUBSUB_EMULATOR_HOST": self.pubsub_target,
            "STORAGE_EMULATOR_HOST": self.storage_url,
            "PROJECT_ID": PROJECT,
            "JOBS_TOPIC": JOBS_TOPIC,
            "JOBS_SUBSCRIPTION": JOBS_SUBSCRIPTION,
            "COMPLETION_TOPIC": COMPLETION_TOPIC,
            "COMPLETION_SUBSCRIPTION": COMPLETION_SUBSCRIPTION,
            "DEAD_LETTER_TOPIC": DEAD_LETTER_TOPIC,
            "DEAD_LETTER_SUBSCRIPTION": DEAD_LETTER_TOPIC,
            "AUDIO_BUCKET": AUDIO_BUCKET,
            "OUTPUT_BUCKET": OUTPUT_BUCKET,
            "STATE_BUCKET": STATE_BUCKET,
        }

    @property
    def urgent_environment(self) -> Mapping[str, str]:
        """The same for a worker that takes urgent jobs first, where the server has filters."""
        urgent = {"JOBS_SUBSCRIPTION_URGENT": JOBS_SUBSCRIPTION_URGENT} if self.has_filters else {}
        return {**self.environment, **urgent}


@contextmanager
def local_cloud(
    root: Path, *, pubsub_port: int = 0, storage_port: int = 0, pubsub_host: str | None = None
) -> Iterator[LocalCloud]:
    """Start both servers with topics, subscriptions and buckets; objects below `root` survive, messages do not.

    With `pubsub_host` that server (Google's emulator) takes the place of the embedded Pub/Sub.
    Raises `OSError` or `EmbeddedServerFailed` when a server cannot start.
    """
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as servers:
        target = pubsub_host or servers.enter_context(in_thread(EmbeddedPubSub(port=pubsub_port))).target
        storage = servers.enter_context(EmbeddedGcs(root, storage_port))
        storage.create_buckets([AUDIO_BUCKET, OUTPUT_BUCKET, STATE_BUCKET])
        asyncio.run(provision(target, PROJECT, *PLANS))
        yield LocalCloud(pubsub_target=target, storage_url=storage.url, root=root, has_filters=not pubsub_host)
