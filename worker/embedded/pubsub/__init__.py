"""An embedded Pub/Sub server for development and tests."""

from worker.embedded.pubsub.server import EmbeddedPubSub

__all__ = ["EmbeddedPubSub"]
