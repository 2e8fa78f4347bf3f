from datetime import UTC, date, datetime, timedelta

import pytest

from schemas.state import ResultMarker, StoredMessage
from tests.support.jobs.ended_jobs import completed, cost_of, failed
from tests.support.jobs.messages import TEN_O_CLOCK, progress_event
from worker.core.costs.report import CostReport, Period, Spending, event_in, events_in, report

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
TODAY = date(2026, 11, 22)


def of(*events: object) -> CostReport:
    return report(events, LONG_AGO)


def only_day(found: CostReport) -> Period:
    ((day, period),) = found.days.items()
    assert day == TODAY
    return period


def test_a_days_jobs_are_added_up_by_engine() -> None:
    found = of(cost_of("a", parakeet_hours=3), cost_of("b", parakeet_hours=1, deepgram_hours=1))

    day = only_day(found)
    parakeet, deepgram = day.engines["parakeet"], day.engines["deepgram"]
    assert (parakeet.audio_hours, parakeet.usd, parakeet.usd_per_audio_hour) == (4.0, 0.08, 0.02)
    assert (deepgram.audio_hours, deepgram.usd, deepgram.usd_per_audio_hour) == (1.0, 0.27, 0.27)
    assert parakeet.savings_percent == pytest.approx(92.592593)
    assert deepgram.savings_percent == pytest.approx(0, abs=1e-9)
    assert (day.total.audio_hours, day.total.usd, day.total.baseline_usd) == pytest.approx((5.0, 0.35, 1.35))
    assert day.total.savings_percent == pytest.approx(74.074074)
    assert day.jobs == 2


def test_the_fallback_share_is_that_of_the_chunks_whose_jobs_endings_are_known() -> None:
    found = of(
        cost_of("a", parakeet_hours=1, deepgram_hours=0.2),
        completed("a", chunks=6, fallback=1),
        completed("b", chunks=14),
        cost_of("b", parakeet_hours=1),
        cost_of("c", parakeet_hours=1),
    )

    day = only_day(found)
    assert (day.chunks, day.fallback_chunks, day.fallback_percent) == (20, 1, 5.0)


def test_without_endings_nothing_is_known_of_the_fallback() -> None:
    assert only_day(of(cost_of(parakeet_hours=1))).fallback_percent is None


def test_days_are_utc_days_in_order_and_add_up() -> None:
    found = of(
        cost_of("b", at=datetime(2026, 11, 22, 0, 0, tzinfo=UTC), parakeet_hours=1),
        cost_of("a", at=datetime(2026, 11, 21, 23, 59, tzinfo=UTC), parakeet_hours=2),
    )

    assert [(day.day, period.total.audio_hours) for day, period in found.days.items()] == [(21, 2.0), (22, 1.0)]
    assert found.total.engines["parakeet"] == Spending(audio_seconds=10_800, usd=0.06, baseline_usd=pytest.approx(0.81))
    assert found.total.jobs == 2


def test_what_ended_before_is_left_out() -> None:
    earlier, later = TEN_O_CLOCK - timedelta(seconds=1), TEN_O_CLOCK

    found = report([cost_of("a", at=earlier, parakeet_hours=1), cost_of("b", at=later, parakeet_hours=1)], TEN_O_CLOCK)

    assert only_day(found).jobs == 1


def test_an_event_that_came_twice_counts_once() -> None:
    events = [cost_of("a", parakeet_hours=1), completed("a", chunks=6)]

    assert of(*events, *events) == of(*events)


def test_of_a_replayed_job_the_last_run_counts_which_holds_the_chunks_of_the_first() -> None:
    found = of(
        cost_of("a", run=1, parakeet_hours=1.5),
        cost_of("a", run=0, parakeet_hours=1, failed=True),
        failed("a"),
    )

    day = only_day(found)
    assert (day.total.audio_hours, day.jobs, day.failed_jobs) == (1.5, 1, 0)


def test_every_completed_run_counts_for_its_artefacts_were_made_anew() -> None:
    found = of(
        cost_of("a", run=0, parakeet_hours=1, failed=True),
        cost_of("a", run=1, parakeet_hours=1.5),
        cost_of("a", run=2, parakeet_hours=1.25, failed=True),
        cost_of("a", run=3, parakeet_hours=1.5),
        cost_of("a", run=4, parakeet_hours=0.5, failed=True),
    )

    day = only_day(found)
    assert (day.total.audio_hours, day.jobs, day.failed_jobs) == (3.5, 3, 1)


def test_a_refused_message_of_a_later_run_does_not_hide_what_the_job_cost() -> None:
    failed_job, refused = cost_of("a", parakeet_hours=1, failed=True), cost_of("a", run=7, failed=True)

    assert of(failed_job, refused) == of(failed_job)


def test_a_conflict_under_the_same_id_does_not_hide_the_job() -> None:
    job, conflict = cost_of("a", parakeet_hours=1), cost_of("a", failed=True)

    assert of(job, conflict) == of(conflict, job) == of(job)


def test_failed_work_costs_what_it_cost() -> None:
    day = only_day(of(cost_of("a", parakeet_hours=0.5, failed=True), failed("a")))

    assert (day.failed_jobs, day.total.usd, day.chunks) == (1, 0.01, 0)


def test_jobs_without_an_id_are_counted_one_by_one() -> None:
    first = cost_of(None, failed=True)
    second = first.model_copy(update={"event_id": "another"})

    assert only_day(of(first, second)).jobs == 2


def test_a_job_without_audio_divides_by_nothing() -> None:
    day = only_day(of(cost_of("a")))

    assert (day.total.usd_per_audio_hour, day.total.savings_percent, day.engines) == (None, None, {})


def test_no_events_make_an_empty_report() -> None:
    assert of() == CostReport(days={})
    assert of().total == Period()


def test_the_events_of_a_marker_are_those_that_can_be_read() -> None:
    messages = [
        StoredMessage(topic="dead_letter", data=cost_of().model_dump_json(), attributes={}),
        StoredMessage(topic="completion", data=cost_of().model_dump_json(), attributes={}),
        StoredMessage(topic="completion", data='{"event_type": "transcription.sung"}', attributes={}),
    ]
    marker = ResultMarker(
        job_id="job-1", fingerprint="f", run=0, outcome="completed", messages=tuple(messages), concluded_at=TEN_O_CLOCK
    )

    assert events_in(marker) == (cost_of(),)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"event_type": "x"}'])
def test_messages_that_are_no_events_are_counted_separately(data: bytes) -> None:
    assert event_in(data) is None


def test_progress_is_no_ending() -> None:
    assert of(progress_event()) == CostReport(days={})
