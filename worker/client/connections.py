"""Google's Pub/Sub clients, opened for a block; `PUBSUB_EMULATOR_HOST` is honoured."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing Google's client costs 0.7 s, so it waits for the first call
    from google.cloud.pubsub_v1 import PublisherClient
    from google.pubsub_v1 import SubscriberClient
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport


@contextmanager
def publisher_client(given: "PublisherClient | None") -> "Iterator[PublisherClient]":
    """Yield the given client, which stays open, or a new one that is closed after the block."""
    if given is not None:
        yield given
        return
    from google.cloud.pubsub_v1 import PublisherClient  # noqa: PLC0415 - see TYPE_CHECKING

    client = PublisherClient()
    try:
        yield client
    finally:
        client.stop()
        client.transport.close()


@contextmanager
def subscriber_client(given: "SubscriberClient | None") -> "Iterator[SubscriberClient]":
    """Yield the given client, which stays open, or a new one that is closed after the block."""
    if given is not None:
        yield given
        return
    from google import pubsub_v1  # noqa: PLC0415 - see TYPE_CHECKING

    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    with pubsub_v1.SubscriberClient(transport=_emulator_transport(emulator) if emulator else None) as client:
        yield client


def _emulator_transport(host: str) -> "SubscriberGrpcTransport":
    """Open a channel to an emulator without the 4 MB limit of answers that the client's own channel has."""
    import grpc  # noqa: PLC0415 - see TYPE_CHECKING
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport  # noqa: PLC0415

    channel = grpc.insecure_channel(host, options=[("grpc.max_receive_message_length", -1)])
    return SubscriberGrpcTransport(host=host, channel=channel)
