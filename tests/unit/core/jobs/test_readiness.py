import pytest

from tests.support.clock import FakeClock
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.jobs.engine_trust import EngineTrust, Readiness


class Spent(NoLimit):
    is_spent = True


def deepgram(budget: NoLimit, *, down_because: str = "") -> PaidRecogniser:
    recogniser = MemoryCloudRecogniser()
    if down_because:
        recogniser.go_down(down_because)
    return PaidRecogniser(recogniser=recogniser, usd_per_minute=0.0045, budget=budget)


@pytest.mark.parametrize(
    "paid", [None, deepgram(NoLimit()), deepgram(Spent()), deepgram(NoLimit(), down_because="status 503")]
)
@pytest.mark.parametrize("may_pay", [True, False])
def test_a_healthy_parakeet_is_enough(paid: PaidRecogniser | None, may_pay: bool) -> None:
    readiness = Readiness(EngineTrust(FakeClock()), paid, may_pay=may_pay)

    assert readiness.why_not() == ""


@pytest.mark.parametrize(
    ("paid", "may_pay", "reason"),
    [
        (deepgram(NoLimit()), True, ""),
        (deepgram(NoLimit()), False, "ENABLE_FALLBACK is false"),
        (deepgram(Spent()), True, "budget is spent"),
        (deepgram(NoLimit(), down_because="status 503"), True, "Deepgram is down: status 503"),
        (None, True, "no DEEPGRAM_API_KEY"),
    ],
)
def test_without_parakeet_there_must_be_a_deepgram_that_is_up_a_permission_and_money(
    paid: PaidRecogniser | None, may_pay: bool, reason: str
) -> None:
    readiness = Readiness(EngineTrust(FakeClock(), doubted=True), paid, may_pay=may_pay)

    found = readiness.why_not()

    assert reason in found
    assert bool(found) == bool(reason)
