import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.job import TranscriptionJob, parse_job
from worker.adapters.memory.store import MemoryObjectStore
from worker.core.jobs.audio_input import AudioIntake
from worker.errors import (
    AudioForbidden,
    AudioNotFound,
    AudioReplaced,
    AudioTooLarge,
    AudioUndecodable,
    Deferred,
    NoRoomForAudio,
    ObjectForbidden,
    ObjectNotFound,
    Retryable,
)
from worker.ports import ObjectFacts, ObjectRef

ROOM_BYTES = 1000


def job_on(name: str) -> TranscriptionJob:
    job, _ = parse_job(f'{{"job_id": "j", "video_id": "v", "audio_uri": "gs://audio/{name}"}}'.encode())
    return job


@pytest.fixture
async def intake(tmp_path: Path) -> AudioIntake:
    store = MemoryObjectStore(lambda: datetime(2026, 11, 22, tzinfo=UTC))
    for size in (400, 600, 601, 5000):
        await store.write(ObjectRef("audio", str(size)), b"." * size, content_type="audio/mpeg")
    return AudioIntake(store, tmp_path, input_buckets=frozenset(), max_bytes=10_000, room_bytes=ROOM_BYTES)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert list(tmp_path.iterdir()) == []


async def test_audio_that_fits_beside_that_of_other_jobs_is_downloaded(intake: AudioIntake) -> None:
    async with intake.fetch(job_on("400")) as first, intake.fetch(job_on("600")) as second:
        assert (first.path.stat().st_size, second.path.stat().st_size) == (400, 600)


async def test_audio_that_does_not_fit_is_left_to_another_worker_until_there_is_room(intake: AudioIntake) -> None:
    async with AsyncExitStack() as others:
        await others.enter_async_context(intake.fetch(job_on("400")))
        with pytest.raises(NoRoomForAudio) as refused:
            async with intake.fetch(job_on("601")):
                pytest.fail("it does not fit")

    assert isinstance(refused.value, Deferred)
    assert (refused.value.size_bytes, refused.value.free_bytes) == (601, 600)
    async with intake.fetch(job_on("601")):
        pass


async def test_one_file_larger_than_the_room_is_taken_when_it_is_alone(intake: AudioIntake) -> None:
    async with intake.fetch(job_on("5000")):
        with pytest.raises(NoRoomForAudio):
            async with intake.fetch(job_on("400")):
                pytest.fail("there is no room beside it")


# --- compressed for the way -------------------------------------------------------------------------------------------

TALK = bytes(range(256)) * 12


async def intake_of(tmp_path: Path, content: bytes, *, max_bytes: int = 10_000) -> AudioIntake:
    store = MemoryObjectStore(lambda: datetime(2026, 11, 22, tzinfo=UTC))
    await store.write(ObjectRef("audio", "talk"), content, content_type="audio/wav")
    return AudioIntake(store, tmp_path, input_buckets=frozenset(), max_bytes=max_bytes)


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(TALK),
        gzip.compress(TALK[:1000]) + gzip.compress(TALK[1000:]),
        gzip.compress(gzip.compress(TALK)),
        gzip.compress(TALK, compresslevel=0),
        gzip.compress(TALK) + bytes(512),
        TALK,
    ],
    ids=["gzip", "two members", "twice", "stored", "padded", "plain"],
)
async def test_audio_is_unpacked_and_its_checksum_is_the_audio_s(tmp_path: Path, packed: bytes) -> None:
    intake = await intake_of(tmp_path, packed)

    async with intake.fetch(job_on("talk")) as audio:
        assert audio.path.read_bytes() == TALK
        assert await audio.sha256 == hashlib.sha256(TALK).hexdigest()
        assert len(list(audio.path.parent.iterdir())) == 1


@pytest.mark.parametrize("layers", [1, 2])
async def test_a_gzip_bomb_is_too_large_before_it_fills_the_disk(tmp_path: Path, layers: int) -> None:
    bomb = bytes(100 << 20)
    for _ in range(layers):
        bomb = gzip.compress(bomb, compresslevel=1)
    intake = await intake_of(tmp_path, bomb, max_bytes=5 << 20)

    with pytest.raises(AudioTooLarge, match="unpacks to at least 8388608 bytes, the limit is 5242880"):
        async with intake.fetch(job_on("talk")):
            pytest.fail("it does not fit")


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:40] + b"?" + data[41:]])
async def test_damaged_gzip_data_is_undecodable(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    intake = await intake_of(tmp_path, damage(gzip.compress(os.urandom(3000))))

    with pytest.raises(AudioUndecodable, match="gzip data, and damaged"):
        async with intake.fetch(job_on("talk")):
            pytest.fail("it is damaged")


async def test_what_is_unpacked_takes_room_as_well(tmp_path: Path) -> None:
    packed = await intake_of(tmp_path, gzip.compress(TALK))
    packed.room_bytes = ROOM_BYTES

    async with packed.fetch(job_on("talk")):
        assert packed.taken_bytes > len(TALK)
    assert packed.taken_bytes == 0


# --- replaced while it is fetched -------------------------------------------------------------------------------------


class Overwritten(MemoryObjectStore):
    """A store in which another writer overwrites the object before each of the next downloads."""

    times = 0

    async def download(self, facts: ObjectFacts, destination: Path) -> None:
        if self.times:
            self.times -= 1
            await self.write(facts.ref, b"newer" * facts.generation, content_type="audio/wav")
        await super().download(facts, destination)


class Refusing(MemoryObjectStore):
    """A store that describes objects and gives none of them."""

    async def download(self, facts: ObjectFacts, destination: Path) -> None:
        raise ObjectForbidden("download", facts.ref.uri, f"KMS key refused for {destination.name}")


async def test_an_object_that_was_replaced_is_looked_at_once_more(tmp_path: Path) -> None:
    store = Overwritten(lambda: datetime(2026, 11, 22, tzinfo=UTC))
    await store.write(ObjectRef("audio", "talk"), b"older", content_type="audio/wav")
    store.times = 1
    intake = AudioIntake(store, tmp_path, input_buckets=frozenset(), max_bytes=10_000)

    async with intake.fetch(job_on("talk")) as audio:
        assert audio.path.read_bytes() == b"newer"
        assert audio.facts.generation == 2


async def test_an_object_that_is_replaced_at_every_look_is_tried_again_later(tmp_path: Path) -> None:
    store = Overwritten(lambda: datetime(2026, 11, 22, tzinfo=UTC))
    await store.write(ObjectRef("audio", "talk"), b"older", content_type="audio/wav")
    store.times = 100
    intake = AudioIntake(store, tmp_path, input_buckets=frozenset(), max_bytes=10_000)

    with pytest.raises(AudioReplaced) as raised:
        async with intake.fetch(job_on("talk")):
            pytest.fail("it was replaced")

    assert isinstance(raised.value, Retryable)
    assert store.times == 98
    assert intake.taken_bytes == 0


async def test_a_pinned_generation_that_is_gone_stays_gone(tmp_path: Path) -> None:
    store = Overwritten(lambda: datetime(2026, 11, 22, tzinfo=UTC))
    facts = await store.write(ObjectRef("audio", "talk"), b"older", content_type="audio/wav")
    store.times = 1
    intake = AudioIntake(store, tmp_path, input_buckets=frozenset(), max_bytes=10_000)
    pinned = job_on("talk").model_copy(update={"audio_generation": facts.generation})

    with pytest.raises(ObjectNotFound) as caught:
        async with intake.fetch(pinned):
            pytest.fail("it is gone")
    assert isinstance(caught.value.verdict(), AudioNotFound)


async def test_google_s_reason_for_a_refusal_is_kept(tmp_path: Path) -> None:
    store = Refusing(lambda: datetime(2026, 11, 22, tzinfo=UTC))
    await store.write(ObjectRef("audio", "talk"), b"older", content_type="audio/wav")
    intake = AudioIntake(store, tmp_path, input_buckets=frozenset(), max_bytes=10_000)

    with pytest.raises(ObjectForbidden) as caught:
        async with intake.fetch(job_on("talk")):
            pytest.fail("it is refused")
    verdict = caught.value.verdict()
    assert isinstance(verdict, AudioForbidden)
    assert "may not read gs://audio/talk: KMS key refused" in str(verdict)
