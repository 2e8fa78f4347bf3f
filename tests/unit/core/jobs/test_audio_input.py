from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.job import TranscriptionJob, parse_job
from worker.adapters.memory.store import MemoryObjectStore
from worker.core.jobs.audio_input import AudioIntake
from worker.errors import Deferred, NoRoomForAudio
from worker.ports import ObjectRef

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
