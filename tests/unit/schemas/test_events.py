import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings

from schemas.codes import ErrorCode, EventType, Method
from schemas.events import (
    CostEvent,
    DeepgramCost,
    Event,
    EventUnreadable,
    Failure,
    OtherEngineCost,
    ParakeetCost,
    ProgressEvent,
    encode,
    event_attributes,
    parse_event,
)
from schemas.job import JobEcho
from tests.support.jobs.messages import TEN_O_CLOCK, events, failed_event, progress_event


def cost_document(**changes: object) -> bytes:
    document = {
        **json.loads(encode(progress_event())),
        "event_type": "transcription.cost",
        "outcome": "completed",
        "audio_seconds": 60.0,
        "price_book": "2026-11",
        "usd_total": 0.1,
        "engines": [],
        "baseline": {"usd": 0.2},
        "savings_usd": 0.1,
        "savings_percent": 50,
    }
    return json.dumps({**document, **changes}).encode()


def test_an_event_is_written_with_its_head_first_and_its_nulls() -> None:
    document = json.loads(encode(progress_event()))

    assert list(document)[:6] == ["schema_version", "event_id", "event_type", "occurred_at", "run", "job"]
    assert document["event_type"] == "transcription.progress"
    assert document["occurred_at"] == "2026-11-22T10:00:00.000Z"
    assert document["chunks_total"] is None
    assert document["job"] == {
        "job_id": "vod-1",
        "video_id": "1",
        "created_at": None,
        "priority": None,
        "convex_video_id": None,
        "team_id": None,
        "callback_url": None,
        "metadata": {},
    }


def test_attributes_are_cloudevents_and_what_filters_need() -> None:
    assert event_attributes(failed_event()) == {
        "ce-specversion": "1.0",
        "ce-id": "e1",
        "ce-type": "transcription.failed",
        "ce-source": "/klipstream/transcription-worker",
        "ce-time": "2026-11-22T10:00:00.000Z",
        "ce-subject": "vod-1",
        "content-type": "application/json",
        "event_type": "transcription.failed",
        "status": "failed",
        "video_id": "1",
        "run": "0",
    }


def test_attributes_leave_out_ids_that_could_not_be_read() -> None:
    event = failed_event().model_copy(update={"job": JobEcho()})

    assert event_attributes(event).keys().isdisjoint({"ce-subject", "video_id"})


def test_a_cost_event_has_the_status_of_its_outcome() -> None:
    event = parse_event(cost_document(outcome="failed"))

    assert event_attributes(event)["status"] == "failed"
    assert event_attributes(progress_event())["status"] == "in_progress"


def test_numbers_are_rounded_when_an_event_is_made() -> None:
    event = parse_event(cost_document(usd_total=0.12345678, audio_seconds=1.23456, savings_percent=82.9629))

    assert isinstance(event, CostEvent)
    assert (event.usd_total, event.audio_seconds, event.savings_percent) == (0.123457, 1.235, 82.96)


def test_a_loss_that_rounds_to_nothing_is_no_negative_zero() -> None:
    data = encode(parse_event(cost_document(savings_usd=-1e-9, savings_percent=-0.001)))

    assert b'"savings_usd":0.0,"savings_percent":0.0' in data


def test_rates_are_not_rounded() -> None:
    rates = {"gpu_usd_per_second": 0.0001867, "vcpu_usd_per_second": 0.000011244, "gib_usd_per_second": 0.000001235}
    part = {"engine": "parakeet", "audio_seconds": 1, "gpu_seconds": 1, "usd": 1, "rates": rates}

    (engine,) = json.loads(encode(parse_event(cost_document(engines=[part]))))["engines"]

    assert engine["rates"] == rates


def test_times_are_cut_to_milliseconds_of_utc() -> None:
    moment = datetime(2026, 11, 22, 11, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))

    event = ProgressEvent(**{**progress_event().model_dump(), "occurred_at": moment})

    assert event.occurred_at == datetime(2026, 11, 22, 10, 0, 0, 999_000, tzinfo=timezone.utc)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="timezone"):
        ProgressEvent(**{**progress_event().model_dump(), "occurred_at": TEN_O_CLOCK.replace(tzinfo=None)})


def test_an_older_reader_takes_what_a_newer_worker_adds() -> None:
    document = json.loads(encode(failed_event()))
    document.update(schema_version=2, colour="red")
    document["job"]["owner"] = "x"
    document["error"].update(error_code="GPU_ON_FIRE", error_type="unknowable", hint="run")

    event = parse_event(json.dumps(document).encode())

    assert event.event_type is EventType.FAILED
    assert (event.error.error_code, event.error.error_type) == ("GPU_ON_FIRE", "unknowable")


def test_an_older_reader_takes_an_engine_it_does_not_know() -> None:
    parts = [
        {"engine": "whisper", "audio_seconds": 1, "usd": 1, "tokens": 5},
        {
            "engine": "deepgram",
            "audio_seconds": 1,
            "requests": 1,
            "request_ids": [],
            "usd": 1,
            "rates": {"usd_per_minute": 1},
        },
    ]

    event = parse_event(cost_document(engines=parts))

    assert isinstance(event, CostEvent)
    assert [type(engine) for engine in event.engines] == [OtherEngineCost, DeepgramCost]


def test_codes_this_version_knows_are_read_as_such() -> None:
    event = parse_event(encode(failed_event()))

    assert event.error.error_code is ErrorCode.AUDIO_NOT_FOUND
    assert parse_event(encode(progress_event())).method is Method.PARAKEET


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\xff", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"{}", "None is not a valid EventType"),
        (b'{"event_type": ["x"]}', "not an event that this version knows"),
        (b'{"event_type": "transcription.started"}', "'transcription.started' is not a valid"),
        (b'{"event_type": "transcription.failed"}', "event_id: is required"),
    ],
)
def test_what_is_no_event_is_refused_in_words(data: bytes, complaint: str) -> None:
    with pytest.raises(EventUnreadable, match=complaint):
        parse_event(data)


@settings(derandomize=True, max_examples=40)
@given(events)
def test_any_event_reads_back_as_it_was_encoded(event: Event) -> None:
    data = encode(event)

    assert parse_event(data) == event
    assert encode(parse_event(data)) == data


def test_engines_keep_their_kind_on_the_way() -> None:
    rates = {"gpu_usd_per_second": 1, "vcpu_usd_per_second": 1, "gib_usd_per_second": 1}
    part = ParakeetCost.model_validate({"audio_seconds": 1, "gpu_seconds": 1, "usd": 1, "rates": rates})

    event = parse_event(cost_document(engines=[part.model_dump()]))

    assert isinstance(event, CostEvent)
    assert event.engines == (part,)


def test_violations_of_a_failure_travel() -> None:
    failure = failed_event().error

    assert Failure(**{**failure.model_dump(), "violations": ["job_id: is required"]}).violations == (
        "job_id: is required",
    )
