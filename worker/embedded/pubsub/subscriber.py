"""google.pubsub.v1.Subscriber, but for the streaming pull."""

from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from worker.embedded.pubsub import rules
from worker.embedded.pubsub.backlog import Entry
from worker.embedded.pubsub.broker import Attachment, Broker
from worker.embedded.pubsub.refusal import invalid, stale_ack_ids
from worker.embedded.pubsub.signals import first_of
from worker.ports import Clock


class Subscriber:
    """One method an RPC, from request to response; what is refused is raised as `Refused`.

    An empty pull is answered after `pull_hold_seconds`; the real service has been seen to hold one for 100 s.
    """

    def __init__(self, broker: Broker, clock: Clock, pull_hold_seconds: float) -> None:
        self._broker, self._clock, self._pull_hold_seconds = broker, clock, pull_hold_seconds

    async def create_subscription(self, request: types.Subscription) -> types.Subscription:
        """CreateSubscription."""
        return self._broker.create_subscription(request)

    async def get_subscription(self, request: types.GetSubscriptionRequest) -> types.Subscription:
        """GetSubscription."""
        return self._broker.subscription(request.subscription).config

    async def update_subscription(self, request: types.UpdateSubscriptionRequest) -> types.Subscription:
        """UpdateSubscription."""
        return self._broker.update_subscription(request.subscription, request.update_mask)

    async def list_subscriptions(self, request: types.ListSubscriptionsRequest) -> types.ListSubscriptionsResponse:
        """ListSubscriptions, all on one page."""
        every = self._broker.subscriptions
        of_project = sorted(name for name in every if name.startswith(f"{request.project}/"))
        return types.ListSubscriptionsResponse(subscriptions=[every[name].config for name in of_project])

    async def delete_subscription(self, request: types.DeleteSubscriptionRequest) -> empty_pb2.Empty:
        """DeleteSubscription."""
        self._broker.delete_subscription(request.subscription)
        return empty_pb2.Empty()

    async def pull(self, request: types.PullRequest) -> types.PullResponse:
        """Pull. Nothing is leased to a caller that has gone away while it waited."""
        attachment = self._broker.usable(request.subscription)
        if request.max_messages < 1:
            raise invalid("No max_messages specified")
        give_up_at = self._broker.now() + (0 if request.return_immediately else self._pull_hold_seconds)
        while not (entries := self._take(attachment, request.max_messages)):
            if self._broker.now() >= give_up_at:
                break
            await first_of(attachment.changed.wait(), self._clock.sleep(give_up_at - self._broker.now()))
            attachment.check_usable()
        return types.PullResponse(received_messages=[received(entry, attachment) for entry in entries])

    async def acknowledge(self, request: types.AcknowledgeRequest) -> empty_pb2.Empty:
        """Acknowledge. What can be settled is settled, also where other ids of the request are refused."""
        attachment = self._broker.usable(request.subscription)
        rules.check_ack_ids(list(request.ack_ids), request.subscription)
        stale = attachment.backlog.settle(self._broker.now(), request.ack_ids)
        return self._settled(attachment, stale)

    async def modify_ack_deadline(self, request: types.ModifyAckDeadlineRequest) -> empty_pb2.Empty:
        """ModifyAckDeadline; 0 seconds is a nack."""
        attachment = self._broker.usable(request.subscription)
        rules.check_ack_ids(list(request.ack_ids), request.subscription)
        rules.check_lease_seconds(request.ack_deadline_seconds)
        stale = attachment.backlog.extend(self._broker.now(), request.ack_ids, request.ack_deadline_seconds)
        return self._settled(attachment, stale)

    def _take(self, attachment: Attachment, limit: int) -> list[Entry]:
        backlog = attachment.backlog
        if entries := backlog.take(self._broker.now(), limit, backlog.policy.ack_deadline_seconds):
            self._broker.touched(attachment)
        return entries

    def _settled(self, attachment: Attachment, stale: list[str]) -> empty_pb2.Empty:
        self._broker.touched(attachment)
        if stale and attachment.backlog.policy.exactly_once:
            raise stale_ack_ids(stale)
        return empty_pb2.Empty()


def received(entry: Entry, attachment: Attachment) -> types.ReceivedMessage:
    """Return a leased message for the client, with the delivery attempt if there is a dead-letter policy."""
    attempt = entry.failures + 1 if attachment.backlog.policy.dead_letter_topic else 0
    return types.ReceivedMessage(ack_id=entry.ack_id, message=entry.message, delivery_attempt=attempt)
