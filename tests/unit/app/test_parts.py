"""Probes of parts, on the in-memory store and on files."""

import os
import resource
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.services.faulty import REFUSALS, STORAGE_FAULTS, FaultyStore
from worker.app.parts import PROBE_NAME, bucket_parts, has_descriptors, reads, takes_files, writes
from worker.core.delivery.fitness import Need
from worker.errors import MachineFault, ObjectForbidden, ObjectNotFound, StorageServiceError
from worker.ports import ObjectRef
from worker.settings import CloudSettings


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(lambda: datetime(2026, 11, 22, tzinfo=UTC))


async def test_a_bucket_that_takes_objects_passes_and_keeps_nothing(store: FaultyStore) -> None:
    await writes(store, "out")

    assert store._objects == {}


@pytest.mark.parametrize("fault", STORAGE_FAULTS)
@pytest.mark.parametrize("probe", [reads, writes])
async def test_a_bucket_that_fails_or_refuses_fails_the_probe(store: FaultyStore, fault: str, probe: Any) -> None:
    store.faults["b"] = fault

    with pytest.raises((ObjectForbidden, ObjectNotFound, StorageServiceError)) as caught:
        await probe(store, "b")

    assert caught.value.refused == (fault in REFUSALS)


async def test_a_bucket_that_may_be_read_but_not_listed_passes_where_the_permission_is_granted(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def granted(_bucket: str, permissions: list[str]) -> frozenset[str]:
        return frozenset(permissions)

    monkeypatch.setattr(store, "granted", granted)
    store.faults["audio"] = "403"  # of objects that are not there, and of lists

    await reads(store, "audio")


async def test_a_bucket_whose_permission_is_not_granted_is_refused_without_a_try(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def granted(_bucket: str, _permissions: list[str]) -> frozenset[str]:
        return frozenset()

    monkeypatch.setattr(store, "granted", granted)

    with pytest.raises(ObjectForbidden, match=r"storage.objects.get is not granted"):
        await reads(store, "audio")
    assert store.calls == []


def test_one_bucket_of_several_settings_is_one_part(store: FaultyStore) -> None:
    names = CloudSettings(
        output_bucket="one",
        state_bucket="one",
        output_buckets=frozenset({"one", "two"}),
        input_buckets=frozenset({"one", "three"}),
    )

    parts = list(bucket_parts(names, store))

    assert [(part.name, part.need) for part in parts] == [
        ("OUTPUT_BUCKET and STATE_BUCKET gs://one", Need.EVERY_JOB),
        ("OUTPUT_BUCKETS gs://two", Need.SOME_JOBS),
        ("audio bucket gs://three", Need.SOME_JOBS),
    ]


async def test_what_a_killed_workers_probe_left_is_removed_by_the_next(store: FaultyStore) -> None:
    await store.write(ObjectRef("out", PROBE_NAME), b"left behind", content_type="text/plain")

    await writes(store, "out")

    assert store._objects == {}


async def test_a_probe_of_a_written_object_does_not_disturb_the_others(store: FaultyStore) -> None:
    await store.write(ObjectRef("out", "kept"), b"x", content_type="text/plain")

    await writes(store, "out")

    assert [ref.name for ref in store._objects] == ["kept"]


def test_a_folder_that_takes_files_is_left_as_it_was(tmp_path: Path) -> None:
    takes_files(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_removed_is_made_again_and_fails_once(tmp_path: Path) -> None:
    folder = tmp_path / "own"

    with pytest.raises(MachineFault, match="made again"):
        takes_files(folder)
    takes_files(folder)

    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_parent_that_was_removed_stays_away(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        takes_files(tmp_path / "gone" / "own")


def test_a_process_without_descriptors_left_fails_and_leaks_none() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of numbers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 4, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            has_descriptors()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    has_descriptors()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
