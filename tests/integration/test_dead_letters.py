"""The dead-letter console and the workers' chore on real servers, as operators and publishers meet them."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from schemas.dead_letter import parse_dead_letter
from schemas.events import CompletedEvent, FailedEvent
from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.queues.pubsub_server import Server
from tests.support.workers.cloud import EITHER_PUBSUB, Cloud
from tests.support.workers.console import command
from tests.support.workers.pipeline import Pipeline
from tests.unit.core.dead_letters.dead_letter_messages import enveloped, job_bytes
from worker.commands import dlq_desk
from worker.core.dead_letters import adoption
from worker.embedded.local_cloud import (
    COMPLETION_TOPIC,
    DEAD_LETTER_TOPIC,
    JOBS_SUBSCRIPTION,
    JOBS_TOPIC,
    OUTPUT_BUCKET,
    STATE_BUCKET,
)
from worker.ports import Delivery

ROOT = Path(__file__).parents[2]
DELIVERIES = 100
"""After which the subscription's policy gives up."""
EMPTY_ANSWERS = 5
TOPICS = (JOBS_TOPIC, COMPLETION_TOPIC, DEAD_LETTER_TOPIC)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlq_desk, "PULL_SECONDS", 0.5)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """An operator's: the console, and a view of everything that it could change."""

    cloud: Cloud
    pipeline: Pipeline
    witnesses: Mapping[str, str]
    """A subscription of the test's own on each topic."""

    @property
    def server(self) -> Server:
        return self.pipeline._server

    async def dlq(self, *words: str) -> Result:
        return await command("dlq", *words, environment=self.cloud.environment)

    async def bury(self, letter: Delivery) -> None:
        await self.server.publish(self.server.name("topics", DEAD_LETTER_TOPIC), letter.data, **letter.attributes)

    async def let_down(self, data: bytes, **attributes: str) -> None:
        """Publish a message and refuse it until its subscription gives up."""
        await self.pipeline.publish(data, **attributes)
        subscription = self.server.name("subscriptions", JOBS_SUBSCRIPTION)
        refused = 0
        while refused < DELIVERIES:
            pulled = await self.server.pull_now(subscription)
            await self.server.nack(subscription, *(one.ack_id for one in pulled))
            refused += len(pulled)

    async def letters(self) -> list[tuple[bytes, dict[str, str]]]:
        """Return the letters that a console could pull now."""
        subscription, seen, empty = self.server.name("subscriptions", DEAD_LETTER_TOPIC), [], 0
        while empty < EMPTY_ANSWERS:
            pulled = await self.server.pull_now(subscription)
            seen += pulled
            empty = 0 if pulled else empty + 1
        if seen:
            await self.server.nack(subscription, *(one.ack_id for one in seen))
        return sorted(((one.message.data, dict(sorted(one.message.attributes.items()))) for one in seen), key=repr)

    async def published(self) -> dict[str, int]:
        """Return the number of messages of each topic since the last call."""
        counts = {}
        for topic, subscription in self.witnesses.items():
            seen = await self.server.pull_now(subscription)
            if seen:
                await self.server.ack(subscription, *(one.ack_id for one in seen))
            counts[topic] = len(seen)
        return counts

    async def everything(self) -> Any:
        """Whatever looking could change."""
        listed = [await self.pipeline._store.list(bucket, "") for bucket in (STATE_BUCKET, OUTPUT_BUCKET)]
        return await self.letters(), await self.published(), listed, await self.pipeline.unsettled()


@asynccontextmanager
async def desk_at(cloud: Cloud) -> AsyncIterator[Desk]:
    async with cloud.pipeline() as pipeline:
        server = pipeline._server
        witnesses = {topic: await server.subscription(server.name("topics", topic)) for topic in TOPICS}
        yield Desk(cloud=cloud, pipeline=pipeline, witnesses=witnesses)


async def test_looking_and_dry_runs_change_nothing(cloud: Cloud, tmp_path: Path) -> None:
    async with desk_at(cloud) as desk:
        await desk.let_down(job_bytes(job_id="forwarded"))
        await desk.let_down(job_bytes(job_id="forged"), envelope="1", dead_letter_id="mine")
        await desk.bury(enveloped(data=job_bytes(job_id="failed")))
        await desk.server.publish(desk.server.name("topics", DEAD_LETTER_TOPIC), job_bytes(job_id="stray"))
        listed = [json.loads(line) for line in (await desk.dlq("list", "--json")).stdout.splitlines()]
        await desk.published()
        before = await desk.everything()

        export = tmp_path / "dropped.jsonl"
        told = [
            await desk.dlq(*words)
            for words in (
                ["list"],
                *(["show", letter["dead_letter_id"]] for letter in listed),
                ["replay"],
                ["replay", "--code", "ATTEMPTS_EXHAUSTED", "--set", "force_method=deepgram"],
                ["drop", "--export", str(export)],
            )
        ]

        assert await desk.everything() == before
    assert {letter["job_id"]: letter["origin"] for letter in listed} == {
        "forwarded": "policy",
        "forged": "policy",
        "failed": "worker",
        "stray": "stray",
    }
    assert [one.exit_code for one in told] == [0] * len(told), [one.output for one in told]
    assert "4 dead letters" in told[0].stdout
    assert "dry run: 4 to replay, 0 to stay" in told[-3].stdout
    assert "would adopt and replay" in told[-2].stdout
    assert "dry run: 2 to replay" in told[-2].stdout
    assert not export.exists()


async def test_one_letter_with_100_attributes_among_50_is_kept_with_its_reason(cloud: Cloud) -> None:
    async with desk_at(cloud) as desk:
        for number in range(49):
            await desk.bury(enveloped(data=job_bytes(job_id=f"vod-{number}")))
        many = {f"a{number}": "x" for number in range(100)}
        await desk.bury(enveloped(data=job_bytes(job_id="crowded"), attributes=many))
        await desk.published()

        done = [await desk.dlq("replay", "--execute", "--rate", "1000") for _ in range(2)]

        assert [one.exit_code for one in done] == [1, 1]
        assert "replayed 49, 1 stay" in done[0].stdout
        assert "replayed 0, 1 stay" in done[1].stdout
        for one in done:
            assert "it would have 103 attributes, Pub/Sub takes 100" in one.stdout
        assert await desk.published() == {JOBS_TOPIC: 49, COMPLETION_TOPIC: 0, DEAD_LETTER_TOPIC: 0}
        ((left, _),) = await desk.letters()
        assert len(parse_dead_letter(left).original.attributes) == 100


async def test_a_letter_that_the_service_alone_refuses_stays_and_the_rest_goes_on(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.core.dead_letters.replay.MOST_ATTRIBUTES", 1000)
    async with desk_at(cloud) as desk:
        for number in range(3):
            await desk.bury(enveloped(data=job_bytes(job_id=f"vod-{number}")))
        many = {f"a{number}": "x" for number in range(98)}
        await desk.bury(enveloped(data=job_bytes(job_id="crowded"), attributes=many))

        done = await desk.dlq("replay", "--execute", "--rate", "1000")

        assert (done.exit_code, len(await desk.letters())) == (1, 1)
        assert "replayed 3, 1 stay" in done.stdout
        assert "Pub/Sub refuses the message for" in done.stdout


async def test_replaying_adopts_what_was_forwarded_and_lists_it_in_the_same_run(cloud: Cloud) -> None:
    async with desk_at(cloud) as desk:
        for number in range(3):
            await desk.let_down(job_bytes(job_id=f"vod-{number}"), own=str(number))
        await desk.bury(enveloped(data=job_bytes(job_id="other")))
        await desk.published()

        done = await desk.dlq("replay", "--code", "ATTEMPTS_EXHAUSTED", "--execute")

        assert (done.exit_code, "replayed 3, 0 stay" in done.stdout) == (0, True), done.output
        assert await desk.published() == {JOBS_TOPIC: 3, COMPLETION_TOPIC: 6, DEAD_LETTER_TOPIC: 3}
        assert [attributes["job_id"] for _, attributes in await desk.letters()] == ["other"]
        failed = (await desk.pipeline.ending("vod-1")).failed
        assert failed.transcription_metadata.deliveries == DELIVERIES


async def test_dropping_adopts_first_so_that_the_publisher_gets_its_event(cloud: Cloud, tmp_path: Path) -> None:
    async with desk_at(cloud) as desk:
        await desk.let_down(job_bytes())

        done = await desk.dlq("drop", "--export", str(tmp_path / "dropped.jsonl"), "--execute")

        assert done.exit_code == 0, done.output
        (line,) = map(json.loads, (tmp_path / "dropped.jsonl").read_text().splitlines())
        assert (line["origin"], line["job_id"]) == ("worker", "vod-1")
        assert await desk.letters() == []
        assert (await desk.pipeline.ending("vod-1")).failed


@EITHER_PUBSUB
async def test_a_worker_gives_a_forwarded_job_its_failed_event_with_no_console_used(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "LOOK_SECONDS", 2.0)
    async with desk_at(cloud) as desk:
        await desk.let_down(job_bytes())
        await desk.bury(enveloped(data=job_bytes(job_id="other")))

        async with cloud.worker(), cloud.worker():
            ending = await desk.pipeline.ending("vod-1")

            assert isinstance(ending.event, FailedEvent)
            assert ending.failed.transcription_metadata.processing_time_seconds is None
        assert sum(event.job.job_id == "vod-1" for event in desk.pipeline.events) == 2
        letters = [parse_dead_letter(data) for data, _ in await desk.letters()]
        assert {(letter.code, letter.attempts) for letter in letters} == {
            ("ATTEMPTS_EXHAUSTED", 100),
            ("AUDIO_NOT_FOUND", 1),
        }


async def test_a_letter_that_a_worker_adopted_is_replayed_like_any_other(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "LOOK_SECONDS", 2.0)
    async with desk_at(cloud) as desk:
        uri = await desk.pipeline.upload(riff_wav(speech(20).tobytes()))
        await desk.let_down(job_bytes(audio_uri=uri))

        async with cloud.worker():
            await desk.pipeline.ending("vod-1")
            done = await desk.dlq("replay", "--execute")
            await desk.pipeline.endings(2, "vod-1")

        assert done.exit_code == 0, done.output
        assert any(isinstance(event, CompletedEvent) and event.run == 1 for event in desk.pipeline.events)
        assert await desk.letters() == []


@asynccontextmanager
async def console_process(cloud: Cloud, *words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run a console in a process of its own with a terminal as its input; yields it and the terminal's other end."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "dlq", *words),
        env={**os.environ, **cloud.environment, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process, ours
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(ours)
        os.close(theirs)


async def read_until(process: asyncio.subprocess.Process, ending: str) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readuntil(ending.encode())).decode()


async def test_ctrl_c_in_the_middle_of_a_replay_leaves_every_letter_done_or_untouched(cloud: Cloud) -> None:
    async with desk_at(cloud) as desk:
        for number in range(12):
            await desk.bury(enveloped(data=job_bytes(job_id=f"vod-{number}")))
        await desk.published()

        async with console_process(cloud, "replay", "--execute", "--json", "--rate", "20") as (process, _):
            first = [await read_until(process, "\n") for _ in range(3)]
            process.send_signal(signal.SIGINT)
            rest, _ = await process.communicate()

        lines = [json.loads(line) for line in [*first, *rest.decode().splitlines()]]
        replayed = [line for line in lines if line["outcome"] == "replayed"]
        assert process.returncode == 130
        assert lines[-1] == {"outcome": "summary", "replayed": len(replayed), "stay": 0}
        assert 3 <= len(replayed) < 12
        assert (await desk.published())[JOBS_TOPIC] == len(replayed)
        assert len(await desk.letters()) == 12 - len(replayed)


async def test_triage_on_a_terminal_does_what_is_answered_until_ctrl_c(cloud: Cloud, tmp_path: Path) -> None:
    export = tmp_path / "dropped.jsonl"
    async with desk_at(cloud) as desk:
        for number in range(4):
            await desk.bury(enveloped(data=job_bytes(job_id=f"vod-{number}")))
        await desk.published()

        async with console_process(cloud, "triage", "--export", str(export)) as (process, terminal):
            for answer in ("e\n", "force_method=deepgram\n", "\n", "r\n", "d\n"):
                await read_until(process, "> ")
                os.write(terminal, answer.encode())
            await read_until(process, "[q]uit > ")
            process.send_signal(signal.SIGINT)
            rest, _ = await process.communicate()

        assert process.returncode == 130
        assert "replayed 1, dropped 1, skipped 0; 2 of 4 untouched" in rest.decode()
        assert (await desk.published())[JOBS_TOPIC] == 1
        assert len(await desk.letters()) == 2
    assert len(export.read_text().splitlines()) == 1


COMMANDS = (
    ["list"],
    ["show", "dead"],
    ["replay"],
    ["replay", "--execute"],
    ["drop", "--export", "dropped.jsonl"],
    ["drop", "--export", "dropped.jsonl", "--execute"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
async def test_without_credentials_every_command_says_so_in_a_line(words: list[str], tmp_path: Path) -> None:
    nowhere = {"HOME": str(tmp_path), "NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path), "PATH": ""}

    done = await command("dlq", *words, environment=nowhere)

    assert (done.exit_code, len(done.output.splitlines())) == (1, 1), done.output
    assert "gcloud auth application-default login" in done.output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
async def test_without_a_server_every_command_says_so_in_a_line(words: list[str], tmp_path: Path) -> None:
    nowhere = {"HOME": str(tmp_path), "PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}

    done = await command("dlq", *words, environment=nowhere)

    assert (done.exit_code, len(done.output.splitlines())) == (1, 1), done.output
    assert "nothing listens on 127.0.0.1:1" in done.output
