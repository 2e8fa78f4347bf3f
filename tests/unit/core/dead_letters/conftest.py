from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def events() -> Iterator[list[dict[str, Any]]]:
    """The log events of the test."""
    with capture_logs() as captured:
        yield captured
