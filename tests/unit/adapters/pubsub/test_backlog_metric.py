from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from google.auth.exceptions import DefaultCredentialsError
from structlog.testing import capture_logs

from tests.support.clock import FakeClock
from tests.support.wait import wait_until
from worker.adapters.pubsub.backlog_metric import BacklogMetric, newest


def answer(*values: int) -> dict[str, Any]:
    """As the method projects.timeSeries.list answers: the newest point first."""
    points = [{"interval": {"endTime": "2026-11-22T10:00:00Z"}, "value": {"int64Value": str(one)}} for one in values]
    return {"timeSeries": [{"metric": {}, "resource": {}, "points": points}], "unit": "1"}


@dataclass
class Response:
    status_code: int
    document: dict[str, Any]

    @property
    def ok(self) -> bool:
        return self.status_code == 200

    @property
    def text(self) -> str:
        return str(self.document)

    def json(self) -> dict[str, Any]:
        return self.document


@dataclass
class Monitoring:
    """Answers one request for the count after the other; the oldest message is always 192 s old."""

    responses: Iterator[Response | Exception]
    asked: list[dict[str, str]] = field(default_factory=list)

    def get(self, url: str, *, params: dict[str, str], timeout: float) -> Response:
        del timeout
        self.asked.append({"url": url, **params})
        if "oldest_unacked_message_age" in params["filter"]:
            return Response(200, answer(192, 132))
        found = next(self.responses)
        if isinstance(found, Exception):
            raise found
        return found


def asked(*responses: Response | Exception) -> tuple[list[int | None], Monitoring]:
    """Return the known value after each answer."""
    monitoring, known = Monitoring(iter(responses)), []
    backlog = BacklogMetric("p", "jobs", FakeClock(), lambda: monitoring)
    for _ in responses:
        backlog.ask()
        known.append(backlog.messages)
    return known, monitoring


def test_the_newest_count_is_known() -> None:
    known, monitoring = asked(Response(200, answer(3, 9)), Response(200, answer(0, 3)))

    assert known == [3, 0]
    assert monitoring.asked[0]["url"] == "https://monitoring.googleapis.com/v3/projects/p/timeSeries"
    assert 'resource.labels.subscription_id="jobs"' in monitoring.asked[0]["filter"]
    assert monitoring.asked[0]["interval.startTime"] < monitoring.asked[0]["interval.endTime"]


@pytest.mark.parametrize(
    "failure",
    [
        Response(403, {}),
        Response(200, cast("Any", [])),
        Response(200, {"timeSeries": None}),
        Response(200, {"timeSeries": [{"points": [{"value": None}]}]}),
        ConnectionError("away"),
        DefaultCredentialsError("none"),
    ],
)
def test_an_unavailable_metric_is_unknown_and_logged_once(failure: Response | Exception) -> None:
    with capture_logs() as logs:
        known, _ = asked(Response(200, answer(3)), failure, failure)

    assert known == [3, None, None]
    assert [event["event"] for event in logs] == ["backlog.unknown"]


def test_it_is_asked_for_in_the_background_for_the_length_of_a_block() -> None:
    monitoring = Monitoring(iter([Response(200, answer(3))]))

    with BacklogMetric("p", "jobs", FakeClock(), lambda: monitoring) as backlog:
        wait_until(lambda: backlog.messages == 3)


def test_the_age_of_the_oldest_message_is_known_with_the_count() -> None:
    backlog = BacklogMetric("p", "jobs", FakeClock(), lambda: Monitoring(iter([Response(200, answer(3))])))

    backlog.ask()

    assert (backlog.messages, backlog.oldest_seconds) == (3, 192)


def test_a_subscription_without_a_point_is_unknown() -> None:
    assert newest({}) is None
    assert newest(answer()) is None
