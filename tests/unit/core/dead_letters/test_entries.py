import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import ErrorCode
from tests.support.queues.scripted_subscription import make_delivery
from tests.unit.core.dead_letters.dead_letter_messages import FAILED_AT, enveloped, forwarded, job_bytes
from worker.core.dead_letters.entries import (
    Origin,
    Selection,
    entry_of,
    fold,
    histogram,
    read,
)
from worker.core.dead_letters.entries import (
    forwarded as unforwarded,
)

SOURCE = "CloudPubSubDeadLetterSource"
NOW = FAILED_AT + timedelta(hours=2)


def test_an_envelope_contains_the_failure_its_reason_and_the_message() -> None:
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


def test_a_forwarded_message_that_is_no_job_keeps_its_readable_ids() -> None:
    entry = read(forwarded(data=job_bytes(audio_uri=7)))

    assert (entry.job_id, entry.video_id) == ("vod-1", "1")


def test_a_forwarded_message_that_is_no_job_has_the_code_and_the_id_it_will_have_once_adopted() -> None:
    assert read(forwarded(data=b"no job")).code == "INVALID_JOB"


def test_a_publishers_own_attribute_envelope_makes_no_envelope_of_a_forwarded_message() -> None:
    forged = {"envelope": "1", "dead_letter_id": "mine", "code": "AUDIO_NOT_FOUND", "job_id": "another"}

    letter = read(forwarded(data=enveloped().data, **forged))

    assert (letter.origin, letter.code, letter.job_id) == (Origin.POLICY, "INVALID_JOB", None)
    assert letter.dead_letter_id != "mine"


def test_what_was_published_straight_to_the_dead_letter_topic_is_no_forwarded_job() -> None:
    letter = read(replace(forwarded(), attributes={"run": "7"}))

    assert (letter.origin, letter.code, letter.run, letter.job_id) == (Origin.STRAY, "INTERNAL_ERROR", 0, "vod-1")


def test_an_original_with_forwarding_attributes_of_its_own_is_still_the_workers_dead_letter() -> None:
    letter = read(enveloped(attributes={"CloudPubSubDeadLetterSourceSubscription": "forged", "own": "1"}))

    assert (letter.origin, letter.attributes) == (Origin.WORKER, {"own": "1"})


@pytest.mark.parametrize("change", [{"dead_letter_id": "x" * 129}, {"code": "x" * 129}, {"run": -1}])
def test_an_envelope_with_facts_that_no_worker_writes_is_unreadable(change: dict[str, object]) -> None:
    data = json.dumps({**json.loads(enveloped().data), **change}).encode()

    assert read(replace(enveloped(), data=data)).origin is Origin.UNREADABLE


def test_an_envelope_dated_on_the_last_day_there_is_is_unreadable() -> None:
    document = {**json.loads(enveloped().data), "failed_at": "9999-12-31T23:59:59-12:00"}

    assert read(replace(enveloped(), data=json.dumps(document).encode())).origin is Origin.UNREADABLE


def test_a_forwarded_message_gets_its_publishers_time_and_attributes_back() -> None:
    letter = unforwarded(forwarded(envelope="1", own="2"))

    assert letter.original.publish_time == datetime(2026, 11, 22, 1, tzinfo=UTC)
    assert letter.original.attributes == {"envelope": "1", "own": "2"}
    assert (letter.deliveries, letter.gave_up_at) == (100, forwarded().publish_time)


@pytest.mark.parametrize(
    ("count", "published"),
    [("", ""), ("-5", "yesterday"), ("9" * 40, "2026-11-22T01:00:00"), ("many", "2030-01-01T00:00:00Z")],
)
def test_facts_of_forwarding_that_cannot_be_right_are_not_believed(count: str, published: str) -> None:
    delivery = forwarded()
    told = {f"{SOURCE}DeliveryCount": count, f"{SOURCE}TopicPublishTime": published}

    letter = unforwarded(replace(delivery, attributes={**delivery.attributes, **told}))

    assert (letter.deliveries, letter.original.publish_time) == (0, delivery.publish_time)


def test_an_entry_keeps_no_long_text() -> None:
    document = {**json.loads(enveloped().data), "message": "x" * 100_000, "violations": ["y" * 100_000]}

    entry = entry_of(replace(enveloped(), data=json.dumps(document).encode()))

    assert len(entry.reason) == 300


def test_an_envelope_and_its_forwarded_original_are_one_dead_letter() -> None:
    adopted = enveloped("a", code=ErrorCode.ATTEMPTS_EXHAUSTED)

    for order in ([adopted, forwarded("b")], [forwarded("b"), adopted]):
        (entry,) = fold(map(entry_of, order))
        assert (entry.origin, sorted(entry.copies)) == (Origin.WORKER, ["a", "b"])


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b'{"dead_letter_id": "d"}'])
def test_an_envelope_that_cannot_be_read_is_shown_as_such(data: bytes) -> None:
    delivery = replace(enveloped(), data=data)

    entry = read(delivery)

    assert (entry.origin, entry.code, entry.job_id, entry.data) == (Origin.UNREADABLE, "AUDIO_NOT_FOUND", "vod-1", None)
    assert entry.message.startswith("the envelope cannot be read: ")


added_by_forwarding = st.dictionaries(
    st.sampled_from([f"{SOURCE}DeliveryCount", f"{SOURCE}TopicPublishTime", f"{SOURCE}Subscription", f"{SOURCE}X"]),
    st.text() | st.sampled_from(["9" * 1024, "-1", "2026-11-22T09:00:00Z", "9999-12-31T23:59:59-14:00"]),
)


@given(data=st.binary(), is_envelope=st.booleans(), run=st.text() | st.just("9" * 5000), added=added_by_forwarding)
def test_reading_never_raises(data: bytes, is_envelope: bool, run: str, added: dict[str, str]) -> None:
    attributes = {"run": run} | ({"envelope": "1"} if is_envelope else {}) | added

    entry = entry_of(replace(make_delivery(data=data), attributes=attributes))

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

    entries = fold(map(entry_of, deliveries))

    assert sorted(list(entry.copies) for entry in entries) == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e", "f"],
    ]
    assert histogram(entries) == {"AUDIO_NOT_FOUND": 2, "AUDIO_FORBIDDEN": 1, "ATTEMPTS_EXHAUSTED": 1}


def test_entries_are_in_the_order_of_their_failures() -> None:
    assert [entry.origin for entry in fold(map(entry_of, [forwarded(), enveloped()]))] == [Origin.WORKER, Origin.POLICY]


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
    assert selection.matches(entry_of(enveloped()), NOW) is expected
