import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.support.audio.media",
    "tests.support.queues.official_emulator",
    "tests.support.engines.parakeet",
    "tests.support.queues.pubsub_server",
]

# A busy machine is no failure, so examples have no time limit. The rest is hypothesis' own profile, or that for CI.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """A script's background jobs ignore Ctrl-C, and so do the processes they start; some tests end theirs by it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long ones, so that at the end no process works alone."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Reset the logging that a test configures, since its stderr is closed at the end of the test."""
    yield
    structlog.reset_defaults()
