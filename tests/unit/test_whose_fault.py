"""The matrix: every failure that an adapter or the operating system can raise, and what becomes of job and worker."""

import inspect
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import worker.errors
from tests.support.services.faulty import REFUSALS, STORAGE_FAULTS, os_error
from tests.support.workers.twin_worker import TwinWorker, twin_worker
from worker.core.delivery.consumer import HandlerCancelled
from worker.core.delivery.lease import LeaseLost
from worker.errors import Deferred, Fatal, JobFault, Retryable, ServiceDown, Undiagnosed, WorkerError, WorkerFault

POLICIES = (JobFault, Retryable, WorkerFault, ServiceDown, Deferred, Fatal, Undiagnosed)
MIXINS = (worker.errors.PaidServiceError, worker.errors.EngineError)
ERRORS = [
    error
    for _, error in inspect.getmembers(worker.errors, inspect.isclass)
    if issubclass(error, WorkerError) and error not in {WorkerError, *MIXINS}
]


@pytest.mark.parametrize("error", [*ERRORS, LeaseLost, HandlerCancelled], ids=lambda error: error.__name__)
def test_every_error_belongs_to_exactly_one_class_of_the_policy(error: type[WorkerError]) -> None:
    assert sum(issubclass(error, policy) for policy in POLICIES) == 1


OWN_RESOURCES = ("audio bucket", "output bucket", "state bucket", "completion topic", "dead-letter topic")
MACHINE_FAULTS = ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "MemoryError")


def break_(w: TwinWorker, resource: str, fault: str | None) -> str:
    """Set or unset a fault; return what health must name while it is there."""
    match resource:
        case "audio bucket" | "output bucket" | "state bucket":
            bucket = {"audio bucket": "audio", "output bucket": "out", "state bucket": "state"}[resource]
            if fault is None:
                w.store.faults.pop(bucket)
            else:
                w.store.faults[bucket] = fault
            return f"gs://{bucket}"
        case "completion topic":
            w.completions.fault = fault
            return "completions"
        case "dead-letter topic":
            w.dead_letters.fault = fault
            return "dead-letters"
    raise AssertionError(resource)


@pytest.mark.parametrize("fault", STORAGE_FAULTS)
@pytest.mark.parametrize("resource", OWN_RESOURCES)
async def test_a_resource_of_the_worker_that_fails_harms_no_job(resource: str, fault: str, tmp_path: Path) -> None:
    async with twin_worker(tmp_path) as w:
        with capture_logs() as log:
            named = break_(w, resource, fault)
            bad = {"audio_uri": "gs://audio/none.pcm"} if resource == "dead-letter topic" else {}
            w.publish("job-1", **bad)
            w.publish("job-2")
            # An outage of a bucket that only some jobs read from makes these wait; everything else stops the intake.
            waits_only = resource == "audio bucket" and fault not in REFUSALS
            if waits_only:
                await w.until(lambda: w.consumer.snapshot.parked == 2)
                assert w.why_unready == ""
            else:
                await w.until(lambda: named in w.why_unready)
            counted = await w.counted()
            broken = [one for one in log if one["event"] == "part.broken"]
            early = {**w.failed()}
            break_(w, resource, None)

            await w.until(lambda: not w.unsettled())

        assert counted.get("job-1", (0, 0)) == counted.get("job-2", (0, 0)) == (0, 0)
        assert early == {}
        assert broken
        assert named in broken[0]["reason"]
        assert w.completed() == ({"job-2"} if bad else {"job-1", "job-2"})
        assert list(w.failed()) == (["job-1"] if bad else [])
        assert w.why_unready == ""
        settled = {one["outcome"] for one in log if one["event"] == "delivery.settled"}
        assert settled <= {"ack", "deferred", "dead_letter"}


@pytest.mark.parametrize("fault", MACHINE_FAULTS)
async def test_a_machine_that_is_out_of_something_harms_no_job(fault: str, tmp_path: Path) -> None:
    async with twin_worker(tmp_path) as w:
        w.store.disk = os_error(fault)
        w.publish("job-1")
        await w.until(lambda: w.why_unready)
        reason = w.why_unready
        counted = await w.counted()
        w.store.disk = None

        await w.until(lambda: not w.unsettled())

        assert type(os_error(fault)).__name__ in reason
        assert counted.get("job-1", (0, 0)) == (0, 0)
        assert (w.completed(), w.failed()) == ({"job-1"}, {})


async def test_a_missing_temp_dir_stops_the_intake_until_it_is_there_again(tmp_path: Path) -> None:
    async with twin_worker(tmp_path) as w:
        shutil.rmtree(tmp_path)
        w.publish("job-1")
        await w.until(lambda: w.why_unready)
        reason = w.why_unready
        counted = await w.counted()
        os.mkdir(tmp_path)  # noqa: PTH102 - at once

        await w.until(lambda: not w.unsettled())

        assert "TEMP_DIR" in reason
        assert counted.get("job-1", (0, 0)) == (0, 0)
        assert w.completed() == {"job-1"}


@pytest.mark.parametrize("fault", sorted(set(STORAGE_FAULTS) - {"404"}))
async def test_a_subscription_that_cannot_be_pulled_from_shows_in_health_and_harms_no_job(
    fault: str, tmp_path: Path
) -> None:
    async with twin_worker(tmp_path) as w:
        await w.until(lambda: w.consumer.snapshot.free_slots == 2)
        w.subscription.fault = fault
        w.publish("job-1")
        w.publish("job-2")
        w.publish("job-3")
        await w.until(lambda: w.consumer.snapshot.pull_failures_in_a_row >= 3)
        reason = w.why_unready
        w.subscription.fault = None

        await w.until(lambda: not w.unsettled())

        assert fault in reason
        assert w.completed() == {"job-1", "job-2", "job-3"}


async def test_a_deleted_subscription_ends_the_worker(tmp_path: Path) -> None:
    async with twin_worker(tmp_path) as w:
        w.publish("job-1")
        await w.until(lambda: w.completed() == {"job-1"})
        w.subscription.fault = "404"
        w.publish("job-2")

        await w.until(lambda: w.consumer.snapshot.stopping)


@pytest.mark.parametrize("fault", REFUSALS)
async def test_one_job_that_names_a_foreign_refused_bucket_is_its_own_fault(fault: str, tmp_path: Path) -> None:
    async with twin_worker(tmp_path) as w:
        w.store.faults["foreign"] = fault
        for number in range(6):
            w.publish(f"good-{number}")
        w.publish("bad", audio_uri="gs://foreign/a.pcm")
        stopped = []

        await w.until(lambda: stopped.append(w.why_unready) or not w.unsettled())

        assert set(stopped) == {""}
        assert list(w.failed()) == ["bad"]
        assert w.completed() == {f"good-{number}" for number in range(6)}


@pytest.mark.parametrize("fault", REFUSALS)
async def test_a_bucket_that_was_read_from_before_is_the_workers_to_answer_for(fault: str, tmp_path: Path) -> None:
    async with twin_worker(tmp_path, input_buckets=frozenset()) as w:
        w.publish("first")
        await w.until(lambda: w.completed() == {"first"})
        w.store.faults["audio"] = fault
        w.publish("second")
        await w.until(lambda: "gs://audio" in w.why_unready)
        del w.store.faults["audio"]

        await w.until(lambda: not w.unsettled())

        assert w.completed() == {"first", "second"}


async def test_jobs_of_a_bucket_in_outage_wait_in_parking_places_while_the_others_go_on(tmp_path: Path) -> None:
    async with twin_worker(tmp_path, input_buckets=frozenset({"audio", "archive"})) as w:
        await w.upload(bucket="archive")
        w.store.faults["archive"] = "503"
        for number in range(2):
            w.publish(f"waits-{number}", audio_uri="gs://archive/a.pcm")
        await w.until(lambda: w.consumer.snapshot.parked == 2)
        for number in range(6):
            w.publish(f"good-{number}")
        await w.until(lambda: w.completed() == {f"good-{number}" for number in range(6)})
        del w.store.faults["archive"]

        await w.until(lambda: not w.unsettled())

        assert len(w.completed()) == 8
        assert w.failed() == {}


async def test_jobs_of_an_output_bucket_in_outage_wait_and_no_audio_is_fetched_again_meanwhile(tmp_path: Path) -> None:
    async with twin_worker(tmp_path) as w:
        w.store.faults["other"] = "503"
        for number in range(2):
            w.publish(f"waits-{number}", output_uri_prefix=f"gs://other/{number}/")
        await w.until(lambda: w.consumer.snapshot.parked == 2)
        downloads = w.store.calls.count(("download", "audio"))
        for number in range(6):
            w.publish(f"good-{number}")
        await w.until(lambda: w.completed() == {f"good-{number}" for number in range(6)})
        fetched_again = w.store.calls.count(("download", "audio")) - downloads - 6
        del w.store.faults["other"]

        await w.until(lambda: not w.unsettled())

        assert fetched_again == 0
        assert len(w.completed()) == 8
        assert (w.failed(), await w.counted()) == ({}, {})


async def test_missing_audio_in_a_bucket_that_works_is_the_jobs_fault(tmp_path: Path) -> None:
    async with twin_worker(tmp_path) as w:
        w.publish("job-1", audio_uri="gs://audio/none.pcm")

        await w.until(lambda: not w.unsettled())

        assert "no object at gs://audio/none.pcm" in w.failed()["job-1"]


async def test_one_job_that_alone_exceeds_temp_dir_ends_with_that_reason_and_its_neighbours_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with twin_worker(tmp_path) as w:
        await w.upload(name="huge.pcm")
        download = w.store.download

        async def fill(facts: Any, destination: Path) -> None:
            if facts.ref.name == "huge.pcm":
                raise os_error("ENOSPC")
            await download(facts, destination)

        monkeypatch.setattr(w.store, "download", fill)
        w.publish("huge", audio_uri="gs://audio/huge.pcm")
        for number in range(6):
            w.publish(f"good-{number}")

        await w.until(lambda: not w.unsettled())

        assert "No space left on device" in w.failed()["huge"]
        assert list(w.failed()) == ["huge"]
        assert w.completed() == {f"good-{number}" for number in range(6)}


async def test_audio_larger_than_the_free_disk_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with twin_worker(tmp_path) as w:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        w.publish("job-1")
        await w.until(lambda: "has no room for audio of" in w.why_unready)
        monkeypatch.undo()

        await w.until(lambda: not w.unsettled())

        assert w.completed() == {"job-1"}


async def test_a_call_that_fails_although_its_bucket_works_counts_one_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with twin_worker(tmp_path) as w:
        download, failures = w.store.download, [1, 2]

        async def fail_twice(facts: Any, destination: Path) -> None:
            if failures:
                failures.pop()
                raise worker.errors.StorageServiceError("download", facts.ref.uri, "503")
            await download(facts, destination)

        monkeypatch.setattr(w.store, "download", fail_twice)
        with capture_logs() as log:
            w.publish("job-1")
            await w.until(lambda: not w.unsettled())

        assert [one["outcome"] for one in log if one["event"] == "delivery.settled"] == ["retry", "retry", "ack"]
