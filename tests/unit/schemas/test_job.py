import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codes import CaptionFormat, ErrorCode, Method
from schemas.ids import request_fingerprint
from schemas.job import (
    MAX_JOB_BYTES,
    JobEcho,
    JobRejected,
    TranscriptionConfig,
    TranscriptionJob,
    encode_job,
    parse_job,
)
from schemas.uris import GcsUri
from tests.support.jobs.messages import job_document, jobs, json_values, text


def parse(**changes: object) -> TranscriptionJob:
    return parse_job(json.dumps(job_document(**changes)).encode())[0]


def rejection(**changes: object) -> JobRejected:
    with pytest.raises(JobRejected) as caught:
        parse(**changes)
    return caught.value


def test_a_job_of_three_fields_has_every_default() -> None:
    job = parse()

    assert job.schema_version == 1
    assert job.audio == GcsUri("audio-bucket", "1.mp3")
    assert job.output_uri_prefix is None
    assert job.language == "en"
    assert job.force_method is Method.AUTO
    assert job.transcription_config == TranscriptionConfig()
    assert job.outputs == ()
    assert job.metadata == {}


def test_unknown_fields_are_ignored_and_named() -> None:
    data = json.dumps(job_document(colour="red", transcription_config={"beam": 4})).encode()

    _, unknown = parse_job(data)

    assert unknown == {"colour", "transcription_config.beam"}


def test_null_means_left_out() -> None:
    nulls = {
        name: None
        for name in TranscriptionJob.model_fields
        if name not in {"job_id", "video_id", "audio_uri", "metadata"}
    }

    assert parse(**nulls, metadata=None) == parse()


def test_the_alias_of_force_method_is_folded_into_it() -> None:
    assert parse(transcription_config={"method": "deepgram"}).force_method is Method.DEEPGRAM
    assert parse(force_method=None, transcription_config={"method": "hybrid"}).force_method is Method.HYBRID
    assert parse(force_method="parakeet", transcription_config={"method": "parakeet"}).force_method is Method.PARAKEET


def test_the_alias_is_folded_for_a_job_made_in_python_too() -> None:
    job = TranscriptionJob(**job_document(transcription_config=TranscriptionConfig(method=Method.DEEPGRAM)))

    assert job.force_method is Method.DEEPGRAM


def test_two_different_methods_are_refused_beside_other_violations() -> None:
    error = rejection(force_method="auto", transcription_config={"method": "parakeet"}, duration_seconds="12")

    conflict, other = error.violations
    assert conflict.startswith("transcription_config: method 'parakeet' must equal force_method 'auto' or be left out")
    assert other == "duration_seconds: must be a number (got '12')"


def test_outputs_are_held_in_order_and_each_once() -> None:
    assert parse(outputs=["vtt", "srt", "vtt"]).outputs == (CaptionFormat.SRT, CaptionFormat.VTT)


def test_a_version_above_the_newest_is_the_only_violation() -> None:
    error = rejection(schema_version=2, job_id="vod-2", audio_uri=7)

    assert error.code is ErrorCode.UNSUPPORTED_SCHEMA_VERSION
    assert error.unsupported_version == 2
    assert error.violations == ("schema_version: must be at most 1 (got 2)",)
    assert error.job == JobEcho(job_id="vod-2", video_id="1")


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", "2", [2], 10**4000])
def test_a_version_that_is_none_is_an_invalid_job(version: object) -> None:
    error = rejection(schema_version=version)

    assert error.code is ErrorCode.INVALID_JOB
    assert error.unsupported_version is None
    assert len(error.violations[0]) < 200


@pytest.mark.parametrize("bad_id", ["", ".", "..", "../x", "a/b", "-a", "a" * 129, "ä", "a b", "a\n", "a\x00"])
def test_an_id_that_could_leave_its_folder_or_log_line_is_refused(bad_id: str) -> None:
    error = rejection(video_id=bad_id)

    assert error.violations[0].startswith("video_id: must be 1 to 128 characters")
    assert error.job == JobEcho(job_id="vod-1")


@pytest.mark.parametrize(
    "language", ["auto", "en", "EN", "en-US", "zh-Hant-TW", "sl-rozaj-biske-1994", "de-x-mine", "es-419"]
)
def test_a_language_tag_is_taken_as_it_is(language: str) -> None:
    assert parse(language=language).language == language


@pytest.mark.parametrize("language", ["", "english", "en_US", "e", "en-", "en-US\n", "*", "multi"])
def test_what_is_no_language_tag_is_refused(language: str) -> None:
    assert rejection(language=language).violations[0].startswith("language: must be a BCP-47 tag")


def test_a_rejection_keeps_what_is_valid_by_itself() -> None:
    error = rejection(audio_uri=None, job_id=7, metadata=[], priority={"level": 3}, team_id="t")

    assert error.job == JobEcho(video_id="1", priority={"level": 3}, team_id="t")


def test_a_long_value_is_quoted_short() -> None:
    (violation,) = rejection(audio_uri="x" * 100_000).violations

    assert violation.startswith("audio_uri: must have the form gs://bucket/object (got 'xxxx")
    assert len(violation) < 200


def test_violations_without_end_are_counted_instead_of_listed() -> None:
    violations = rejection(outputs=["docx"] * 1000).violations

    assert len(violations) == 51
    assert violations[-1] == "message: 950 more"


def test_a_message_far_larger_than_any_job_is_not_read() -> None:
    data = json.dumps(job_document(metadata={"padding": "x" * MAX_JOB_BYTES})).encode()

    with pytest.raises(JobRejected, match="must have at most 1048576 bytes"):
        parse_job(data)


def test_what_nests_too_deep_to_be_echoed_is_refused_and_left_out_of_the_echo() -> None:
    deep: object = "x"
    for _ in range(150):
        deep = [deep]

    error = rejection(priority=deep, metadata={"a": deep})

    assert [violation.split(" (")[0] for violation in error.violations] == [
        "priority: must be nested at most 32 deep",
        "metadata: must be nested at most 32 deep",
    ]
    assert error.job == JobEcho(job_id="vod-1", video_id="1")


def test_echoed_fields_come_back_unchanged() -> None:
    echoed = {"created_at": 1763800000, "priority": [1, "a"], "callback_url": "x", "metadata": {"a": {"b": None}}}

    echo = parse(**echoed).echo()

    assert {name: getattr(echo, name) for name in echoed} == echoed
    assert (echo.job_id, echo.video_id, echo.team_id) == ("vod-1", "1", None)


def test_an_encoded_job_says_its_version_and_only_what_was_set() -> None:
    job = TranscriptionJob(**job_document(transcription_config={"enable_gpu": False}))

    assert json.loads(encode_job(job)) == {
        "schema_version": 1,
        **job_document(),
        "transcription_config": {"enable_gpu": False},
    }


@settings(derandomize=True, max_examples=40)
@given(jobs)
def test_any_job_reads_back_as_it_was_encoded(job: TranscriptionJob) -> None:
    assert parse_job(encode_job(job)) == (job, frozenset())


@settings(derandomize=True, max_examples=100)
@given(st.dictionaries(st.sampled_from(sorted(TranscriptionJob.model_fields.keys() - {"job_id"})) | text, json_values))
def test_any_json_object_without_a_job_id_is_rejected_for_it(document: dict[str, object]) -> None:
    document.pop("schema_version", None)
    document.pop("job_id", None)

    with pytest.raises(JobRejected, match="job_id: is required"):
        parse_job(json.dumps(document).encode())


@settings(derandomize=True, max_examples=100)
@given(st.binary() | st.text().map(lambda characters: characters.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_rejected_in_words(data: bytes) -> None:
    with pytest.raises(JobRejected, match=r"^message: |is required"):
        parse_job(data)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22t10:00:00.123456789z", "2026-11-22T10:00:00.123000+00:00"),
        ("2026-11-22 10:00:00+05:30", "2026-11-22T04:30:00+00:00"),
        ("2026-11-22T10:00:00-00:30", "2026-11-22T10:30:00+00:00"),
        ("2026-11-22T10:00:00-00:00", "2026-11-22T10:00:00+00:00"),
        ("2026-12-31T23:59:60Z", "2027-01-01T00:00:00+00:00"),
    ],
)
def test_a_deadline_is_any_time_of_rfc_3339(text: str, moment: str) -> None:
    job = parse(expires_at=text)

    assert job.expires_at is not None
    assert job.expires_at.isoformat() == moment
    assert parse_job(encode_job(job))[0] == job


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22T10:00:00",
        "2026-11-22",
        "2026-02-30T00:00:00Z",
        "2026-11-22T10:00:61Z",
        "2026-11-22T10:00:00+24:00",
        "2026-11-22T10:00:00+01:60",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:60Z",
        "٢٠٢٦-11-22T10:00:00Z",
        "2026-11-22T10:00:00." + "0" * 1000 + "Z",
        "tomorrow",
        "",
        1795874400,
        True,
        ["2026-11-22T10:00:00Z"],
    ],
)
def test_what_is_no_such_time_is_no_deadline(value: object) -> None:
    (violation,) = rejection(expires_at=value).violations

    assert violation.startswith("expires_at: must be")


def test_a_deadline_is_no_part_of_the_request() -> None:
    assert request_fingerprint(parse(expires_at="2026-11-22T10:00:00Z")) == request_fingerprint(parse())


def test_a_language_is_at_most_100_characters() -> None:
    assert parse(language="en" + "-abcdefgh" * 10).language
    assert rejection(language="en" + "-abcdefgh" * 11).violations[0].startswith("language: must be a BCP-47 tag")
