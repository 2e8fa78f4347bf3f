from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = ["tests.support.emulator", "tests.support.parakeet", "tests.support.pubsub"]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """What a test configures, commands included, ends with it: its stderr is gone by then."""
    yield
    structlog.reset_defaults()
