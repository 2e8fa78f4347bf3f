import pytest

from tests.support.clock import FakeClock
from tests.support.jobs.state import Bucket


@pytest.fixture
def bucket(clock: FakeClock) -> Bucket:
    return Bucket(clock=clock)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
