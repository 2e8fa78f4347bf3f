"""`--json` of every command: JSON on stdout, one document a line, and nothing else there."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import Result

from tests.support.jobs.ended_jobs import completed, cost_of, json_lines
from tests.support.workers.conditions import IDENTITY, condition
from tests.support.workers.console import console_on, run
from tests.unit.core.dead_letters.dead_letter_messages import enveloped, forwarded, job_bytes
from worker.adapters.web.answers import Answer
from worker.adapters.web.http_server import HealthServer
from worker.app.status import health_answer, live_answer
from worker.cli.main import app

WITHOUT = {
    "run": "a service: its log is JSON by LOG_FORMAT",
    "demo": "a show for people",
    "dev": "a service for people",
    "page": "a service: its page has no other form",
    "prepare": "writes a file",
    "dlq triage": "a dialogue; replay and drop do the same",
}


def commands_of(group: click.Group, name: str = "") -> Iterator[tuple[str, click.Command]]:
    for word, command in group.commands.items():
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            yield from commands_of(command, f"{name}{word} ")
        else:
            yield f"{name}{word}", command


def test_every_command_has_json_or_a_reason_not_to() -> None:
    found = {
        name: any("--json" in parameter.opts for parameter in command.params)
        for name, command in commands_of(typer.main.get_command(app))  # type: ignore[arg-type]
    }

    assert {name for name, has_it in found.items() if not has_it} == WITHOUT.keys()


@pytest.fixture
def url() -> Iterator[str]:
    pages = {
        "/health": lambda: health_answer(IDENTITY, condition(), 0.0),
        "/live": lambda: live_answer(condition(), 0.0),
        "/html": lambda: Answer(status=200, body=b"<html>"),
    }
    with HealthServer(pages, host="127.0.0.1", port=0) as server:
        yield server.url


@pytest.fixture
def events(tmp_path: Path) -> Path:
    file = tmp_path / "events.jsonl"
    both = [cost_of("a", parakeet_hours=1).model_copy(update={"revision": name}) for name in ("pool-1", "pool-2")]
    file.write_text(json_lines([*both, completed("a", chunks=18)]) + "\nnot json\n")
    return file


def check(done: Result, lines: int | None = None) -> None:
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(isinstance(document, dict) for document in documents)
    assert documents
    assert lines is None or len(documents) == lines


def test_health_top_and_costs_print_json_alone(url: str, events: Path) -> None:
    check(run("health", url, "--json", environment={}), 1)
    check(run("health", url, "--live", "--json", environment={}), 1)
    check(run("top", url, "http://127.0.0.1:1", "--once", "--json", environment={}), 1)
    check(run("costs", "--file", str(events), "--since", "900w", "--json", environment={}))
    check(run("costs", "--file", str(events), "--html", str(events.with_suffix(".html")), "--json", environment={}))
    check(run("costs", "--explain", "--json", environment={}), 1)
    check(run("canary", "--file", str(events), "--since", "900w", "--json", environment={}))
    check(run("emulators", "--env", "--json", environment={}), 1)


def test_the_dead_letter_console_prints_json_alone(tmp_path: Path) -> None:
    def console(*words: str) -> Result:
        return run("dlq", *words, "--json", environment=os.environ)

    letters = [enveloped(data=job_bytes(job_id=f"vod-{number}"), run=3 * (number % 2)) for number in range(4)]
    with console_on([*letters, forwarded(data=job_bytes(job_id="given-up"))]):
        check(console("list"), 5)
        check(console("list", "--by", "code"), 2)
        check(console("list", "--most", "2"), 2)
        check(console("list", "--code", "EXPIRED", "--code", "AUDIO_NOT_FOUND"), 4)
        check(console("show", json.loads(console("list").stdout.splitlines()[0])["dead_letter_id"][:8]), 1)
        check(console("replay"), 6)
        check(console("drop", "--export", str(tmp_path / "x")), 6)
        check(console("replay", "--code", "AUDIO_NOT_FOUND", "--execute"), 5)
        check(console("drop", "--code", "AUDIO_NOT_FOUND", "--export", str(tmp_path / "x"), "--execute"), 3)
