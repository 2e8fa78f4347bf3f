import pytest

from worker.core.delivery.handler import Step, next_step
from worker.errors import (
    AudioNotFound,
    CallFailed,
    Deferred,
    MachineFault,
    ParkingFull,
    ResourceDown,
    SubscriptionNotFound,
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, Step.ACK),
        (AudioNotFound("gs://b/o"), Step.GIVE_UP),
        (CallFailed("503"), Step.COUNT),
        (ValueError("a bug"), Step.COUNT),
        (Deferred("not now"), Step.HAND_BACK),
        (ParkingFull(4), Step.HAND_BACK),
        (MachineFault("TEMP_DIR", "full"), Step.HAND_BACK),
        (ResourceDown("gs://b", "503"), Step.HAND_BACK),
        (SubscriptionNotFound("jobs"), Step.HAND_BACK),
    ],
)
def test_the_class_of_the_error_is_the_policy(error: Exception | None, expected: Step) -> None:
    assert next_step(error, lease_is_lost=False) is expected


@pytest.mark.parametrize("error", [AudioNotFound("gs://b/o"), CallFailed("503"), ValueError("a bug"), Deferred("no")])
def test_an_error_after_the_lease_was_lost_says_nothing_of_the_job(error: Exception) -> None:
    assert next_step(error, lease_is_lost=True) is Step.LET_GO


def test_a_job_that_got_done_although_its_lease_was_lost_is_acknowledged() -> None:
    assert next_step(None, lease_is_lost=True) is Step.ACK
