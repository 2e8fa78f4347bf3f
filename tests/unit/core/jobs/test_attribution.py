from pathlib import Path

import pytest

from schemas.events import CompletedEvent, CostEvent, FailedEvent
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from worker.core.jobs.routing import RoutingPolicy, in_rollout
from worker.errors import InvalidJob

VIDEOS = [f"vod-{number}" for number in range(40)]


async def test_the_cost_of_a_job_names_the_revision_the_group_of_the_roll_out_and_how_it_went(tmp_path: Path) -> None:
    room = JobsRoom(tmp_path, revision="pool-00007-abc", worker="pool-00007-abc/1f2e-1")
    await room.upload(speech(65))

    await room.attempt().handle(OnlySlot())

    completed, cost = room.events
    assert isinstance(completed, CompletedEvent)
    assert isinstance(cost, CostEvent)
    assert completed.transcription_metadata.worker == "pool-00007-abc/1f2e-1"
    assert (cost.revision, cost.rollout_group) == ("pool-00007-abc", "parakeet")
    assert (cost.chunks_total, cost.chunks_fallback) == (completed.transcription_metadata.chunks_total, 0)
    assert cost.processing_time_seconds is not None
    assert 0 < cost.processing_time_seconds <= 60


@pytest.mark.parametrize("inside", [True, False])
async def test_the_group_is_that_of_the_video_whatever_engine_did_the_job(inside: bool, tmp_path: Path) -> None:
    video = next(name for name in VIDEOS if in_rollout(name, 50) is inside)
    room = JobsRoom(tmp_path, routing=RoutingPolicy(rollout_percent=50))
    await room.upload(speech(65))

    await room.attempt(video_id=video, force_method="parakeet").handle(OnlySlot())

    (cost,) = [event for event in room.events if isinstance(event, CostEvent)]
    assert cost.rollout_group == ("parakeet" if inside else "deepgram")


async def test_a_message_that_was_no_job_belongs_to_no_group(tmp_path: Path) -> None:
    room = JobsRoom(tmp_path, revision="r-1")
    attempt = room.attempt(data=b"{}")
    with pytest.raises(InvalidJob) as caught:
        await attempt.handle(OnlySlot())

    await attempt.give_up(caught.value, 1)

    failed, cost = room.events
    assert isinstance(failed, FailedEvent)
    assert isinstance(cost, CostEvent)
    assert (cost.revision, cost.rollout_group, cost.chunks_total) == ("r-1", None, 0)
