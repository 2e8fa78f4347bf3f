"""The Cloud Storage adapter behind a network that refuses, cuts, damages, loses and stalls."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog

from tests.support.services.gcs import store_at
from tests.support.services.http_faults import (
    Fault,
    FaultyProxy,
    Forward,
    answer,
    corrupt_and_cut_body,
    corrupt_body,
    cut_body,
    faulty_proxy,
    lose_end_of_chunked_body,
    lose_reply,
    plainly,
    refuse,
    stall,
    stall_body,
)
from tests.support.wait import eventually
from worker.adapters.gcs import GcsObjectStore
from worker.adapters.gcs.store import SMALL_THREADS, TIMEOUT_SECONDS
from worker.embedded.gcs import EmbeddedGcs
from worker.errors import ObjectForbidden, ObjectNotFound, PreconditionFailed, StorageServiceError
from worker.ports import ObjectFacts, ObjectRef

BUCKET = "fault-tests"
TEXT = "text/plain"
AUDIO = os.urandom(3 << 20)
ATTEMPTS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGcs]:
    with EmbeddedGcs(tmp_path_factory.mktemp("gcs")) as server:
        server.create_buckets([BUCKET])
        yield server


@pytest.fixture
async def proxy(server: EmbeddedGcs) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(server.url) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: FaultyProxy) -> AsyncIterator[GcsObjectStore]:
    async with store_at(proxy.url) as store:
        yield store


@pytest.fixture
async def direct(server: EmbeddedGcs) -> AsyncIterator[GcsObjectStore]:
    async with store_at(server.url) as store:
        yield store


@pytest.fixture
def ref() -> ObjectRef:
    return ObjectRef(BUCKET, uuid4().hex)


@pytest.fixture
async def audio(direct: GcsObjectStore, ref: ObjectRef) -> ObjectFacts:
    return await direct.write(ref, AUDIO, content_type="audio/mpeg")


async def test_a_claim_does_not_wait_behind_checkpoints_stats_and_artefacts_that_stall(
    store: GcsObjectStore, proxy: FaultyProxy, ref: ObjectRef
) -> None:
    proxy.faults.extend([stall] * SMALL_THREADS)
    stalled = [asyncio.create_task(store.write(ref, b"0", content_type=TEXT)) for _ in range(SMALL_THREADS)]
    await eventually(lambda: _are_gone(proxy.faults))

    claim = await asyncio.wait_for(store.for_claims.write(ref, b"1", content_type=TEXT), TIMEOUT_SECONDS[1] / 2)

    assert claim.size_bytes == 1
    assert not any(task.done() for task in stalled)
    for task in stalled:
        task.cancel()
    await asyncio.gather(*stalled, return_exceptions=True)


async def _are_gone(faults: list[Fault]) -> bool:
    return not faults


@pytest.mark.parametrize("status", [408, 410, 429, 500, 503])
async def test_a_service_that_fails_twice_is_asked_a_third_time(
    proxy: FaultyProxy, store: GcsObjectStore, ref: ObjectRef, status: int
) -> None:
    proxy.faults.extend([refuse(status), refuse(status)])

    with structlog.testing.capture_logs() as events:
        await store.write(ref, b"1", content_type=TEXT)

    assert len(proxy.requests) == 3
    assert [(one["event"], one["operation"], one["resource"]) for one in events] == [
        ("gcs.retry", "write", ref.uri),
        ("gcs.retry", "write", ref.uri),
    ]
    assert (await store.read(ref))[0] == b"1"


async def test_a_service_that_keeps_failing_is_given_up(
    proxy: FaultyProxy, store: GcsObjectStore, ref: ObjectRef
) -> None:
    proxy.faults.extend([refuse(503)] * 10)

    with pytest.raises(StorageServiceError, match="503"):
        await store.stat(ref)

    assert len(proxy.requests) == ATTEMPTS


async def test_a_refusal_is_not_repeated(proxy: FaultyProxy, store: GcsObjectStore, ref: ObjectRef) -> None:
    proxy.faults.append(refuse(403))

    with pytest.raises(ObjectForbidden):
        await store.stat(ref)

    assert len(proxy.requests) == 1


async def test_a_service_that_is_not_there_is_a_storage_error(ref: ObjectRef) -> None:
    async with store_at("http://127.0.0.1:1") as store:
        with pytest.raises(StorageServiceError):
            await store.stat(ref)


async def test_a_write_to_a_bucket_that_does_not_exist_is_not_found(store: GcsObjectStore) -> None:
    with pytest.raises(ObjectNotFound):
        await store.write(ObjectRef("no-such-bucket", "a"), b"", content_type=TEXT)


async def test_a_conditional_write_whose_reply_was_lost_succeeds(
    proxy: FaultyProxy, store: GcsObjectStore, ref: ObjectRef
) -> None:
    first = await store.write(ref, b"1", content_type=TEXT)
    proxy.faults.extend([lose_reply, refuse(503)])

    second = await store.write(ref, b"2", content_type=TEXT, if_generation=first.generation)

    assert second == await store.stat(ref)
    assert (await store.read(ref))[0] == b"2"


async def test_a_conditional_write_that_another_writer_overtook_fails(
    proxy: FaultyProxy, store: GcsObjectStore, direct: GcsObjectStore, ref: ObjectRef
) -> None:
    async def lose_to_another(_forward: Forward) -> AsyncIterator[bytes]:
        await direct.write(ref, b"theirs", content_type=TEXT)
        return
        yield

    proxy.faults.append(lose_to_another)

    with pytest.raises(PreconditionFailed):
        await store.write(ref, b"ours", content_type=TEXT, if_generation=0)


async def test_a_delete_whose_reply_was_lost_succeeds(
    proxy: FaultyProxy, store: GcsObjectStore, ref: ObjectRef
) -> None:
    await store.write(ref, b"1", content_type=TEXT)
    proxy.faults.append(lose_reply)

    await store.delete(ref)

    with pytest.raises(ObjectNotFound):
        await store.stat(ref)


async def test_a_download_cut_in_the_middle_goes_on_where_it_stopped(
    proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts, tmp_path: Path
) -> None:
    proxy.faults.extend([cut_body(1 << 20), cut_body(1 << 20)])

    await store.download(audio, tmp_path / "audio")

    assert content(tmp_path / "audio") == AUDIO
    assert [b"range: bytes=" in head.lower() for head in proxy.requests] == [False, True, True]


async def test_a_download_that_broke_after_its_last_byte_asks_for_no_more(
    proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts, tmp_path: Path
) -> None:
    proxy.faults.append(lose_end_of_chunked_body)

    await store.download(audio, tmp_path / "audio")

    assert content(tmp_path / "audio") == AUDIO
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"", b"{}", b"[]", b'"x"', b'{"generation": "a"}'])
async def test_an_answer_that_describes_no_object_is_asked_for_again(
    proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts, body: bytes
) -> None:
    proxy.faults.append(answer(body))

    facts = await store.stat(audio.ref)

    assert facts == audio
    assert len(proxy.requests) == 2


async def test_a_service_that_never_describes_the_object_fails_like_one_that_is_down(
    proxy: FaultyProxy, store: GcsObjectStore, ref: ObjectRef
) -> None:
    proxy.faults.extend([answer(b"{}")] * ATTEMPTS)

    with pytest.raises(StorageServiceError, match="the answer is not one of Cloud Storage"):
        await store.stat(ref)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_list_is_a_refusal_and_no_odd_answer(
    proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts, status: int
) -> None:
    proxy.faults.extend([refuse(status)] * ATTEMPTS)
    with pytest.raises(ObjectForbidden):
        await store.list(audio.ref.bucket, audio.ref.name)

    proxy.faults.clear()
    proxy.faults.extend([refuse(status)] * ATTEMPTS)
    with pytest.raises(ObjectForbidden):
        await store.granted(audio.ref.bucket, ["storage.objects.get"])


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"", b"[]", b'"x"', b'{"items": 5}', b'{"items": ["x"]}'])
async def test_an_answer_that_lists_no_objects_is_asked_for_again(
    proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts, body: bytes
) -> None:
    proxy.faults.extend([answer(body), answer(body)])

    pages = [page async for page in store.pages(audio.ref.bucket, audio.ref.name)]

    assert pages == [(audio,)]
    assert list(await store.list(audio.ref.bucket, audio.ref.name)) == [audio]
    assert len(proxy.requests) == 4


async def test_a_damaged_download_is_noticed_and_begun_again(
    proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts, tmp_path: Path
) -> None:
    proxy.faults.append(corrupt_body)

    await store.download(audio, tmp_path / "audio")

    assert content(tmp_path / "audio") == AUDIO


async def test_damage_before_a_cut_is_noticed_when_the_rest_has_come(
    proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts, tmp_path: Path
) -> None:
    proxy.faults.append(corrupt_and_cut_body)

    await store.download(audio, tmp_path / "audio")

    assert content(tmp_path / "audio") == AUDIO


async def test_a_download_that_stays_damaged_fails_and_leaves_no_file(
    proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts, tmp_path: Path
) -> None:
    proxy.faults.extend([corrupt_body] * ATTEMPTS)

    with pytest.raises(StorageServiceError, match="crc32c"):
        await store.download(audio, tmp_path / "audio")

    assert files(tmp_path) == []


async def test_a_damaged_read_is_repeated(proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts) -> None:
    proxy.faults.extend([plainly, corrupt_body])

    data, facts = await store.read(audio.ref)

    assert (data, facts) == (AUDIO, audio)


async def test_a_cancelled_download_removes_its_file_at_once_and_ends_its_thread(
    proxy: FaultyProxy, store: GcsObjectStore, audio: ObjectFacts, tmp_path: Path
) -> None:
    stalled, resume = asyncio.Event(), asyncio.Event()
    proxy.faults.append(stall_body(1 << 20, stalled, resume))
    download = asyncio.create_task(store.download(audio, tmp_path / "audio"))
    await stalled.wait()

    download.cancel()
    await asyncio.wait([download])
    left = files(tmp_path)
    resume.set()

    assert download.cancelled()
    assert left == []
    await asyncio.to_thread(store._downloads.shutdown, wait=True)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gcs-download")]
    assert files(tmp_path) == []


async def test_a_file_is_uploaded_whole_after_a_failure(
    proxy: FaultyProxy, store: GcsObjectStore, ref: ObjectRef, tmp_path: Path
) -> None:
    (tmp_path / "audio").write_bytes(AUDIO)
    proxy.faults.append(lose_reply)

    facts = await store.upload_file(tmp_path / "audio", ref, "audio/mpeg")

    assert (await store.read(ref)) == (AUDIO, facts)


def content(path: Path) -> bytes:
    return path.read_bytes()


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_credentials_that_are_refused_and_cannot_be_renewed_are_a_refusal(
    proxy: FaultyProxy, store: GcsObjectStore
) -> None:
    proxy.faults.extend([refuse(401)] * 3)

    with pytest.raises(ObjectForbidden) as caught:
        await store.stat(ObjectRef(BUCKET, "o"))

    assert caught.value.refused


async def test_requests_go_through_the_proxy_of_the_environment_unless_no_proxy_names_the_server(
    proxy: FaultyProxy, server: EmbeddedGcs, ref: ObjectRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    proxy.faults.append(refuse(403))

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with store_at(server.url) as store:
        await store.write(ref, b"direct", content_type=TEXT)
    monkeypatch.setenv("NO_PROXY", "")
    async with store_at(server.url) as store:
        with pytest.raises(ObjectForbidden):
            await store.stat(ref)
