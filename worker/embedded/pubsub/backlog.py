"""Messages of one subscription: available, leased until their deadline, or waiting to come back.

Messages wait in lanes: those of one ordering key share a lane and leave it in order, any other message has its own
lane. A lane with an active lease, or in the delay of a retry policy, delivers nothing.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from google.pubsub_v1 import types

from worker.embedded.pubsub.timers import Timers
from worker.embedded.pubsub.wire import span

# A reply stays below gRPC's default 4 MB receive limit where it can, for clients that left it alone.
_MAX_REPLY_BYTES = 3_500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Properties of the subscription that a backlog needs."""

    ack_deadline_seconds: int
    exactly_once: bool
    ordered: bool
    min_backoff_seconds: float
    max_backoff_seconds: float
    dead_letter_topic: str | None
    max_delivery_attempts: int

    @classmethod
    def of(cls, subscription: types.Subscription) -> "Policy":
        """Read off a checked subscription; no retry policy means no delay."""
        retries = subscription.retry_policy if "retry_policy" in subscription else None
        return cls(
            ack_deadline_seconds=subscription.ack_deadline_seconds,
            exactly_once=subscription.enable_exactly_once_delivery,
            ordered=subscription.enable_message_ordering,
            min_backoff_seconds=span(retries.minimum_backoff).total_seconds() if retries else 0.0,
            max_backoff_seconds=span(retries.maximum_backoff).total_seconds() if retries else 0.0,
            dead_letter_topic=subscription.dead_letter_policy.dead_letter_topic or None,
            max_delivery_attempts=subscription.dead_letter_policy.max_delivery_attempts,
        )

    def backoff_seconds(self, failures: int) -> float:
        """Return the delay after a message's n-th nack or expiry: doubled each time."""
        return min(self.min_backoff_seconds * 2.0 ** min(failures - 1, 30), self.max_backoff_seconds)


@dataclass(eq=False, kw_only=True, slots=True)
class Entry:
    """A message of this subscription that is not settled."""

    message: types.PubsubMessage
    sequence: int
    size_bytes: int
    lane: "_Lane"
    failures: int = 0
    ack_id: str | None = None


@dataclass(eq=False, kw_only=True, slots=True)
class _Lane:
    key: str
    entries: dict[int, Entry] = field(default_factory=dict)
    leased: int = 0
    not_before: float = 0.0

    def followers(self, entry: Entry) -> list[Entry]:
        """Entries behind this one that are leased: they must go out again after it."""
        return [other for other in self.entries.values() if other.sequence > entry.sequence and other.ack_id]


ForwardDeadLetter = Callable[[types.PubsubMessage, int], bool]
"""Forward the message after that many attempts; False where there is nowhere to forward it to."""


class Backlog:
    """Messages of one subscription; methods that depend on time take `now`, monotonic seconds."""

    def __init__(self, name: str, policy: Policy, dead_letter: ForwardDeadLetter) -> None:
        self.policy = policy
        self._name, self._dead_letter = name, dead_letter
        self._sequence, self._lease_count = count(), count(1)
        self._lanes: dict[str, _Lane] = {}
        self._entries: dict[int, Entry] = {}
        self._ready: list[tuple[int, _Lane]] = []
        self._leases: dict[str, Entry] = {}
        self._deadlines: Timers[str] = Timers()
        self._delays: Timers[_Lane] = Timers()

    def add(self, message: types.PubsubMessage) -> None:
        """Queue a message behind the others."""
        key = message.ordering_key if self.policy.ordered else ""
        lane = self._lanes.get(key) or _Lane(key=key)
        size = types.PubsubMessage.pb(message).ByteSize()
        entry = Entry(message=message, sequence=next(self._sequence), size_bytes=size, lane=lane)
        lane.entries[entry.sequence] = self._entries[entry.sequence] = entry
        if key:
            self._lanes[key] = lane
        if len(lane.entries) == 1:
            self._make_ready(lane)

    def take(self, now: float, limit: int, lease_seconds: float, max_bytes: int = _MAX_REPLY_BYTES) -> list[Entry]:
        """Lease up to `limit` messages, at least one where there is one, oldest first."""
        self.sweep(now)
        taken: list[Entry] = []
        budget = min(max_bytes, _MAX_REPLY_BYTES)
        while self._ready and len(taken) < limit:
            lane = self._ready[0][1]
            for entry in lane.entries.values():
                budget -= entry.size_bytes
                if len(taken) == limit or (taken and budget < 0):
                    break
                taken.append(self._lease(entry, now + lease_seconds))
            if not lane.leased:
                break
            heapq.heappop(self._ready)
        return taken

    def settle(self, now: float, ack_ids: Iterable[str]) -> list[str]:
        """Take leased messages out for good; returns the ids whose lease is over."""
        self.sweep(now)
        return [ack_id for ack_id in ack_ids if not self._settle(ack_id, now)]

    def extend(self, now: float, ack_ids: Iterable[str], seconds: float) -> list[str]:
        """Move the leases' ends to `seconds` from now, 0 is a nack; returns the ids whose lease is over."""
        self.sweep(now)
        ids = list(ack_ids)
        stale = [ack_id for ack_id in ids if ack_id not in self._leases]
        for ack_id in ids:
            if entry := self._leases.get(ack_id):
                if seconds:
                    self._deadlines.set(ack_id, now + seconds)
                else:
                    self._give_back(entry, now)
        return stale

    def holds(self, ack_id: str) -> bool:
        """Return True if the lease was valid at the last sweep."""
        return ack_id in self._leases

    def sweep(self, now: float) -> bool:
        """Take back what has expired and let out what was delayed; True when something changed."""
        expired, delayed = self._deadlines.pop_due(now), self._delays.pop_due(now)
        for ack_id in expired:
            if entry := self._leases.get(ack_id):
                self._give_back(entry, now)
        for lane in delayed:
            self._make_ready(lane)
        return bool(expired or delayed)

    def next_due(self) -> float | None:
        """When the next sweep will have something to do."""
        return min(
            (due for due in (self._deadlines.next_due(), self._delays.next_due()) if due is not None), default=None
        )

    def _lease(self, entry: Entry, until: float) -> Entry:
        entry.ack_id = f"{self._name}:{next(self._lease_count)}"
        entry.lane.leased += 1
        self._leases[entry.ack_id] = entry
        self._deadlines.set(entry.ack_id, until)
        return entry

    def _settle(self, ack_id: str, now: float) -> bool:
        if (entry := self._leases.get(ack_id)) is None:
            return False
        self._end_lease(entry)
        self._remove(entry)
        self._release(entry.lane, now)
        return True

    def _give_back(self, entry: Entry, now: float) -> None:
        self._end_lease(entry)
        entry.failures += 1
        if self._exhausted(entry) and self._dead_letter(entry.message, entry.failures):
            self._remove(entry)
        else:
            for follower in entry.lane.followers(entry):
                self._end_lease(follower)
            entry.lane.not_before = now + self.policy.backoff_seconds(entry.failures)
        self._release(entry.lane, now)

    def _exhausted(self, entry: Entry) -> bool:
        return self.policy.dead_letter_topic is not None and entry.failures >= self.policy.max_delivery_attempts

    def _end_lease(self, entry: Entry) -> None:
        if entry.ack_id is not None:
            del self._leases[entry.ack_id]
            self._deadlines.cancel(entry.ack_id)
            entry.ack_id, entry.lane.leased = None, entry.lane.leased - 1

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.sequence], entry.lane.entries[entry.sequence]

    def _release(self, lane: _Lane, now: float) -> None:
        """Let the lane give out again, once nothing of it is leased and its delay is over."""
        if lane.leased:
            return
        if not lane.entries:
            self._lanes.pop(lane.key, None)
        elif lane.not_before > now:
            self._delays.set(lane, lane.not_before)
        else:
            self._make_ready(lane)

    def _make_ready(self, lane: _Lane) -> None:
        heapq.heappush(self._ready, (next(iter(lane.entries)), lane))
