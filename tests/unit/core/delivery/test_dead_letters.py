from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import ErrorCode
from tests.support.subscription import make_delivery
from tests.unit.core.delivery.dead_letter_messages import FAILED_AT, enveloped, forwarded, job_bytes
from worker.core.delivery.dead_letters import Origin, Selection, fold, histogram, read

NOW = FAILED_AT + timedelta(hours=2)


def test_an_envelope_tells_what_failed_why_and_what_the_message_was() -> None:
    entry = read(enveloped(run=1))

    assert (entry.origin, entry.code, entry.run, entry.attempts) == (Origin.WORKER, "AUDIO_NOT_FOUND", 1, 1)
    assert (entry.job_id, entry.video_id, entry.failed_at) == ("vod-1", "1", FAILED_AT)
    assert entry.data == job_bytes()
    assert entry.attributes == {"run": "1", "publisher": "pipeline"}


def test_a_forwarded_message_is_read_as_exhausted_and_loses_the_marks_of_forwarding() -> None:
    entry = read(forwarded(run="2", publisher="pipeline"))

    assert (entry.origin, entry.code, entry.run, entry.attempts) == (Origin.POLICY, "ATTEMPTS_EXHAUSTED", 2, 100)
    assert (entry.job_id, entry.video_id, entry.ordering_key) == ("vod-1", "1", "key")
    assert entry.attributes == {"run": "2", "publisher": "pipeline"}


def test_a_forwarded_message_that_is_no_job_still_tells_the_ids_that_can_be_read() -> None:
    entry = read(forwarded(data=job_bytes(audio_uri=7)))

    assert (entry.job_id, entry.video_id) == ("vod-1", "1")


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b'{"dead_letter_id": "d"}'])
def test_an_envelope_that_cannot_be_read_is_shown_as_such(data: bytes) -> None:
    delivery = replace(enveloped(), data=data)

    entry = read(delivery)

    assert (entry.origin, entry.code, entry.job_id, entry.data) == (Origin.UNREADABLE, "AUDIO_NOT_FOUND", "vod-1", None)
    assert entry.message.startswith("the envelope cannot be read: ")


@given(data=st.binary(), is_envelope=st.booleans(), run=st.text())
def test_reading_never_raises(data: bytes, is_envelope: bool, run: str) -> None:
    attributes = {"run": run} | ({"envelope": "1"} if is_envelope else {})

    entry = read(replace(make_delivery(data=data), attributes=attributes))

    assert entry.dead_letter_id


def test_physical_duplicates_are_one_entry_and_runs_and_codes_are_others() -> None:
    deliveries = [
        enveloped("a"),
        enveloped("b"),
        enveloped("c", run=1),
        enveloped("d", code=ErrorCode.AUDIO_FORBIDDEN),
        forwarded("e"),
        forwarded("f"),
    ]

    entries = fold(deliveries)

    assert sorted([copy.message_id for copy in entry.copies] for entry in entries) == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e", "f"],
    ]
    assert histogram(entries) == {"AUDIO_NOT_FOUND": 2, "AUDIO_FORBIDDEN": 1, "ATTEMPTS_EXHAUSTED": 1}


def test_entries_stand_in_the_order_of_their_failures() -> None:
    assert [entry.origin for entry in fold([forwarded(), enveloped()])] == [Origin.WORKER, Origin.POLICY]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), True),
        (Selection(ids=frozenset({read(enveloped()).dead_letter_id})), True),
        (Selection(ids=frozenset({"other"})), False),
        (Selection(codes=frozenset({"AUDIO_NOT_FOUND", "INVALID_JOB"})), True),
        (Selection(codes=frozenset({"INVALID_JOB"})), False),
        (Selection(job_ids=frozenset({"vod-1"}), video_ids=frozenset({"1"})), True),
        (Selection(job_ids=frozenset({"vod-1"}), video_ids=frozenset({"2"})), False),
        (Selection(older_than=timedelta(hours=2), newer_than=timedelta(hours=2)), True),
        (Selection(older_than=timedelta(hours=3)), False),
        (Selection(newer_than=timedelta(hours=1)), False),
    ],
)
def test_a_selection_matches_when_all_its_restrictions_hold(selection: Selection, expected: bool) -> None:
    assert selection.matches(read(enveloped()), NOW) is expected
