"""`health` on a terminal and through a pipe, with answers of workers and of others."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner, Result

from tests.support.hostile_text import hostile_text, is_visible
from tests.support.workers.conditions import IDENTITY, condition, consumer_snapshot
from worker.adapters.web.answers import Answer
from worker.adapters.web.http_server import HealthServer
from worker.app.status import Condition, Disk, health_answer, live_answer
from worker.cli.main import app
from worker.commands.health import health
from worker.commands.top import answer_card

AT_WORK = condition(disk=Disk(path="/tmp", free_bytes=3 * 1024**3, total_bytes=8 * 1024**3), oldest_message_seconds=90)  # noqa: S108


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(answer: Answer, *, as_json: bool = False, page: str = "health") -> tuple[str, object]:
    """Return what is printed, and the exit status."""
    terminal = Terminal()
    with (
        HealthServer({f"/{page}": lambda: answer}, host="127.0.0.1", port=0) as server,
        redirect_stdout(terminal),
        pytest.raises(SystemExit) as ended,
    ):
        health(server.url, page, as_json=as_json)
    return terminal.getvalue(), ended.value.code


def piped(answer: Answer, *options: str) -> Result:
    with HealthServer({"/health": lambda: answer}, host="127.0.0.1", port=0) as server:
        return CliRunner().invoke(app, ["health", server.url, *options])


def card_of(answer: Answer, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(answer_card("health", json.loads(answer.body)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_terminal_gets_a_card_and_the_status_of_the_answer() -> None:
    printed, code = on_a_terminal(health_answer(IDENTITY, AT_WORK, 0.0))
    text = "\n".join(card_of(health_answer(IDENTITY, AT_WORK, 0.0)))

    assert code == 0
    assert "healthy" in printed
    for fact in (
        "healthy  w-1",
        "1 of 4 in flight",
        "33 %  j1",
        "17 messages of jobs, the oldest for 2 min",
        "2 min: 9 jobs done, 1 failed, 200x, $0.0500, fallback 5.0 %",
        "j0 completed in 9.0 s, 200x real time",
        "parakeet on NVIDIA L4",
        "NVIDIA L4, 83 % busy, 61 °C, 6.0 of 24 GiB",
        "3.0 of 8.0 GiB free in /tmp",
        "no key: no fallback",
    ):
        assert fact in text, fact


def test_a_worker_that_loads_is_a_card_with_the_reason_and_ends_with_1() -> None:
    printed, code = on_a_terminal(health_answer(IDENTITY, Condition(uptime_seconds=3.0), 0.0))

    assert code == 1
    assert "loading" in printed
    assert "the model is being loaded" in printed
    assert "no job has ended yet" in printed


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_pipe_gets_the_document_as_the_worker_sent_it(options: tuple[str, ...]) -> None:
    answer = health_answer(IDENTITY, AT_WORK, 0.0)

    done = piped(answer, *options)

    assert (done.exit_code, json.loads(done.stdout)) == (0, json.loads(answer.body))


def test_json_can_be_asked_for_on_a_terminal() -> None:
    printed, _ = on_a_terminal(health_answer(IDENTITY, AT_WORK, 0.0), as_json=True)

    assert json.loads(printed)["worker"] == "w-1"


def test_live_on_a_terminal_is_a_word_and_a_reason() -> None:
    alive = on_a_terminal(live_answer(AT_WORK, 0.0), page="live")
    stuck = on_a_terminal(live_answer(AT_WORK, 60.0), page="live")

    assert ("yes" in alive[0], alive[1]) == (True, 0)
    assert ("the event loop has been blocked for 60 s" in stuck[0], stuck[1]) == (True, 1)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"status": "ok"}', b"<html>", b"\xff", b"1e999"],
)
def test_an_answer_that_is_no_worker_s_is_not_printed(body: bytes) -> None:
    for page in ("health", "live"):
        assert on_a_terminal(Answer(status=503, body=body), page=page) == ("", 1)


def test_there_is_no_card_of_a_document_that_is_no_worker_s() -> None:
    assert answer_card("live", {"live": "ok"}) is None
    assert answer_card("health", {"worker": "w"}) is None


def spoilt(document: Any, text: str) -> Any:
    """The document with hostile text for every string of it."""
    if isinstance(document, dict):
        return {name: spoilt(value, text) for name, value in document.items()}
    if isinstance(document, list):
        return [spoilt(value, text) for value in document]
    return text if isinstance(document, str) else document


@given(text=hostile_text)
def test_the_card_shows_it_as_text_in_every_width(text: str) -> None:
    document = spoilt(json.loads(health_answer(IDENTITY, AT_WORK, 0.0).body), text)
    document["last_jobs"] = [{**document["last_jobs"][0], "ended_at": "2026-11-22T10:00:00Z"}]
    body = json.dumps(document).encode()

    for width in (20, 40, 80):
        lines = card_of(Answer(status=200, body=body), width)
        assert max(map(cell_len, lines)) <= width
        assert all(map(is_visible, lines))


@pytest.mark.parametrize(
    ("failure", "shown"), [("", "2 messages of jobs-urgent, the oldest for 31 s"), ("403", "no pull: 403")]
)
def test_the_card_has_the_subscription_of_urgent_jobs_where_there_is_one(failure: str, shown: str) -> None:
    seen = condition(
        consumer=consumer_snapshot(urgent_pull_failure=failure), urgent_backlog=2, oldest_urgent_seconds=31
    )

    with_one, without = (
        "\n".join(card_of(health_answer(identity, seen, 0.0)))
        for identity in (replace(IDENTITY, urgent_subscription="jobs-urgent"), IDENTITY)
    )

    assert shown in with_one
    assert "urgent" not in without
