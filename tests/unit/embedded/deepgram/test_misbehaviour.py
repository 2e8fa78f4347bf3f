from collections import Counter

from worker.embedded.deepgram import Reply, Reset, SeededFaults, Slow
from worker.embedded.deepgram.misbehaviour import Fault

STORM = SeededFaults(
    seed=1, burst_share=0.1, server_error_share=0.1, reset_share=0.05, unusable_share=0.04, slow_share=0.2
)


def kind(fault: Fault | None) -> str:
    match fault:
        case Reply(status=429):
            return "burst"
        case Reply(status=200):
            return "unusable"
        case Reply():
            return "server error"
        case Reset():
            return "reset"
        case Slow():
            return "slow"
        case None:
            return "fine"


def test_the_same_seed_is_the_same_weather() -> None:
    again = SeededFaults(
        seed=1, burst_share=0.1, server_error_share=0.1, reset_share=0.05, unusable_share=0.04, slow_share=0.2
    )

    assert [STORM(number) for number in range(500)] == [again(number) for number in range(500)]


def test_another_seed_is_other_weather() -> None:
    other = SeededFaults(seed=2, server_error_share=0.5)
    one = SeededFaults(seed=1, server_error_share=0.5)

    assert [one(number) for number in range(100)] != [other(number) for number in range(100)]


def test_shares_are_kept() -> None:
    count = Counter(kind(STORM(number)) for number in range(5_000))

    assert 0.08 < count["burst"] / 5_000 < 0.12
    calm = 5_000 - count["burst"]
    assert 0.08 < count["server error"] / calm < 0.12
    assert 0.04 < count["reset"] / calm < 0.06
    assert 0.03 < count["unusable"] / calm < 0.05
    assert 0.19 < count["slow"] / calm < 0.21


def test_too_many_requests_come_in_bursts() -> None:
    storm = SeededFaults(seed=4, burst_share=0.2, burst_length=5)

    for first in range(0, 500, 5):
        assert len({kind(storm(number)) for number in range(first, first + 5)}) == 1


def test_nothing_goes_wrong_unless_it_is_asked_for() -> None:
    assert all(SeededFaults(seed=9)(number) is None for number in range(1_000))
