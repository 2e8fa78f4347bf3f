"""Holes that an engine leaves are recognised again, and paid for where it cannot mend them."""

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.events import CompletedEvent, CostEvent, DeepgramCost, Gaps
from schemas.speech import WindowTranscript, Word
from schemas.state import Checkpoint, GapResult
from tests.support.clock import FakeClock
from tests.support.engines.dropping_recogniser import DroppingRecogniser, voices
from tests.support.jobs.harness import PRICES, JobsRoom, OnlySlot
from tests.support.wait import eventually
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import MemoryRecogniser, words_in
from worker.core.costs.bill import bill
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.ladder import Ladder
from worker.core.jobs.mending import affordable
from worker.core.jobs.routing import Route
from worker.core.transcript.merging import WordTimeline
from worker.core.transcript.planning import Chunk, ChunkCutter
from worker.core.transcript.quality import allowance_of, holes
from worker.core.transcript.spelling import raw_word
from worker.errors import EngineFailure, GpuNotAvailable
from worker.ports import SAMPLE_RATE_HZ, Pcm, Recognition, WindowRecogniser

FILES, FILE_SECONDS, JOB_SECONDS, CHUNK_SECONDS = 200, 55, 120, 25
MOST_HOLE_SECONDS = 2.0


def ladder(
    engine: WindowRecogniser, cloud: MemoryCloudRecogniser | None = None, *, may_fall_back: bool = True
) -> Ladder:
    clock = FakeClock()
    paid = PaidRecogniser(recogniser=cloud, usd_per_minute=0.006, budget=NoLimit()) if cloud else None
    return Ladder(
        recogniser=engine,
        paid=paid,
        health=EngineTrust(clock),
        clock=clock,
        route=Route(method="parakeet", reason="a test"),
        may_fall_back=may_fall_back,
        may_use_parakeet=True,
        language="en",
        job_id="job-1",
    )


def chunks_of(audio: Pcm) -> Sequence[Chunk]:
    cutter = ChunkCutter(CHUNK_SECONDS)
    return (*cutter.push(audio), *cutter.finish())


def windows_of(audio: Pcm) -> list[Pcm]:
    return [chunk.samples_of(span) for chunk in chunks_of(audio) for span in chunk.windows]


def dropping(audio: Pcm, seed: int) -> DroppingRecogniser:
    return DroppingRecogniser(seed, windows_of(audio))


async def transcribed(audio: Pcm, rungs: Ladder) -> tuple[tuple[Word, ...], list[Checkpoint]]:
    timeline, finished = WordTimeline(), []
    for chunk in chunks_of(audio):
        finished.append(await rungs.transcribe(chunk))
        timeline.add(finished[-1].windows)
    return timeline.words(), finished


def key_of(word: Word) -> tuple[str, int]:
    return raw_word(word.text), round(word.start_seconds * 50)


def longest_loss(audio: Pcm, words: Sequence[Word]) -> float:
    """Return the seconds of the longest run of words that are missing."""
    found = {key_of(word) for word in words}
    runs = groupby(words_in(audio), key=lambda word: key_of(word) in found)
    losses = [list(run) for is_found, run in runs if not is_found]
    return max((run[-1].end_seconds - run[0].start_seconds for run in losses), default=0.0)


@pytest.mark.campaign
@pytest.mark.parametrize("first", range(0, FILES, 20))
async def test_no_hole_above_two_seconds_is_left_where_a_second_pass_has_the_words(first: int) -> None:
    left, found = [], 0
    for seed in range(first, first + 20):
        audio = voices(FILE_SECONDS, seed)
        words, finished = await transcribed(audio, ladder(dropping(audio, seed)))
        found += sum(chunk.gaps.found for chunk in finished)
        if (loss := longest_loss(audio, words)) > MOST_HOLE_SECONDS:
            left.append((seed, round(loss, 2)))
        keys = [key_of(word) for word in words]
        assert len(keys) == len(set(keys)), f"seed {seed}: a word stands twice"

    assert found > 20
    assert left == []


async def test_words_without_holes_are_not_recognised_again() -> None:
    audio = voices(FILE_SECONDS, 1)
    engine = Counting()

    words, finished = await transcribed(audio, ladder(engine))

    assert longest_loss(audio, words) == 0
    assert engine.windows == sum(len(chunk.windows) for chunk in chunks_of(audio))
    assert all(chunk.gaps == GapResult() for chunk in finished)


class Counting(MemoryRecogniser):
    """The twin, which counts windows."""

    windows = 0

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        self.windows += 1
        return await super().recognise(samples, job_id, keyterms=keyterms, team_id=team_id)


class Deaf(Counting):
    """The twin, which drops the words from 5 to 9 s of its first window in every window, or then raises the error."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._lost: set[str] = set()
        self._error = error

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        heard = await super().recognise(samples, job_id, keyterms=keyterms, team_id=team_id)
        if self.windows == 1:
            self._lost = {raw_word(word.text) for word in heard.words if 5 <= word.start_seconds < 9}
        elif self._error:
            raise self._error
        return replace(heard, words=tuple(word for word in heard.words if raw_word(word.text) not in self._lost))


ONE_WINDOW = voices(20, 3)


async def test_a_hole_that_three_rounds_leave_is_paid_for_alone() -> None:
    engine, cloud = Deaf(), MemoryCloudRecogniser()

    words, (chunk,) = await transcribed(ONE_WINDOW, ladder(engine, cloud))

    assert longest_loss(ONE_WINDOW, words) == 0
    assert engine.windows == 4
    assert (chunk.engine, chunk.fallback_reason) == ("parakeet", None)
    assert (chunk.gaps.found, chunk.gaps.mended, chunk.gaps.left) == (1, 1, 0)
    assert (chunk.gaps.deepgram_requests, len(chunk.gaps.deepgram_request_ids)) == (1, 1)
    assert 5 <= chunk.gaps.deepgram_seconds <= 7
    ((start, end),) = chunk.gaps.deepgram_spans
    assert 4 * SAMPLE_RATE_HZ <= start < end <= 10 * SAMPLE_RATE_HZ


async def test_the_seconds_paid_for_are_on_the_bill() -> None:
    _, finished = await transcribed(ONE_WINDOW, ladder(Deaf(), MemoryCloudRecogniser()))

    cost = bill(finished, 20.0, PRICES)

    seconds = finished[0].gaps.deepgram_seconds
    (deepgram,) = [one for one in cost.engines if isinstance(one, DeepgramCost)]
    assert deepgram.usd == pytest.approx(seconds / 60 * PRICES.deepgram_usd_per_minute, abs=1e-6)
    assert (deepgram.requests, deepgram.request_ids) == (1, finished[0].gaps.deepgram_request_ids)


@pytest.mark.parametrize("case", ["no key", "no fallback", "down"])
async def test_without_deepgram_the_hole_stays_and_the_words_are_kept(case: str) -> None:
    cloud = MemoryCloudRecogniser()
    if case == "down":
        cloud.go_down("status 503")

    _, (chunk,) = await transcribed(
        ONE_WINDOW, ladder(Deaf(), None if case == "no key" else cloud, may_fall_back=case != "no fallback")
    )

    assert chunk.engine == "parakeet"
    assert chunk.windows[0].words
    assert (chunk.gaps.found, chunk.gaps.mended, chunk.gaps.left) == (1, 0, 1)
    assert cloud.answered == []


async def test_an_engine_that_fails_in_a_second_pass_leaves_the_hole() -> None:
    _, (chunk,) = await transcribed(ONE_WINDOW, ladder(Deaf(EngineFailure("parakeet", "it broke"))))

    assert chunk.windows[0].words
    assert (chunk.gaps.found, chunk.gaps.left) == (1, 1)


async def test_a_gpu_that_is_lost_in_a_second_pass_leaves_no_hole_that_another_worker_would_mend() -> None:
    with pytest.raises(GpuNotAvailable):
        await transcribed(ONE_WINDOW, ladder(Deaf(GpuNotAvailable("the GPU fell off the bus"))))


async def test_a_gpu_that_is_lost_in_a_second_pass_costs_the_seconds_of_the_hole_alone() -> None:
    engine, cloud = Deaf(GpuNotAvailable("the GPU fell off the bus")), MemoryCloudRecogniser()

    _, (chunk,) = await transcribed(ONE_WINDOW, ladder(engine, cloud))

    assert chunk.engine == "parakeet"
    assert (chunk.gaps.found, chunk.gaps.left, chunk.gaps.deepgram_requests) == (1, 0, 1)


async def test_the_time_of_second_passes_is_charged() -> None:
    _, (chunk,) = await transcribed(ONE_WINDOW, ladder(Deaf()))
    _, (plain,) = await transcribed(ONE_WINDOW, ladder(MemoryRecogniser()))

    assert plain.engine_seconds < chunk.engine_seconds <= 4 * plain.engine_seconds


def test_second_passes_take_a_bounded_share_of_the_audio() -> None:
    (chunk,) = ChunkCutter(60).push(voices(90, 4))[:1]
    found = holes(chunk, [WindowTranscript(span, ()) for span in chunk.windows])

    passes = affordable(chunk, [*found] * 30, 0, allowance_of(chunk))

    assert 0 < sum(span.end_sample - span.start_sample for _, span in passes) <= 60 * SAMPLE_RATE_HZ


@pytest.mark.parametrize("breaks_after", [4, 6, 8])
@pytest.mark.parametrize("fields", [{}, {"channels": "apart", "keyterms": ["Anna", "the box"]}], ids=["mix", "apart"])
async def test_a_job_that_is_killed_and_resumed_has_the_same_bytes_and_gaps(
    tmp_path: Path, fields: dict[str, Any], breaks_after: int
) -> None:
    left, seconds = voices(JOB_SECONDS, 8), float(CHUNK_SECONDS)
    audio = np.stack([left, voices(JOB_SECONDS, 9)], axis=1) if fields else left
    channels = audio.T if fields else [left]

    def room(**parts: Any) -> JobsRoom:
        engine = DroppingRecogniser(
            8, [one for channel in channels for one in windows_of(np.ascontiguousarray(channel))]
        )
        engine.breaks_after = parts.pop("breaks_after", math.inf)
        return JobsRoom(tmp_path, recogniser=engine, chunk_seconds=seconds, chunks_in_flight=1, **parts)

    quiet, first = room(), room(breaks_after=breaks_after)
    await quiet.upload(audio)
    await quiet.attempt(**fields).handle(OnlySlot())
    await first.upload(audio)
    with pytest.raises(EngineFailure):
        await first.attempt(**fields).handle(OnlySlot())

    second = room(store=first.store)
    await second.attempt(**fields).handle(OnlySlot())

    told, expected = (one.events[0].transcription_metadata for one in (second, quiet))
    assert 0 < told.chunks_resumed < told.chunks_total
    assert told.gaps == expected.gaps
    assert told.gaps.mended > 1
    assert without_created(second) == without_created(quiet)


def without_created(room: JobsRoom) -> dict[str, Any]:
    """Return the artefacts; two uploads of one audio have two times of creation."""
    transcript = json.loads(room.artefacts["vod/audio_vod_transcript.json"])
    del transcript["metadata"]["created"]
    return {**room.artefacts, "vod/audio_vod_transcript.json": transcript}


async def test_the_transcript_says_which_words_are_deepgrams(tmp_path: Path) -> None:
    paid = PaidRecogniser(recogniser=MemoryCloudRecogniser(), usd_per_minute=0.006, budget=NoLimit())
    room = JobsRoom(tmp_path, recogniser=Deaf(), deepgram=paid, chunk_seconds=60.0)
    await room.upload(ONE_WINDOW)

    await room.attempt().handle(OnlySlot())

    transcript = json.loads(room.artefacts["vod/audio_vod_transcript.json"])
    (alternative,) = transcript["results"]["channels"][0]["alternatives"]
    assert [run["engine"] for run in alternative["engines"]] == ["parakeet", "deepgram", "parakeet"]
    assert sum(run["num_words"] for run in alternative["engines"]) == len(alternative["words"])


class DeafTo(MemoryRecogniser):
    """The twin, which has none of the words between these seconds of the audio."""

    def __init__(self, audio: Pcm, *stretches: tuple[float, float]) -> None:
        super().__init__()
        lost = (word for word in words_in(audio) for start, end in stretches if start <= word.start_seconds < end)
        self._lost = {raw_word(word.text) for word in lost}

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        heard = await super().recognise(samples, job_id, keyterms=keyterms, team_id=team_id)
        return replace(heard, words=tuple(word for word in heard.words if raw_word(word.text) not in self._lost))


async def test_a_job_that_is_stopped_between_two_paid_holes_has_the_words_of_both_in_the_end(tmp_path: Path) -> None:
    may_answer = asyncio.Event()
    asked = 0

    async def serve(_samples: Pcm, _job_id: str) -> None:
        nonlocal asked
        asked += 1
        await may_answer.wait()

    async def is_asked() -> bool:
        return asked > 0

    cloud = MemoryCloudRecogniser(script=serve, cancelled_seconds=3.0)
    paid = PaidRecogniser(recogniser=cloud, usd_per_minute=0.006, budget=NoLimit())
    audio = voices(60, 3)
    deaf = DeafTo(audio, (5, 8), (35, 38))
    stopped = JobsRoom(tmp_path, recogniser=deaf, deepgram=paid, chunk_seconds=60.0)
    await stopped.upload(audio)
    job = asyncio.create_task(stopped.attempt().handle(OnlySlot()))
    await eventually(is_asked)

    job.cancel()
    may_answer.set()
    await asyncio.wait({job})
    following = JobsRoom(
        tmp_path, recogniser=deaf, deepgram=paid, chunk_seconds=60.0, store=stopped.store, worker="worker-2"
    )
    await following.attempt().handle(OnlySlot())

    completed, cost = following.events
    assert isinstance(completed, CompletedEvent)
    assert isinstance(cost, CostEvent)
    assert job.cancelled()
    assert completed.transcription_metadata.gaps == Gaps(found=2, mended=2, left=0)
    (deepgram,) = [one for one in cost.engines if isinstance(one, DeepgramCost)]
    assert deepgram.requests == len(cloud.answered)
