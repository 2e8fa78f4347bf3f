"""Google Cloud Pub/Sub: subscription, topics and the backlog's metric."""
