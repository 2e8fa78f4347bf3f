import json

import pytest
from hypothesis import given, settings

from schemas.codes import ErrorCode
from schemas.dead_letter import (
    MAX_ORIGINAL_BYTES,
    DeadLetter,
    DeadLetterUnreadable,
    OriginalMessage,
    dead_letter_attributes,
    encode_dead_letter,
    parse_dead_letter,
)
from schemas.job import JobEcho
from tests.support.jobs.messages import TEN_O_CLOCK, dead_letters


def original(data: bytes) -> OriginalMessage:
    return OriginalMessage.of(data, {"run": "1"}, message_id="17", publish_time=TEN_O_CLOCK, subscription="jobs")


def letter(data: bytes = b"{}") -> DeadLetter:
    return DeadLetter(
        dead_letter_id="d1",
        run=0,
        code=ErrorCode.INVALID_JOB,
        message="not a valid job",
        violations=("job_id: is required",),
        original=original(data),
        attempts=1,
        crashes=0,
        first_seen=TEN_O_CLOCK,
        failed_at=TEN_O_CLOCK,
        worker="worker-1",
    )


def test_the_original_message_comes_back_byte_for_byte() -> None:
    data = bytes(range(256))

    assert parse_dead_letter(encode_dead_letter(letter(data))).original.data == data


def test_a_message_too_large_for_an_envelope_is_left_behind() -> None:
    assert original(b"x" * MAX_ORIGINAL_BYTES).data is not None
    assert original(b"x" * (MAX_ORIGINAL_BYTES + 1)).data is None


def test_the_largest_envelope_stays_below_ten_megabytes() -> None:
    assert len(encode_dead_letter(letter(b"x" * MAX_ORIGINAL_BYTES))) < 9_500_000


def test_the_largest_envelope_holds_a_hundred_of_the_longest_attributes_too() -> None:
    attributes = {"\x01" * 253 + f"{number:03}": "\x01" * 1024 for number in range(100)}
    longest = OriginalMessage.of(
        b"x" * MAX_ORIGINAL_BYTES, attributes, message_id="17", publish_time=TEN_O_CLOCK, subscription="jobs"
    )

    assert len(encode_dead_letter(letter().model_copy(update={"original": longest}))) < 10_000_000 - 2_000


def test_attributes_name_the_job_where_it_could_be_read() -> None:
    assert dead_letter_attributes(letter(), JobEcho(job_id="vod-1")) == {
        "envelope": "1",
        "dead_letter_id": "d1",
        "code": "INVALID_JOB",
        "job_id": "vod-1",
    }


def test_a_code_this_version_does_not_know_is_kept() -> None:
    document = {**json.loads(encode_dead_letter(letter())), "code": "GPU_ON_FIRE", "colour": "red"}

    read = parse_dead_letter(json.dumps(document).encode())

    assert dead_letter_attributes(read, JobEcho())["code"] == "GPU_ON_FIRE"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"job_id": "vod-1"}'])
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(DeadLetterUnreadable):
        parse_dead_letter(data)


@settings(derandomize=True, max_examples=40)
@given(dead_letters)
def test_any_envelope_reads_back_as_it_was_encoded(envelope: DeadLetter) -> None:
    assert parse_dead_letter(encode_dead_letter(envelope)) == envelope
