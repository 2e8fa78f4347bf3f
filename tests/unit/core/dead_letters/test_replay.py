import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from schemas.dead_letter import MAX_ORIGINAL_BYTES
from schemas.job import parse_job
from tests.support.clock import FakeClock
from tests.unit.core.dead_letters.dead_letter_messages import FAILED_AT, enveloped, forwarded, job_bytes
from worker.adapters.memory.pubsub import MemoryPubSub, MemoryTopic
from worker.core.dead_letters.entries import DeadLetterEntry, entry_of, read
from worker.core.dead_letters.hold import HoldLimits, hold_dead_letters
from worker.core.dead_letters.replay import Edit, EditRefused, Refusal, ReplayRules, Republish, drop, plan, replay
from worker.core.dead_letters.replay import planned as planned_of
from worker.errors import MessageRefused, QueueServiceError
from worker.ports import Delivery

NOW = FAILED_AT + timedelta(hours=2)


def decided(delivery: Delivery, *edits: str) -> Republish | Refusal:
    rules = ReplayRules(edits=tuple(Edit.parse(edit) for edit in edits))
    return plan(entry_of(delivery), read(delivery), rules, NOW)


def planned(delivery: Delivery, *edits: str) -> Republish:
    decision = decided(delivery, *edits)
    assert isinstance(decision, Republish)
    return decision


def refused(delivery: Delivery, *edits: str) -> str:
    decision = decided(delivery, *edits)
    assert isinstance(decision, Refusal)
    return decision.reason


@pytest.mark.parametrize("delivery", [enveloped(run=1), forwarded(run="1", publisher="pipeline")])
def test_a_replay_is_the_next_run_of_the_same_message_and_says_where_it_comes_from(delivery: Delivery) -> None:
    republish = planned(delivery)

    assert republish.data == job_bytes()
    assert republish.attributes == {
        "publisher": "pipeline",
        "run": "2",
        "replay_of": entry_of(delivery).dead_letter_id,
        "replayed_at": "2026-11-22T11:00:00+00:00",
    }
    assert republish.ordering_key == read(delivery).ordering_key


def test_a_message_that_was_replayed_too_often_is_quarantined() -> None:
    assert planned(enveloped(run=2))
    assert refused(enveloped(run=3)) == "quarantined: it was replayed 3 times and failed again"


def test_a_message_that_was_not_kept_cannot_be_replayed() -> None:
    delivery = enveloped(data=job_bytes(metadata={"k": "x" * MAX_ORIGINAL_BYTES}), unchecked=True)

    assert refused(delivery) == "the original message is not in it"


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("force_method=deepgram", ("force_method",), "deepgram"),
        ("duration_seconds=12.5", ("duration_seconds",), 12.5),
        ('outputs=["srt"]', ("outputs",), ["srt"]),
        ("transcription_config.enable_gpu=false", ("transcription_config", "enable_gpu"), False),
        ("callback_url=https://a?b=c", ("callback_url",), "https://a?b=c"),
        ("priority=", ("priority",), ""),
    ],
)
def test_an_edit_is_a_field_and_a_value(text: str, path: tuple[str, ...], value: Any) -> None:
    assert Edit.parse(text) == Edit(path=path, value=value)


@pytest.mark.parametrize("text", ["force_method", "=x", "a..b=1", ".a=1"])
def test_what_is_no_edit_is_refused(text: str) -> None:
    with pytest.raises(EditRefused, match="must be field=value"):
        Edit.parse(text)


def test_an_edit_changes_its_field_and_keeps_all_others_unknown_ones_too() -> None:
    data = job_bytes(from_the_future=[1], metadata={"streamer": "Zoë"})

    republish = planned(forwarded(data=data), "force_method=deepgram", "transcription_config.enable_gpu=false")

    assert json.loads(republish.data) == {
        **json.loads(data),
        "force_method": "deepgram",
        "transcription_config": {"enable_gpu": False},
    }


def test_an_edit_may_repair_a_message_that_was_no_job() -> None:
    republish = planned(forwarded(data=job_bytes(language="??")), "language=en")

    assert parse_job(republish.data)[0].language == "en"


@pytest.mark.parametrize(
    ("data", "edit", "reason"),
    [
        (job_bytes(), "force_method=whisper", "the edited message would not be a valid job: force_method"),
        (job_bytes(), "audio_uri=gs://other/2.mp3", "that asks for something else under the same job_id"),
        (job_bytes(), "video_id.x=1", "video_id.x: video_id is not an object"),
        (b"\xff", "language=en", "the original is not valid JSON"),
        (b"[" * 100_000, "language=en", "the original is not valid JSON"),
        (b"[]", "language=en", "the original must be"),
        (job_bytes(), 'priority="\\ud800"', "the edit holds text that is no valid Unicode"),
    ],
)
def test_an_edit_that_would_only_make_another_dead_letter_is_refused(data: bytes, edit: str, reason: str) -> None:
    assert refused(forwarded(data=data), edit).startswith(reason)


def test_another_request_is_fine_under_another_job_id() -> None:
    republish = planned(enveloped(), "audio_uri=gs://other/2.mp3", "job_id=vod-1b")

    assert parse_job(republish.data)[0].audio_uri == "gs://other/2.mp3"


class Console:
    """A dead-letter topic with its subscription, and the jobs topic with one to see what is replayed."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.refusals: list[Refusal] = []
        self.broker = MemoryPubSub(self.clock, pull_seconds=0)
        for name in ("dead", "jobs"):
            self.broker.create_topic(name)
            self.broker.create_subscription(f"{name}-sub", topic=name)

    def bury(self, count: int) -> None:
        for number in range(count):
            self.bury_one(enveloped(data=job_bytes(job_id=f"vod-{number}")))

    def bury_one(self, letter: Delivery) -> None:
        self.broker.publish("dead", letter.data, letter.attributes, letter.ordering_key)

    def hold(self) -> Any:
        return hold_dead_letters(
            self.broker.subscription("dead-sub"), lease_seconds=60, limits=HoldLimits(messages=10_000), clock=self.clock
        )

    @property
    def buried(self) -> int:
        return len(self.broker.queue("dead-sub").held)

    @property
    def replayed(self) -> list[str]:
        return [parse_job(held.delivery.data)[0].job_id for held in self.broker.queue("jobs-sub").held]

    async def replay(self, topic: MemoryTopic, *, stop_after: int = 10_000) -> int:
        """Replay what is buried, through to the end or as far as to be interrupted after that many."""
        done = 0
        async with self.hold() as holding:
            plans = planned_of(holding, holding.entries, ReplayRules(), NOW)
            async for each in replay(holding, topic, plans, per_second=1_000_000, clock=InstantClock()):
                if isinstance(each, Refusal):
                    self.refusals.append(each)
                    continue
                done += 1
                if done == stop_after:
                    break
        return done


class InstantClock(FakeClock):
    """Every sleep is over at once."""

    async def sleep(self, seconds: float) -> None:  # noqa: ARG002
        await super().sleep(0)


class UnconfirmedTopic(MemoryTopic):
    """Publishes, but loses the confirmation of the message that `loses` counts down to."""

    loses = 3

    async def publish(self, data: bytes, attributes: Any, ordering_key: str = "") -> str:
        message_id = await super().publish(data, attributes, ordering_key)
        self.loses -= 1
        if self.loses == 0:
            raise QueueServiceError("publish", "jobs", "the reply was lost")
        return message_id


async def test_a_replay_empties_the_dead_letters_and_publishes_each_job_once() -> None:
    console = Console()
    console.bury(20)

    done = await console.replay(console.broker.topic("jobs"))

    assert (done, console.buried) == (20, 0)
    assert sorted(console.replayed) == sorted(f"vod-{number}" for number in range(20))


async def test_an_interrupted_replay_loses_and_doubles_nothing_when_it_is_run_again() -> None:
    console = Console()
    console.bury(20)
    await console.replay(console.broker.topic("jobs"), stop_after=7)
    assert console.buried == 13

    await console.replay(console.broker.topic("jobs"))

    assert console.buried == 0
    assert sorted(console.replayed) == sorted(f"vod-{number}" for number in range(20))


async def test_a_republish_that_is_not_confirmed_keeps_its_dead_letter() -> None:
    console = Console()
    console.bury(5)

    with pytest.raises(QueueServiceError):
        await console.replay(UnconfirmedTopic(console.broker, "jobs"))

    assert console.buried == 3
    await console.replay(console.broker.topic("jobs"))
    assert set(console.replayed) == {f"vod-{number}" for number in range(5)}


class PickyTopic(MemoryTopic):
    """Refuses the messages of one job for a reason of its own, as a topic with a schema does."""

    async def publish(self, data: bytes, attributes: Any, ordering_key: str = "") -> str:
        if b'"vod-3"' in data:
            raise MessageRefused("jobs", "Invalid data in message")
        return await super().publish(data, attributes, ordering_key)


async def test_a_letter_that_pubsub_refuses_stays_with_its_reason_and_the_rest_goes_on() -> None:
    console = Console()
    console.bury(6)

    done = await console.replay(PickyTopic(console.broker, "jobs"))

    assert (done, console.buried) == (5, 1)
    (refusal,) = console.refusals
    assert refusal.entry.job_id == "vod-3"
    assert refusal.reason == "Pub/Sub refuses the message for jobs: Invalid data in message"


async def test_one_letter_with_100_attributes_among_50_stays_and_49_are_replayed_at_any_run() -> None:
    console = Console()
    console.bury(49)
    many = {f"a{number}": "x" for number in range(100)}
    console.bury_one(enveloped(data=job_bytes(job_id="crowded"), attributes=many))

    done = [await console.replay(console.broker.topic("jobs")) for _ in range(2)]

    assert (done, console.buried) == ([49, 0], 1)
    assert [refusal.entry.job_id for refusal in console.refusals] == ["crowded", "crowded"]
    assert "it would have 103 attributes, Pub/Sub takes 100" in console.refusals[0].reason
    assert sorted(console.replayed) == sorted(f"vod-{number}" for number in range(49))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({f"a{number}": "x" for number in range(98)}, "it would have 101 attributes"),
        ({"a" * 257: "x"}, "its attribute 'aaa"),
        ({"long": "x" * 1025}, "its attribute 'long' is longer than Pub/Sub takes"),
        ({"wide": "é" * 513}, "its attribute 'wide' is longer than Pub/Sub takes"),
    ],
)
def test_what_pubsub_would_refuse_is_foretold(attributes: dict[str, str], reason: str) -> None:
    assert refused(enveloped(attributes=attributes)).startswith(reason)


def test_97_attributes_of_the_publisher_leave_room_for_those_of_a_replay() -> None:
    assert len(planned(enveloped(attributes={f"a{number}": "x" for number in range(97)})).attributes) == 100


def test_what_was_published_straight_to_the_dead_letters_is_replayed_as_what_it_is() -> None:
    stray = replace(forwarded(), attributes={"publisher": "mistaken"})

    assert planned(stray).attributes["run"] == "0"


async def test_a_replay_stops_behind_its_limit() -> None:
    console = Console()
    console.bury(5)

    async with console.hold() as holding:
        ready = list(planned_of(holding, holding.entries, ReplayRules(limit=2), NOW))

    assert len(ready) == 2


async def test_replays_keep_to_the_rate() -> None:
    console = Console()
    console.bury(3)
    times: list[float] = []

    async def replay_all() -> None:
        async with console.hold() as holding:
            plans = planned_of(holding, holding.entries, ReplayRules(), NOW)
            topic = console.broker.topic("jobs")
            async for _ in replay(holding, topic, plans, per_second=2, clock=console.clock):
                times.append(console.clock.monotonic())  # noqa: PERF401

    replaying = asyncio.create_task(replay_all())
    await console.clock.advance(2)

    await replaying
    assert times == [0.0, 0.5, 1.0]


async def test_dropping_exports_each_dead_letter_before_it_is_gone() -> None:
    console = Console()
    console.bury(2)
    lines: list[dict[str, Any]] = []
    buried: list[int] = []

    def export(line: str) -> None:
        lines.append(json.loads(line))
        buried.append(console.buried)

    async with console.hold() as holding:
        dropped = [entry async for entry in drop(holding, holding.entries, export)]

    assert ([line["job_id"] for line in lines], buried) == (
        [entry.job_id for entry in dropped if isinstance(entry, DeadLetterEntry)],
        [2, 1],
    )
    assert console.buried == 0
    assert lines[0]["messages"][0]["attributes"]["envelope"] == "1"
