"""The server's life: listen, serve, stop."""

import asyncio
from typing import Self

import grpc
import structlog

from worker.embedded.own_thread import MachineClock
from worker.embedded.pubsub.broker import Broker
from worker.embedded.pubsub.rpc import handlers
from worker.ports import Clock

_log = structlog.get_logger(__name__)

# Size limits are the service's to enforce, with its own status; SO_REUSEPORT would let two servers share a port.
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]


class EmbeddedPubSub:
    """A Pub/Sub server for development and tests: in memory, one process, no TLS; gone when it stops.

    Serves google.pubsub.v1 Publisher and Subscriber over gRPC to any official client, and IAM policies, which it keeps
    and does not enforce. It does not do push and export subscriptions, detaching, updates of topics, seeking,
    snapshots, schemas, message transforms or retention by age; its filters know no OR and no hasPrefix.

    `async with EmbeddedPubSub() as server:` listens on `server.target`. Raises `OSError` when the port is taken.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        clock: Clock | None = None,
        pull_hold_seconds: float = 30.0,
    ) -> None:
        self.host, self.port = host, port
        self._clock: Clock = clock or MachineClock()
        self._pull_hold_seconds = pull_hold_seconds

    @property
    def target(self) -> str:
        """Value for PUBSUB_EMULATOR_HOST."""
        return f"{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        broker = Broker(self._clock)
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(handlers(broker, self._clock, self._pull_hold_seconds))
        self.port = _bind(self._server, self.target)
        await self._server.start()
        self._timekeeper = asyncio.create_task(broker.keep_time(), name="embedded-pubsub-time")
        _log.warning("embedded_pubsub.started", target=self.target, purpose="development and tests only, in memory")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timekeeper.cancel()
        await asyncio.gather(self._timekeeper, return_exceptions=True)
        await self._server.stop(grace=None)


def _bind(server: grpc.aio.Server, target: str) -> int:
    try:
        return server.add_insecure_port(target)
    except RuntimeError as exc:  # grpc's own word for an address that cannot be bound
        raise OSError(f"cannot listen on {target}") from exc
