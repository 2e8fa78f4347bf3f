"""The parts of this worker that jobs need, and their probes: for the fuse's self-test, preflight, `check` and health.

A probe does what a job does with the part, and sends the built-in sample through the decoder and Parakeet. Deepgram is
never probed: that costs money.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from worker.app.cloud import Cloud
from worker.core.delivery.fitness import DECODER, MACHINE, TEMP_DIR, Need, Part
from worker.errors import MachineFault, ObjectForbidden, ObjectNotFound
from worker.ports import ObjectRef, ObjectStore
from worker.settings import CloudSettings

PROBE_BYTES = 1 << 20
"""Less than nearly all audio has."""
PROBE_FILES = 16
"""Descriptors; one job needs about as many."""
PROBE_NAME = ".klipstream-worker-check"
ENGINE_PROBE_SECONDS = 300.0
"""On a CPU with a cold model the sample takes minutes."""
GET_OBJECT = "storage.objects.get"


def worker_parts(cloud: Cloud, folder: Path) -> Iterator[Part]:
    """Yield the parts that are there before the engines."""
    yield from machine_parts(folder)
    yield from cloud_parts(cloud)


def cloud_parts(cloud: Cloud) -> Iterator[Part]:
    """Yield the buckets and topics that the settings name."""
    yield from bucket_parts(cloud.names, cloud.store.impatient())
    for variable, name in (
        ("COMPLETION_TOPIC", cloud.names.completion_topic),
        ("DEAD_LETTER_TOPIC", cloud.names.dead_letter_topic),
    ):
        topic = cloud.pubsub.topic(name)
        yield Part(name=f"{variable} {name}", resource=topic.path, probe=topic.verify)


def bucket_parts(names: CloudSettings, store: ObjectStore) -> Iterator[Part]:
    """Yield a part a bucket, those first that every job needs; one that several settings name is tested for all."""
    own = {"OUTPUT_BUCKET": names.output_bucket, "STATE_BUCKET": names.state_bucket}
    for bucket in dict.fromkeys(filter(None, own.values())):
        variables = " and ".join(name for name, value in own.items() if value == bucket)
        yield _bucket_part(f"{variables} gs://{bucket}", bucket, partial(writes, store, bucket), Need.EVERY_JOB)
    for bucket in sorted(names.writable_buckets - set(own.values())):
        yield _bucket_part(f"OUTPUT_BUCKETS gs://{bucket}", bucket, partial(writes, store, bucket), Need.SOME_JOBS)
    for bucket in sorted(names.input_buckets - set(own.values()) - names.writable_buckets):
        yield audio_part(store, bucket)


def audio_part(store: ObjectStore, bucket: str, *, is_learned: bool = False) -> Part:
    """Return the part for a bucket that audio is read from; a learned one is named by no setting."""
    part = _bucket_part(f"audio bucket gs://{bucket}", bucket, partial(reads, store, bucket), Need.SOME_JOBS)
    return replace(part, is_learned=is_learned)


def machine_parts(folder: Path) -> Iterator[Part]:
    """Yield what jobs need of the operating system; `folder` is the worker's own below TEMP_DIR."""
    disk = partial(asyncio.to_thread, takes_files, folder)
    yield Part(name="TEMP_DIR", resource=TEMP_DIR, probe=disk, remote=False)
    yield Part(name="machine", resource=MACHINE, probe=partial(asyncio.to_thread, has_descriptors), remote=False)


def decoder_part(probe: Callable[[], Awaitable[None]]) -> Part:
    """Return the part that turns audio into samples."""
    return Part(name="decoder", resource=DECODER, probe=probe, remote=False)


def engine_part(probe: Callable[[], Awaitable[None]]) -> Part:
    """Return the part that recognises words; whether jobs can do without it is for `Readiness` to say."""
    limit = ENGINE_PROBE_SECONDS
    return Part(name="engine", resource="engine", probe=probe, need=Need.OPTIONAL, remote=False, limit_seconds=limit)


async def writes(store: ObjectStore, bucket: str) -> None:
    """Write, read and delete an object. Raises what the store raises.

    All workers use one name, so that what a killed one left is removed by the next; another worker's probe may remove
    the object at any moment.
    """
    ref = ObjectRef(bucket, PROBE_NAME)
    await store.write(ref, b"may be deleted at any time\n", content_type="text/plain")
    with suppress(ObjectNotFound):
        await store.read(ref)
    await store.delete(ref)


async def reads(store: ObjectStore, bucket: str) -> None:
    """Return where objects of the bucket may be read. Raises `ObjectForbidden`, `ObjectNotFound` for a missing bucket.

    Looks for an absent object: a server that may give objects says that it is not there. Where listing is not granted
    Cloud Storage refuses instead; then the granted permissions decide.
    """
    granted = await store.granted(bucket, [GET_OBJECT])
    if granted is not None and GET_OBJECT not in granted:
        raise ObjectForbidden("read", f"gs://{bucket}", f"{GET_OBJECT} is not granted")
    try:
        await store.stat(ObjectRef(bucket, f"{PROBE_NAME}-absent"))
    except ObjectNotFound:
        await _exists(store, bucket, may_list=granted is None)
    except ObjectForbidden:
        if granted is None:
            raise


async def _exists(store: ObjectStore, bucket: str, *, may_list: bool) -> None:
    try:
        await store.list(bucket, PROBE_NAME)
    except ObjectForbidden:
        if may_list:
            raise


def takes_files(folder: Path) -> None:
    """Write `PROBE_BYTES` to a file of the folder and remove it. Raises `OSError`.

    Raises `MachineFault` for a folder that was removed, which is made again, so that the next probe passes.
    """
    path = folder / f"probe-{uuid4().hex}"
    try:
        with path.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError as exc:
        folder.mkdir(mode=0o700)
        raise MachineFault("TEMP_DIR", f"{folder} had been removed, and was made again") from exc
    finally:
        path.unlink(missing_ok=True)


def has_descriptors() -> None:
    """Open `PROBE_FILES` descriptors and close them. Raises `OSError`, `MemoryError`."""
    opened: list[int] = []
    try:
        for _ in range(PROBE_FILES // 2):
            opened += os.pipe()
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _bucket_part(name: str, bucket: str, probe: Callable[[], Awaitable[None]], need: Need) -> Part:
    return Part(name=name, resource=f"gs://{bucket}", probe=probe, need=need)
