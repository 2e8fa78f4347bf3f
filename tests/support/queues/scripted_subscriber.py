"""A subscriber to read events from, without a server."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from google.api_core import exceptions
from google.pubsub_v1 import PubsubMessage, PullResponse, ReceivedMessage

from schemas.events import Event, encode


class ScriptedSubscriber:
    """Answers pulls from a script, one entry each; when that is used up every pull waits out its timeout.

    It has a clock of its own, which only waiting moves.
    """

    def __init__(self, *answers: Event | bytes | Exception | None) -> None:
        self._answers = deque(answers)
        self._now = 0.0
        self.acked: list[str] = []
        self.given_back: list[str] = []
        self.pull_requests: list[dict[str, Any]] = []
        self.settle_error: Exception | None = None

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def pull(self, *, request: dict[str, Any], retry: None, timeout: float) -> PullResponse:
        assert retry is None
        self.pull_requests.append(request)
        if not self._answers:
            self._now += timeout
            raise exceptions.DeadlineExceeded("nothing came")
        answer = self._answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return PullResponse(received_messages=[] if answer is None else [self._received(answer)])

    def _received(self, answer: Event | bytes) -> ReceivedMessage:
        data = answer if isinstance(answer, bytes) else encode(answer)
        ack_id = f"ack-{len(self.pull_requests)}"
        return ReceivedMessage(ack_id=ack_id, message=PubsubMessage(data=data, message_id=ack_id))

    def acknowledge(self, *, request: dict[str, Any]) -> None:
        self._settle(self.acked, request["ack_ids"])

    def modify_ack_deadline(self, *, request: dict[str, Any]) -> None:
        assert request["ack_deadline_seconds"] == 0
        self._settle(self.given_back, request["ack_ids"])

    def _settle(self, settled: list[str], ack_ids: Sequence[str]) -> None:
        if self.settle_error is not None:
            raise self.settle_error
        settled.extend(ack_ids)
