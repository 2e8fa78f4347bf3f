"""google.pubsub.v1.Publisher."""

from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from worker.embedded.pubsub import rules
from worker.embedded.pubsub.broker import Broker


class Publisher:
    """One method an RPC, from request to response; what is refused is raised as `Refused`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def create_topic(self, request: types.Topic) -> types.Topic:
        """CreateTopic."""
        return self._broker.create_topic(request)

    async def get_topic(self, request: types.GetTopicRequest) -> types.Topic:
        """GetTopic."""
        return self._broker.topic(request.topic)

    async def list_topics(self, request: types.ListTopicsRequest) -> types.ListTopicsResponse:
        """ListTopics, all on one page."""
        of_project = (name for name in self._broker.topics if name.startswith(f"{request.project}/"))
        return types.ListTopicsResponse(topics=[self._broker.topics[name] for name in sorted(of_project)])

    async def list_topic_subscriptions(
        self, request: types.ListTopicSubscriptionsRequest
    ) -> types.ListTopicSubscriptionsResponse:
        """ListTopicSubscriptions, all on one page."""
        self._broker.topic(request.topic)
        names = sorted(attachment.config.name for attachment in self._broker.attached(request.topic))
        return types.ListTopicSubscriptionsResponse(subscriptions=names)

    async def delete_topic(self, request: types.DeleteTopicRequest) -> empty_pb2.Empty:
        """DeleteTopic."""
        self._broker.delete_topic(request.topic)
        return empty_pb2.Empty()

    async def publish(self, request: types.PublishRequest) -> types.PublishResponse:
        """Publish: all messages of the request, or none."""
        rules.check_publish(request)
        return types.PublishResponse(message_ids=self._broker.publish(request.topic, list(request.messages)))
