"""The backlog under random orders of everything that can happen to it."""

from datetime import UTC, datetime

from google.pubsub_v1 import types
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from worker.embedded.pubsub.backlog import Backlog, Policy

POLICY = Policy(
    ack_deadline_seconds=10,
    exactly_once=True,
    ordered=True,
    min_backoff_seconds=0.0,
    max_backoff_seconds=0.0,
    dead_letter_topic="projects/p/topics/dead",
    max_delivery_attempts=5,
)
START = datetime(2026, 11, 22, tzinfo=UTC)


class BacklogMachine(RuleBasedStateMachine):
    """Every message ends settled or forwarded, once; one key's messages are first delivered in order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.forwarded: list[str] = []
        self.settled: list[str] = []
        self.published: list[types.PubsubMessage] = []
        self.leases: dict[str, str] = {}
        self.backlog = Backlog("s", POLICY, self.forward)

    def forward(self, message: types.PubsubMessage, attempts: int) -> bool:
        assert attempts == 5
        self.forwarded.append(message.message_id)
        return True

    @rule(key=st.sampled_from(["", "a", "b"]))
    def publish(self, key: str) -> None:
        number = len(self.published)
        message = types.PubsubMessage(message_id=str(number), ordering_key=key, publish_time=START)
        self.published.append(message)
        self.backlog.add(message)

    @rule(limit=st.integers(1, 5))
    def take(self, limit: int) -> None:
        entries = self.backlog.take(self.now, limit, 10)
        assert len(entries) <= limit
        for key in ("a", "b"):
            self.check_order(key, [int(e.message.message_id) for e in entries if e.message.ordering_key == key])
        self.leases |= {str(entry.ack_id): entry.message.message_id for entry in entries}

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        for ack_id in self.some_lease(data):
            if not self.backlog.settle(self.now, [ack_id]):
                self.settled.append(self.leases[ack_id])

    @rule(data=st.data(), seconds=st.sampled_from([0, 5, 60]))
    def extend(self, data: st.DataObject, seconds: int) -> None:
        for ack_id in self.some_lease(data):
            stale = self.backlog.extend(self.now, [ack_id], seconds)
            assert stale == [] or not self.backlog.holds(ack_id)

    @rule(seconds=st.integers(1, 20))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.backlog.sweep(self.now)

    @invariant()
    def nothing_ends_twice(self) -> None:
        ended = self.settled + self.forwarded
        assert len(ended) == len(set(ended))

    def teardown(self) -> None:
        """Whatever happened, the rest can be had and settled."""
        self.now += 1000
        while entries := self.backlog.take(self.now, 3, 10):
            assert self.backlog.settle(self.now, [str(entry.ack_id) for entry in entries]) == []
            self.settled += [entry.message.message_id for entry in entries]
        assert sorted(self.settled + self.forwarded, key=int) == [each.message_id for each in self.published]

    def some_lease(self, data: st.DataObject) -> list[str]:
        return [data.draw(st.sampled_from(sorted(self.leases)))] if self.leases else []

    def check_order(self, key: str, taken: list[int]) -> None:
        """One key's messages go out as a run from its oldest that is not ended."""
        ended = {*self.settled, *self.forwarded}
        waiting = [
            int(each.message_id) for each in self.published if each.ordering_key == key and each.message_id not in ended
        ]
        assert taken == waiting[: len(taken)]


TestBacklog = BacklogMachine.TestCase
TestBacklog.settings = settings(max_examples=60, stateful_step_count=40)
