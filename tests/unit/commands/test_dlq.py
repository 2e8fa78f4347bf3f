"""The dead-letter console's commands on a broker in memory: what they print, what they leave, how they end."""

import json
import os
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.support.jobs.harness import JobsRoom
from tests.support.workers.console import Broker, console_on, run
from tests.unit.core.dead_letters.dead_letter_messages import enveloped, forwarded, job_bytes
from worker.commands import dlq_desk
from worker.core.jobs.attempt import Jobs
from worker.errors import QueueServiceError


def letters(count: int) -> list[Any]:
    return [enveloped(data=job_bytes(job_id=f"vod-{number}")) for number in range(count)]


def console(*words: str) -> Result:
    return run("dlq", *words, environment=os.environ)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobsRoom:
    """Adopter of letters for the console, on twins."""
    found = JobsRoom(tmp_path)

    @asynccontextmanager
    async def jobs(*_: Any) -> AsyncIterator[Jobs]:
        yield found.jobs

    monkeypatch.setattr(dlq_desk, "_jobs", jobs)
    return found


def test_letters_are_there_for_the_next_console_once_one_has_looked() -> None:
    with console_on(letters(3)) as broker:
        shown = [console("list"), console("replay"), console("list", "--json")]

        assert len(broker.free()) == 3
    assert [one.exit_code for one in shown] == [0, 0, 0]


def test_columns_that_do_not_fit_are_printed_below_the_table() -> None:
    with console_on(letters(3)):
        told = console("list", "--json", "--most", "2")

    assert len([json.loads(line) for line in told.stdout.splitlines()]) == 2
    assert "2 messages are the most held at once" in told.stderr


def test_an_outage_ends_a_replay_and_the_finished_part_is_printed() -> None:
    with console_on(letters(5)) as broker:
        broker.error, broker.publishes = QueueServiceError("publish to", "jobs", "503"), 2
        ended = console("replay", "--execute", "--rate", "1000")

        assert ended.exit_code == 1
        assert "replayed 2, 0 stay" in ended.stdout
        assert ended.stderr.count("Pub/Sub could not publish to jobs (503)") == 1
        assert len(broker.free()) == 3

        broker.error = None
        again = console("replay", "--execute", "--rate", "1000")
        assert (again.exit_code, "replayed 3, 0 stay" in again.stdout) == (0, True)
        assert len(broker.free("jobs")) == 5


def test_a_code_finds_what_the_run_itself_adopts(room: JobsRoom) -> None:
    with console_on([forwarded(data=job_bytes(audio_uri="gs://audio/1.mp3")), *letters(1)]) as broker:
        room.jobs.tools.dead_letters.messages = Into(broker, "dead")
        done = console("replay", "--code", "ATTEMPTS_EXHAUSTED", "--execute")

        assert (done.exit_code, "replayed 1, 0 stay" in done.stdout) == (0, True), done.output
        assert [letter.attributes["job_id"] for letter in broker.free()] == ["vod-0"]
        assert [delivery.attributes["run"] for delivery in broker.free("jobs")] == ["1"]
    assert [event.event_type.value for event in room.events] == ["transcription.failed", "transcription.cost"]


def test_what_cannot_be_adopted_stays_with_its_reason_and_is_neither_replayed_nor_dropped(
    room: JobsRoom, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise QueueServiceError("publish to", "completions", "403", refused=True)

    monkeypatch.setattr(room.completions, "publish", refuse)
    with console_on([forwarded(), forwarded(data=job_bytes(job_id="second")), *letters(2)]) as broker:
        replayed = console("replay", "--execute", "--rate", "1000")
        dropped = console("drop", "--export", str(tmp_path / "dropped.jsonl"), "--execute")

        assert (replayed.exit_code, dropped.exit_code) == (1, 1)
        assert "replayed 2, 2 stay" in replayed.stdout
        assert "not adopted: Pub/Sub could not publish to completions: 403" in replayed.stdout
        assert dlq_desk.NOT_TRIED in replayed.stdout
        assert len(broker.free()) == 2
    assert (tmp_path / "dropped.jsonl").read_text() == ""


def test_an_export_that_cannot_be_written_prints_one_line_and_drops_nothing(tmp_path: Path) -> None:
    with console_on(letters(1)) as broker:
        ended = console("drop", "--export", str(tmp_path / "missing" / "x.jsonl"), "--execute")

        assert (ended.exit_code, len(ended.stderr.splitlines())) == (1, 1)
        assert "No such file or directory" in ended.stderr
        assert len(broker.free()) == 1


def test_a_full_disk_prints_one_line_and_releases_the_held_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worker.core.dead_letters.hold.Spool.put", full)
    with console_on(letters(1)) as broker:
        ended = console("replay")

        assert (ended.exit_code, len(ended.stderr.splitlines())) == (1, 1)
        assert "No space left on device" in ended.stderr
        assert len(broker.queue("dead-sub").held) == 1


class Into:
    """Passes what a recording topic takes on to a broker."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker, self._topic = broker, topic

    def append(self, message: tuple[bytes, dict[str, str]]) -> None:
        self._broker.publish(self._topic, *message, "")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("name", ["--json", "-h", "--", "--debug", "a b; rm x"])
def test_the_commands_of_a_card_act_on_that_letter_alone_whatever_its_id_is(name: str, tmp_path: Path) -> None:
    strange = replace(enveloped(unchecked=True), data=b"{}", attributes={"envelope": "1", "dead_letter_id": name})
    with console_on([strange, *letters(3)]):
        card = console("show", "--", name)
        (drop,) = re.findall(r"^drop (?:.*\\\n)*.*", card.stdout, re.MULTILINE)
        words = shlex.split(drop.replace("\\\n", ""))  # as a shell does
        command = [str(tmp_path / "x") if word == "dropped.jsonl" else word for word in words[words.index("dlq") + 1 :]]
        done = console(*command)
        left = console("list", "--json").stdout.splitlines()

    assert (card.exit_code, done.exit_code) == (0, 0)
    assert sorted(json.loads(line)["job_id"] for line in left) == ["vod-0", "vod-1", "vod-2"]
