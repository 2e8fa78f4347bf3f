"""Promises, judged on made-up results whose figures can be added by hand."""

from typing import Any

import pytest

from schemas.codes import Method
from tests.support.jobs.ended_jobs import completed, cost_of, failed
from worker.commands.validate import Criterion, Trial, has_passed, judged


def trial(
    hours: float = 1.0,
    *,
    minutes: float = 1.0,
    method: Method = Method.AUTO,
    deepgram_hours: float = 0.0,
    **metadata: Any,
) -> Trial:
    """A job that completed; Parakeet costs 0.02 USD an hour and Deepgram 0.27."""
    told = {
        "method_requested": method,
        "audio_duration_seconds": hours * 3600,
        "processing_time_seconds": minutes * 60,
        **metadata,
    }
    done = completed()
    event = done.model_copy(update={"transcription_metadata": done.transcription_metadata.model_copy(update=told)})
    cost = cost_of(parakeet_hours=hours - deepgram_hours, deepgram_hours=deepgram_hours)
    return Trial(job_id="job-1", audio_uri="gs://a/b", method=method, event=event, cost=cost)


def lost(*, told: bool = True) -> Trial:
    """A job that failed, or never ended."""
    return Trial(
        job_id="job-2", audio_uri="gs://a/b", method=Method.AUTO, event=failed() if told else None, cost=cost_of()
    )


def verdicts(*trials: Trial) -> dict[str, tuple[float | None, bool | None]]:
    return {one.name: (one.value and pytest.approx(one.value), one.passed) for one in judged(trials)}


def test_a_run_in_which_all_goes_well_keeps_every_promise() -> None:
    told = verdicts(trial(0.5, minutes=0.5), trial(2, minutes=2), trial(4, minutes=4))

    assert told == {
        "success": (100.0, True),
        "speed": (60.0, True),
        "fallback": (0.0, True),
        "cost": (0.02, True),
        "savings": (100 * (1 - 0.02 / 0.27), True),
        "up to 0.5 h of audio": (0.5, True),
        "up to 2 h of audio": (2.0, True),
        "up to 4 h of audio": (4.0, True),
    }


@pytest.mark.parametrize(("failures", "kept"), [(1, True), (2, False)])
def test_more_than_99_of_100_jobs_must_succeed(failures: int, kept: bool) -> None:
    jobs = [trial()] * (199 - failures) + [lost()] * failures

    assert verdicts(*jobs)["success"][1] is kept


@pytest.mark.parametrize("told", [True, False], ids=["failed", "without-an-answer"])
def test_a_job_that_did_not_complete_counts_against_success_alone(told: bool) -> None:
    found = verdicts(trial(), lost(told=told))

    assert found["success"] == (50.0, False)
    assert all(passed is not False for name, (_, passed) in found.items() if name != "success")


@pytest.mark.parametrize(("minutes", "kept"), [(1.5, True), (1.51, False)])
def test_forty_times_real_time_is_fast_enough(minutes: float, kept: bool) -> None:
    assert verdicts(trial(1, minutes=minutes))["speed"][1] is kept


@pytest.mark.parametrize(("fallen", "kept"), [(4, True), (5, False)])
def test_fewer_than_five_percent_of_chunks_may_fall_back(fallen: int, kept: bool) -> None:
    found = verdicts(trial(chunks_total=100, chunks_fallback=fallen))

    assert found["fallback"] == (fallen, kept)


def test_deepgrams_hours_cost_what_they_cost() -> None:
    found = verdicts(trial(10, deepgram_hours=1))

    assert found["cost"] == (0.045, False)  # (9 x 0.02 + 0.27) / 10
    assert found["savings"] == (100 * (1 - 0.45 / 2.7), False)


@pytest.mark.parametrize("method", [Method.DEEPGRAM, Method.HYBRID])
def test_who_forces_deepgram_is_not_judged_by_money_and_speed(method: Method) -> None:
    found = verdicts(trial(), trial(1, minutes=5.5, method=method, deepgram_hours=1))

    assert found["cost"] == (0.02, True)
    assert found["speed"] == (60.0, True)
    assert found["up to 2 h of audio"] == (5.5, True)


@pytest.mark.parametrize(
    ("hours", "minutes", "promise", "kept"),
    [
        (0.5, 1.99, "up to 0.5 h of audio", True),
        (0.5, 2.0, "up to 0.5 h of audio", False),
        (0.5001, 2.0, "up to 0.5 h of audio", False),  # what an encoder adds
        (0.51, 3.0, "up to 2 h of audio", True),
        (2.0, 6.0, "up to 2 h of audio", False),
        (4.0, 11.9, "up to 4 h of audio", True),
        (4.0, 12.0, "up to 4 h of audio", False),
    ],
)
def test_a_length_has_the_time_of_the_next_promised_one(hours: float, minutes: float, promise: str, kept: bool) -> None:
    assert verdicts(trial(hours, minutes=minutes))[promise] == (minutes, kept)


def test_the_slowest_of_a_length_is_judged() -> None:
    assert verdicts(trial(0.5, minutes=1), trial(0.5, minutes=3), trial(0.5, minutes=1))["up to 0.5 h of audio"] == (
        3.0,
        False,
    )


def test_longer_audio_than_any_promise_is_judged_by_speed_alone() -> None:
    found = verdicts(trial(10, minutes=10))

    assert {passed for name, (_, passed) in found.items() if name.startswith("up to")} == {None}


def test_a_run_without_figures_has_not_passed() -> None:
    untold = Criterion(name="speed", value=None, comparison=">=", limit=40, unit="x")

    assert not has_passed([untold])
    assert not has_passed(judged([]))


def test_an_unknown_figure_does_not_fail_the_others() -> None:
    assert has_passed(judged([trial(0.5, minutes=0.5)]))
