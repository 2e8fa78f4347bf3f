"""Channels apart: each channel its own words, checkpoints and costs; a mix as it always was."""

import asyncio
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.events import CompletedEvent, CostEvent, FailedEvent
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from tests.support.wait import eventually
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.errors import AudioUndecodable, EngineFailure
from worker.ports import Pcm

WORDS, TRANSCRIPT = "vod/audio_vod_words.csv", "vod/audio_vod_transcript.json"
APART = {"channels": "apart"}


def interview(seconds: float = 65) -> Pcm:
    """Two voices of which the second is half a minute silent."""
    second = speech(seconds, seed=2)
    second[: round(seconds / 2) * 16_000] = 0
    return np.stack([speech(seconds, seed=1), second], axis=1)


async def done(room: JobsRoom, samples: Pcm | None = None, **fields: Any) -> JobsRoom:
    if samples is not None:
        await room.upload(samples)
    await room.attempt(**fields).handle(OnlySlot())
    return room


def transcript(room: JobsRoom) -> Any:
    return json.loads(room.artefacts[TRANSCRIPT])


def spoken(room: JobsRoom) -> list[list[str]]:
    """The words of each channel."""
    channels = transcript(room)["results"]["channels"]
    return [[word["word"] for word in channel["alternatives"][0]["words"]] for channel in channels]


async def test_each_channel_has_its_own_entry_with_the_words_of_that_channel_alone(tmp_path: Path) -> None:
    samples = interview()
    room = await done(JobsRoom(tmp_path), samples, **APART)

    for number, words in enumerate(spoken(room)):
        alone = await done(JobsRoom(tmp_path), np.ascontiguousarray(samples[:, number]))
        assert words == spoken(alone)[0] != []
    assert transcript(room)["metadata"]["channels"] == 2
    assert transcript(room)["metadata"]["duration"] == 65


async def test_the_tables_have_the_words_of_all_channels_by_time(tmp_path: Path) -> None:
    room = await done(JobsRoom(tmp_path), interview(), **APART)

    rows = list(csv.DictReader(io.StringIO(room.artefacts[WORDS].decode())))
    starts = [float(row["start_time"]) for row in rows]
    assert sorted(row["word"] for row in rows) == sorted(word for channel in spoken(room) for word in channel)
    assert starts == sorted(set(starts))


async def test_mono_audio_apart_is_the_same_as_its_mix(tmp_path: Path) -> None:
    mix = await done(JobsRoom(tmp_path), speech(65))
    apart = await done(JobsRoom(tmp_path), speech(65), **APART)

    assert {name: data for name, data in apart.artefacts.items() if name != TRANSCRIPT} == {
        name: data for name, data in mix.artefacts.items() if name != TRANSCRIPT
    }
    assert transcript(apart)["results"] == transcript(mix)["results"]


async def test_every_channel_counts_in_the_bill_and_in_the_baseline(tmp_path: Path) -> None:
    mono = await done(JobsRoom(tmp_path), speech(65))
    apart = await done(JobsRoom(tmp_path), np.stack([speech(65), speech(65)], axis=1), **APART)

    (completed, cost), (_, one) = apart.events, mono.events
    assert isinstance(completed, CompletedEvent)
    assert isinstance(cost, CostEvent)
    assert isinstance(one, CostEvent)
    assert completed.transcription_metadata.audio_duration_seconds == 65
    assert cost.audio_seconds == 2 * one.audio_seconds == 130
    assert cost.usd_total == pytest.approx(2 * one.usd_total)
    assert cost.baseline.usd == pytest.approx(2 * one.baseline.usd)
    assert one.channels == ()
    assert [(channel.channel, channel.audio_seconds, channel.deepgram_seconds) for channel in cost.channels] == [
        (0, 65, 0),
        (1, 65, 0),
    ]
    assert sum(channel.usd for channel in cost.channels) == pytest.approx(cost.usd_total)


async def test_a_failed_job_has_the_duration_of_its_audio_and_not_the_sum_of_its_channels(tmp_path: Path) -> None:
    seen = 0

    async def break_late(_samples: Pcm, _job_id: str) -> None:
        nonlocal seen
        seen += 1
        if seen > 6:
            raise EngineFailure("parakeet", "its process ended")

    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=break_late), chunks_in_flight=1)
    await room.upload(np.stack([speech(65), speech(65, seed=3)], axis=1))
    attempt = room.attempt(**APART)
    with pytest.raises(EngineFailure) as caught:
        await attempt.handle(OnlySlot())

    await attempt.give_up(caught.value, 1)

    failed, cost = room.events
    assert isinstance(failed, FailedEvent)
    assert isinstance(cost, CostEvent)
    assert failed.transcription_metadata.audio_duration_seconds == 65
    assert 65 < cost.audio_seconds < 130


async def test_deepgram_gets_one_request_a_chunk_of_a_channel(tmp_path: Path) -> None:
    cloud = MemoryCloudRecogniser()
    paid = PaidRecogniser(recogniser=cloud, usd_per_minute=0.0045, budget=NoLimit())
    room = await done(
        JobsRoom(tmp_path, deepgram=paid),
        np.stack([speech(65), speech(65, seed=3)], axis=1),
        force_method="deepgram",
        **APART,
    )

    told, (deepgram,) = room.events[0].transcription_metadata, room.events[1].engines
    assert len(cloud.answered) == told.chunks_total == deepgram.requests
    assert deepgram.audio_seconds == pytest.approx(130)
    assert deepgram.usd == pytest.approx(130 / 60 * 0.0045)
    assert [channel.deepgram_seconds for channel in room.events[1].channels] == pytest.approx([65, 65])


@pytest.mark.parametrize("windows", [1, 5, 9])
async def test_a_job_that_is_resumed_by_another_worker_has_the_same_bytes(tmp_path: Path, windows: int) -> None:
    quiet = await done(JobsRoom(tmp_path), interview(130), **APART)
    seen = 0

    async def stall(_samples: Pcm, _job_id: str) -> None:
        nonlocal seen
        seen += 1
        if seen > windows:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    first = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=stall))
    await first.upload(interview(130))
    killed = asyncio.create_task(first.attempt(**APART).handle(OnlySlot()))
    await eventually(lambda: _is(seen > windows))
    killed.cancel()
    await asyncio.wait([killed])

    second = await done(JobsRoom(tmp_path, store=first.store, worker="worker-2"), **APART)

    assert second.events[0].transcription_metadata.chunks_resumed >= windows - 2
    assert _without_created(second) == _without_created(quiet)


async def _is(condition: bool) -> bool:
    return condition


def _without_created(room: JobsRoom) -> dict[str, Any]:
    """The artefacts; two uploads of one audio have two times of creation."""
    document = transcript(room)
    del document["metadata"]["created"]
    return {**room.artefacts, TRANSCRIPT: document}


async def test_more_channels_than_eight_are_refused_with_the_field_the_value_and_what_is_right(tmp_path: Path) -> None:
    room = JobsRoom(tmp_path)
    await room.upload(np.stack([speech(3)] * 9, axis=1))

    with pytest.raises(
        AudioUndecodable, match=r"channels: must be 'mix' .* more than 8 channels; it is 'apart'.* has 9"
    ):
        await room.attempt(**APART).handle(OnlySlot())


async def test_a_keyterm_that_one_channel_says_while_another_speaks_counts_as_found(tmp_path: Path) -> None:
    room = await done(JobsRoom(tmp_path), np.stack([speech(20), np.roll(speech(20), 4000)], axis=1), **APART)
    first, second = spoken(room)[0][:2]

    again = JobsRoom(tmp_path)
    await done(
        again, np.stack([speech(20), np.roll(speech(20), 4000)], axis=1), keyterms=[f"{first} {second}"], **APART
    )

    assert again.events[0].transcription_metadata.keyterms_found == (f"{first} {second}",)
