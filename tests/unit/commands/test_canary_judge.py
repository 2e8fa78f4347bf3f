import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.commands.canary import JobCost, Share, Verdict, compare, difference, overall

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def jobs(
    count: int, *, failed: int = 0, fallback: int = 0, speed: float = 200, usd: float = 0.01, **fields: Any
) -> list[JobCost]:
    """Make jobs of an hour with six chunks; speeds and prices scatter by a tenth. `fallback` chunks fell back."""
    chance = random.Random(count)
    made = []
    for number in range(count):
        around = chance.uniform(0.9, 1.1)
        made.append(
            JobCost(
                event_id=f"{fields.get('revision', 'r')}-{number}",
                occurred_at=NOW,
                outcome="completed" if number >= failed else "failed",
                audio_seconds=3600,
                usd_total=usd * around,
                revision="r",
                rollout_group="parakeet",
                processing_time_seconds=3600 / speed / around,
                chunks_total=6,
                chunks_fallback=1 if number < fallback else 0,
            )
        )
    return made


def verdicts(old: list[JobCost], new: list[JobCost]) -> dict[str, Verdict]:
    return {one.criterion: one.verdict for one in compare(old, new)}


def test_many_jobs_that_go_as_before_pass() -> None:
    assert verdicts(jobs(400), jobs(300)) == dict.fromkeys(("success", "fallback", "speed", "cost"), "pass")
    assert overall(compare(jobs(400), jobs(300))) == "pass"


@pytest.mark.parametrize("count", [0, 1, 20, 100])
def test_few_jobs_without_a_failure_decide_nothing_about_success(count: int) -> None:
    assert verdicts(jobs(400), jobs(count))["success"] == "not enough yet"
    assert overall(compare(jobs(400), jobs(count))) == "not enough yet"


def test_268_jobs_without_a_failure_say_that_success_is_above_99_percent() -> None:
    assert verdicts([], jobs(267))["success"] == "not enough yet"
    assert verdicts([], jobs(268))["success"] == "pass"


@pytest.mark.parametrize(
    ("new", "criterion"),
    [
        (jobs(100, failed=10), "success"),
        (jobs(100, fallback=100), "fallback"),
        (jobs(100, speed=100), "speed"),
        (jobs(100, usd=0.02), "cost"),
    ],
    ids=["success", "fallback", "speed", "cost"],
)
def test_what_is_clearly_worse_fails(new: list[JobCost], criterion: str) -> None:
    found = compare(jobs(400), new)

    assert {one.criterion: one.verdict for one in found}[criterion] == "fail"
    assert overall(found) == "fail"


def test_a_revision_that_fails_as_often_as_the_old_one_is_not_to_blame() -> None:
    assert verdicts(jobs(400, failed=20), jobs(400, failed=20))["success"] != "fail"


def test_a_faster_and_cheaper_revision_passes() -> None:
    found = verdicts(jobs(50), jobs(50, speed=900, usd=0.001))

    assert (found["speed"], found["cost"]) == ("pass", "pass")


def test_events_that_came_twice_count_once() -> None:
    (success, *_) = compare(jobs(400), jobs(100) * 5)

    assert (success.new_sample, success.verdict) == (100, "not enough yet")


def test_jobs_without_a_chunk_count_do_not_count_as_without_fallback() -> None:
    silent = [
        JobCost(
            event_id=str(number),
            occurred_at=NOW,
            outcome="completed",
            audio_seconds=60,
            usd_total=0.1,
            revision="r",
            rollout_group=None,
            processing_time_seconds=None,
            chunks_total=None,
            chunks_fallback=None,
        )
        for number in range(500)
    ]

    found = verdicts(jobs(400), silent)

    assert (found["fallback"], found["speed"]) == ("not enough yet", "not enough yet")


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_the_bounds_of_a_share_hold_it(bad: int, good: int) -> None:
    share = Share(bad=bad, of=bad + good)
    low, high = share.bounds()

    assert 0 <= low <= high <= 1
    assert low - 1e-12 <= share.value <= high + 1e-12 or share.of == 0


@given(st.integers(0, 50), st.integers(50, 2000), st.integers(0, 50), st.integers(50, 2000))
def test_a_difference_is_within_its_bounds_and_antisymmetric(bad: int, of: int, bad2: int, of2: int) -> None:
    first, second = Share(bad=bad, of=of), Share(bad=bad2, of=of2)
    low, high = difference(first, second)
    back_low, back_high = difference(second, first)

    assert low - 1e-12 <= second.value - first.value <= high + 1e-12
    assert (back_low, back_high) == (pytest.approx(-high), pytest.approx(-low))


def test_newcombes_bounds_are_those_of_his_paper() -> None:
    """Newcombe 1998, table II, example 56/70 and 48/80, method 10, at z = 1.96: 0.0524 to 0.3339; here z = 1.645."""
    low, high = difference(Share(bad=48, of=80), Share(bad=56, of=70))

    assert 0.0524 < low < 0.2 < high < 0.3339


@given(st.integers(0, 30), st.integers(10, 200))
def test_a_revision_compared_with_itself_never_fails(failed: int, count: int) -> None:
    same = jobs(count, failed=min(failed, count))

    assert overall(compare(same, same)) != "fail"
