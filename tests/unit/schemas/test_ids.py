import pytest

from schemas.codes import ErrorCode, EventType
from schemas.ids import dead_letter_id, event_id, job_identity, message_identity, request_fingerprint, request_id
from schemas.job import TranscriptionJob
from tests.support.jobs.messages import job_document


def job(**changes: object) -> TranscriptionJob:
    return TranscriptionJob.model_validate(job_document(**changes))


def test_ids_never_change() -> None:
    identity = job_identity(job())

    assert request_fingerprint(job()) == "b88f46cf0597f7ef6797ada1576939f7"
    assert identity == "421e125380d9f2aa092d1609e6a8474a"
    assert message_identity(b"{}") == "b9fba8356ab151fbbf0eecdde9fc1fc6"
    assert (
        event_id(identity, run=0, event_type=EventType.COMPLETED, outcome="completed")
        == "73e0706db827f85df64f015663c3912a"
    )
    assert event_id(identity, run=1, event_type=EventType.COST, outcome="failed") == "1b6ed3bae7c9c18e73655b60d96199ca"
    assert event_id(identity, run=0, event_type=EventType.PROGRESS, outcome="3") == "2bb74858f9376c708292993eb6ba90f7"
    assert dead_letter_id(identity, run=0, code=ErrorCode.AUDIO_NOT_FOUND) == "48d0588d2bb4e0c38cb265147f2a3f56"
    assert request_id("vod-1") == "2c8f2713-9b02-5fa3-b725-d43c62b6ae76"


@pytest.mark.parametrize(
    "change",
    [
        {"video_id": "2"},
        {"audio_uri": "gs://audio-bucket/2.mp3"},
        {"audio_generation": 1},
        {"output_uri_prefix": "gs://elsewhere/"},
        {"language": "de"},
        {"outputs": ["srt"]},
        {"keyterms": ["KlipStream"]},
        {"channels": "apart"},
    ],
)
def test_another_request_has_another_fingerprint(change: dict[str, object]) -> None:
    assert request_fingerprint(job(**change)) != request_fingerprint(job())


@pytest.mark.parametrize(
    "change",
    [
        {"job_id": "vod-2"},
        {"force_method": "deepgram"},
        {"transcription_config": {"enable_gpu": False}},
        {"duration_seconds": 1.0},
        {"created_at": "x", "priority": 1, "metadata": {"a": 1}},
        {"language": "EN"},
        {"channels": "mix"},
        {"schema_version": 1},
    ],
)
def test_method_hints_and_echoed_fields_leave_the_fingerprint_alone(change: dict[str, object]) -> None:
    assert request_fingerprint(job(**change)) == request_fingerprint(job())


def test_a_job_without_keyterms_keeps_the_fingerprint_that_it_had_before_keyterms() -> None:
    assert request_fingerprint(job(keyterms=[])) == request_fingerprint(job()) == "b88f46cf0597f7ef6797ada1576939f7"


def test_the_order_of_keyterms_leaves_the_fingerprint_alone() -> None:
    assert request_fingerprint(job(keyterms=["b", "A"])) == request_fingerprint(job(keyterms=["A", "b"]))
    assert request_fingerprint(job(keyterms=["b", "A"])) != request_fingerprint(job(keyterms=["b A"]))


def test_the_order_of_outputs_leaves_the_fingerprint_alone() -> None:
    assert request_fingerprint(job(outputs=["vtt", "srt"])) == request_fingerprint(job(outputs=["srt", "vtt"]))


def test_every_part_of_an_event_id_counts() -> None:
    base = {"run": 0, "event_type": EventType.COST, "outcome": "failed"}
    changes = [{}, {"run": 1}, {"event_type": EventType.FAILED}, {"outcome": "completed"}]

    names = {event_id("identity", **{**base, **change}) for change in changes}

    assert len(names) == len(changes)


def test_parts_cannot_run_into_each_other() -> None:
    one = dead_letter_id("a1", run=1, code=ErrorCode.INVALID_JOB)
    other = dead_letter_id("a", run=11, code=ErrorCode.INVALID_JOB)

    assert one != other
