"""An embedded Pub/Sub server for development and tests."""

from worker.embedded.pubsub.server import EmbeddedPubSub, pubsub_in_thread

__all__ = ["EmbeddedPubSub", "pubsub_in_thread"]
