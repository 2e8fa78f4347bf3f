"""What is kept of a job that fails: the chunks that were paid for above all."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.engines import everything, failing_where
from tests.support.jobs import JobsRoom, OnlySlot, speech
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import MEMORY_FACTS, MemoryRecogniser
from worker.core.jobs.budget import NoLimit
from worker.core.jobs.ladder import Deepgram
from worker.errors import EngineFailure
from worker.ports import SAMPLE_RATE_HZ, Pcm

BROKEN = MemoryRecogniser(script=failing_where(everything))
WITHOUT_FALLBACK = {"transcription_config": {"enable_fallback": False}}


def paid_by(cloud: MemoryCloudRecogniser) -> Deepgram:
    return Deepgram(recogniser=cloud, usd_per_minute=0.0045, budget=NoLimit())


async def interrupted(folder: Path) -> tuple[JobsRoom, MemoryCloudRecogniser]:
    """A hybrid job whose first chunk fails while the second has been sent to Deepgram and not been answered."""
    sent, may_answer = asyncio.Event(), asyncio.Event()

    async def answer_late(_samples: Pcm, _job_id: str) -> None:
        sent.set()
        await may_answer.wait()

    async def fail_then(_samples: Pcm, _job_id: str) -> None:
        await sent.wait()
        asyncio.get_running_loop().call_soon(may_answer.set)
        raise EngineFailure("parakeet", "it broke")

    cloud = MemoryCloudRecogniser(script=answer_late)
    room = JobsRoom(folder, recogniser=MemoryRecogniser(script=fail_then), deepgram=paid_by(cloud))
    await room.upload(speech(100))
    with pytest.raises(EngineFailure):
        await room.attempt(force_method="hybrid", **WITHOUT_FALLBACK).handle(OnlySlot())
    return room, cloud


async def test_a_request_under_way_when_another_chunk_fails_is_awaited_and_kept(tmp_path: Path) -> None:
    room, cloud = await interrupted(tmp_path)
    paid_before = len(cloud.answered)

    healed = JobsRoom(tmp_path, store=room.store, deepgram=paid_by(cloud))
    await healed.attempt(force_method="hybrid").handle(OnlySlot())

    told = healed.events[0].transcription_metadata
    assert paid_before == told.chunks_resumed == 1
    assert len(cloud.answered) == told.chunks_total // 2


async def test_after_a_failure_no_further_chunk_is_begun(tmp_path: Path) -> None:
    room = JobsRoom(tmp_path, recogniser=BROKEN, chunks_in_flight=1)
    await room.upload(speech(130))

    with pytest.raises(EngineFailure):
        await room.attempt().handle(OnlySlot())

    assert room.jobs._tools.health.facts.failures_in_a_row == 1


async def test_what_was_paid_for_is_not_paid_for_again_by_a_worker_with_another_model(tmp_path: Path) -> None:
    room, cloud = await interrupted(tmp_path)

    another = MemoryRecogniser(facts=replace(MEMORY_FACTS, model_fingerprint="memory-2"))
    second = JobsRoom(tmp_path, store=room.store, recogniser=another, deepgram=paid_by(cloud))
    await second.attempt(force_method="deepgram").handle(OnlySlot())

    told = second.events[0].transcription_metadata
    assert told.chunks_resumed == 1
    assert len(cloud.answered) == told.chunks_total


async def test_what_another_model_heard_is_heard_again(tmp_path: Path) -> None:
    fails_late = MemoryRecogniser(script=failing_where(lambda samples: len(samples) < 15 * SAMPLE_RATE_HZ))
    first = JobsRoom(tmp_path, chunks_in_flight=1, recogniser=fails_late)
    await first.upload(speech(100))
    with pytest.raises(EngineFailure):
        await first.attempt().handle(OnlySlot())
    kept = [name for name in first.state if name.startswith("checkpoints/")]

    another = MemoryRecogniser(facts=replace(MEMORY_FACTS, model_fingerprint="memory-2"))
    second = JobsRoom(tmp_path, store=first.store, recogniser=another)
    await second.attempt().handle(OnlySlot())

    assert kept
    assert second.events[0].transcription_metadata.chunks_resumed == 0
