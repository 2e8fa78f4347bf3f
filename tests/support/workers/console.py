"""The command line, run inside the test's own process; the dead-letter console on a broker in memory."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest import mock

import structlog
from typer.testing import CliRunner, Result

from tests.support.clock import FakeClock
from worker.adapters.memory.pubsub import MemoryPubSub, MemoryTopic
from worker.cli.main import app
from worker.commands import dlq_desk
from worker.ports import Delivery


async def command(*words: str, environment: Mapping[str, str]) -> Result:
    """Run it in a thread, as it has an event loop of its own, in exactly that environment."""
    return await asyncio.to_thread(run, *words, environment=environment)


def run(*words: str, environment: Mapping[str, str]) -> Result:
    """Run it and give back what it printed and its exit status."""
    before = structlog.get_config()
    with mock.patch.dict(os.environ, {"COLUMNS": "200", **environment}, clear=True):
        try:
            return CliRunner().invoke(app, words)
        finally:
            structlog.configure(**before)


class Broker(MemoryPubSub):
    """Holds dead letters; its topic of jobs is lost after `publishes` messages."""

    def __init__(self, deliveries: list[Delivery]) -> None:
        super().__init__(FakeClock(), pull_seconds=0)
        for name in ("dead", "jobs", "completions"):
            self.create_topic(name)
            self.create_subscription(f"{name}-sub", topic=name)
        self.error: Exception | None = None
        self.publishes = 10_000
        for delivery in deliveries:
            self.publish("dead", delivery.data, delivery.attributes, "")

    def topic(self, name: str) -> MemoryTopic:
        return _FailingTopic(self, name)

    def free(self, name: str = "dead") -> list[Delivery]:
        """Return the letters that could be pulled now."""
        return [held.delivery for held in self.queue(f"{name}-sub").held if held.lease_ends_at is None]


class _FailingTopic(MemoryTopic):
    async def publish(self, data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> str:
        broker = self._broker
        assert isinstance(broker, Broker)
        if self._name == "jobs" and broker.error is not None:
            broker.publishes -= 1
            if broker.publishes < 0:
                raise broker.error
        return await super().publish(data, attributes, ordering_key)


@contextmanager
def console_on(deliveries: list[Delivery]) -> Iterator[Broker]:
    """The dead-letter console on a broker in memory that holds these messages."""
    broker = Broker(deliveries)

    @asynccontextmanager
    async def opened(*_: Any, **__: Any) -> AsyncIterator[MemoryPubSub]:
        yield broker

    environment = {
        "DEAD_LETTER_SUBSCRIPTION": "dead-sub",
        "DEAD_LETTER_TOPIC": "dead",
        "JOBS_TOPIC": "jobs",
        "COMPLETION_TOPIC": "completions",
        "LOG_FORMAT": "console",
        "GOOGLE_APPLICATION_CREDENTIALS": __file__,  # any file: nothing signs in
    }
    with mock.patch.object(dlq_desk, "open_pubsub", opened), mock.patch.dict(os.environ, environment):
        yield broker
