import pytest

from tests.support.clock import FakeClock
from tests.support.state import Bucket


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
