"""Limits of decoding ahead, and chunks that are kept when a job fails: above all those paid for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.codes import Method
from schemas.events import CompletedEvent, Flags
from schemas.state import Checkpoint
from tests.support.engines.failing_recognisers import everything, failing_where
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from tests.support.wait import eventually
from worker.adapters.machine.clock import SystemClock
from worker.adapters.memory.audio import MemoryAudioDecoder, MemoryPcmStream
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import MEMORY_FACTS, MemoryRecogniser
from worker.adapters.memory.store import MemoryObjectStore
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.jobs.transcription import ChunkCancelled, Transcription
from worker.core.transcript.planning import Chunk
from worker.errors import EngineFailure, StorageServiceError
from worker.ports import SAMPLE_RATE_HZ, AudioFacts, ObjectFacts, ObjectRef, Pcm

BROKEN = MemoryRecogniser(script=failing_where(everything))
WITHOUT_FALLBACK = {"transcription_config": {"enable_fallback": False}}


def paid_by(cloud: MemoryCloudRecogniser) -> PaidRecogniser:
    return PaidRecogniser(recogniser=cloud, usd_per_minute=0.0045, budget=NoLimit())


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


async def test_a_request_in_flight_when_another_chunk_fails_is_awaited_and_kept(tmp_path: Path) -> None:
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

    assert room.jobs.tools.health.failures_in_a_row == 1


async def test_what_was_paid_for_is_not_paid_for_again_by_a_worker_with_another_model(tmp_path: Path) -> None:
    room, cloud = await interrupted(tmp_path)

    another = MemoryRecogniser(facts=replace(MEMORY_FACTS, model_fingerprint="memory-2"))
    second = JobsRoom(tmp_path, store=room.store, recogniser=another, deepgram=paid_by(cloud))
    await second.attempt(force_method="deepgram").handle(OnlySlot())

    told = second.events[0].transcription_metadata
    assert told.chunks_resumed == 1
    assert len(cloud.answered) == told.chunks_total


class NoOutput(MemoryObjectStore):
    """A store whose output bucket refuses every write until it is mended."""

    mended = False

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        if ref.bucket == "out" and not self.mended:
            raise StorageServiceError("write", ref.uri, "503")
        return await super().write(ref, data, content_type=content_type, if_generation=if_generation)


async def test_a_worker_without_a_key_completes_a_job_whose_chunks_were_all_paid_for(tmp_path: Path) -> None:
    store = NoOutput(SystemClock().now)
    first = JobsRoom(tmp_path, store=store, deepgram=paid_by(MemoryCloudRecogniser()))
    await first.upload(speech(65))
    with pytest.raises(StorageServiceError):
        await first.attempt(force_method="deepgram").handle(OnlySlot())
    store.mended = True

    keyless = JobsRoom(tmp_path, store=store)
    await keyless.attempt().handle(OnlySlot())

    completed = keyless.events[0]
    assert isinstance(completed, CompletedEvent)
    metadata = completed.transcription_metadata
    assert (metadata.method_used, metadata.model_name) == (Method.DEEPGRAM, "deepgram")
    assert metadata.chunks_resumed == metadata.chunks_total


async def test_chunks_of_another_decoder_s_samples_are_not_mixed_in(tmp_path: Path) -> None:
    room, _ = await interrupted(tmp_path)
    kept = [name for name in room.state if name.startswith("checkpoints/")]

    newer = MemoryAudioDecoder(max_seconds=3600, version=2)
    second = JobsRoom(tmp_path, store=room.store, decoder=newer)
    await second.attempt().handle(OnlySlot())

    assert kept
    assert second.events[0].transcription_metadata.chunks_resumed == 0


class SilentTrack(MemoryPcmStream):
    """A stream of a file whose other track is not silent."""

    other_tracks = True  # type: ignore[assignment]


class TwoTracks(MemoryAudioDecoder):
    @asynccontextmanager
    async def decode(self, path: Path, *, channel: int | None = None) -> AsyncIterator[MemoryPcmStream]:  # noqa: ARG002
        yield SilentTrack(path, 3600 * SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)


async def test_the_event_says_that_another_track_is_not_silent(tmp_path: Path) -> None:
    room = JobsRoom(tmp_path, decoder=TwoTracks(max_seconds=3600))
    await room.upload(np.zeros(70 * SAMPLE_RATE_HZ, np.int16))

    await room.attempt().handle(OnlySlot())

    assert room.events[0].flags == Flags(no_speech=True, other_tracks=True)


async def test_chunks_of_another_model_are_transcribed_again(tmp_path: Path) -> None:
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


class Tape:
    """A decoder, and the stream that it gives; counts what was read of it."""

    truncated = other_tracks = False

    def __init__(self, samples: Pcm) -> None:
        self.samples, self.seconds_read = samples, 0

    async def identity(self) -> str:
        return "tape"

    async def probe(self, _path: Path) -> AudioFacts:
        raise AssertionError("a transcription does not probe")

    @asynccontextmanager
    async def decode(self, _path: Path, *, channel: int | None = None) -> AsyncIterator["Tape"]:  # noqa: ARG002
        yield self

    async def __aiter__(self) -> AsyncIterator[Pcm]:
        for start in range(0, len(self.samples), SAMPLE_RATE_HZ):
            yield self.samples[start : start + SAMPLE_RATE_HZ]
            self.seconds_read += 1


async def test_no_chunk_is_decoded_before_there_is_room_for_it() -> None:
    tape, may_answer = Tape(speech(130)), asyncio.Event()

    async def transcribe(chunk: Chunk) -> Checkpoint:
        await may_answer.wait()
        return Checkpoint(
            index=chunk.index,
            start_sample=chunk.start_sample,
            end_sample=chunk.end_sample,
            audio_seconds=20,
            engine="parakeet",
            windows=(),
            engine_seconds=0,
        )

    job = asyncio.create_task(transcription_of(tape, transcribe).run(Path("tape")))
    read_before: list[int] = []

    async def no_more_is_read() -> bool:
        read_before.append(tape.seconds_read)
        return tape.seconds_read >= 20 and read_before[-10:] == [tape.seconds_read] * 10

    await eventually(no_more_is_read)
    may_answer.set()
    finished = await job

    assert read_before[-1] <= 20 + 2
    assert finished.duration_seconds == 130


async def test_a_chunk_whose_task_is_cancelled_fails_the_job_instead_of_losing_its_words() -> None:
    async def transcribe(_chunk: Chunk) -> Checkpoint:
        raise asyncio.CancelledError

    with pytest.raises(ChunkCancelled, match="0 of 8 chunks"):
        await transcription_of(Tape(speech(130)), transcribe).run(Path("tape"))


def transcription_of(decoder: Tape, transcribe: Callable[[Chunk], Awaitable[Checkpoint]]) -> Transcription:
    return Transcription(
        decoder=decoder,
        transcribe=transcribe,
        store=NothingKept(),
        key="key",
        paid_key="paid",
        chunk_seconds=20,
        chunks_in_flight=1,
        on_progress=lambda _: None,
    )


class NothingKept:
    async def load(self, _key: str, _index: int) -> Checkpoint | None:
        return None

    async def save(self, _key: str, _checkpoint: Checkpoint, *, is_last: bool) -> None: ...
