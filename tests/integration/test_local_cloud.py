"""Development servers beside a Pub/Sub server that runs already, as Google's emulator does."""

from pathlib import Path

import pytest

from worker.client import own_subscription, submit
from worker.embedded.local_cloud import COMPLETION_TOPIC, JOBS_TOPIC, PROJECT, local_cloud
from worker.embedded.own_thread import in_thread
from worker.embedded.pubsub.server import EmbeddedPubSub


def test_topics_are_made_on_a_server_that_runs_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_thread(EmbeddedPubSub()) as server, local_cloud(tmp_path, pubsub_host=server.target) as cloud:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.target)

        message_id = submit(
            {"job_id": "j", "video_id": "v", "audio_uri": "gs://bucket/a.mp3"}, project_id=PROJECT, topic=JOBS_TOPIC
        )
        with own_subscription(project_id=PROJECT, topic=COMPLETION_TOPIC) as subscription:
            assert subscription

    assert cloud.pubsub_target == server.target
    assert message_id
