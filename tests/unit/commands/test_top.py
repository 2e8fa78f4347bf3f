import io
import json
from typing import Any

import pytest
from rich.console import Console

from tests.support.workers.conditions import IDENTITY, condition
from worker.adapters.web.answers import Answer
from worker.adapters.web.http_server import HealthServer
from worker.app.status import Condition, health_answer
from worker.commands.top import Seen, screen, top
from worker.core.jobs.board import Totals


def health_of(seen: Condition) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(health_answer(IDENTITY, seen, 0.0).body)
    return told


def workers_of(*answers: dict[str, Any]) -> list[Seen]:
    return [Seen(url="http://w", document=answer) for answer in answers]


def shown(*workers: Seen, width: int = 180) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(screen(workers))
    return console.export_text()


def test_a_worker_at_work_is_shown_with_its_jobs_and_its_money() -> None:
    picture = shown(Seen(url="http://w", document=health_of(condition())))

    for told in (
        "1 of 1 worker ready",
        "9 jobs done, 1 failed",
        "33 %",
        "$0.0500 so far, 98.1 % below Deepgram",
        "fallback 5.0 %",
        "backlog 17",
        "NVIDIA L4",
        "83 % 61 °C",
        "6.0 of 20 GiB",
        "j1",
        "20:00 of 1:00:00",
        "0:24",
        "100x",
        "200x",
    ):
        assert told in picture, told


def test_two_workers_of_one_subscription_have_one_backlog() -> None:
    picture = shown(*(Seen(url=f"http://{name}", document=health_of(condition())) for name in "ab"))

    assert "backlog 17" in picture


def test_workers_that_load_or_do_not_answer_are_shown_as_that() -> None:
    loading = health_of(Condition(uptime_seconds=3.0))

    picture = shown(Seen(url="http://gone:1", document=None), Seen(url="http://w", document=loading))

    assert "0 of 2 workers ready" in picture
    assert "http://gone:1" in picture
    assert "no answer" in picture
    assert "the model is being loaded" in picture
    assert "start a worker" not in picture
    assert "start a worker" in shown(Seen(url="http://gone:1", document=None))


def test_one_look_is_printed(capsys: Any) -> None:
    page = Answer(status=200, body=json.dumps(health_of(condition())).encode())
    with HealthServer({"/health": lambda: page}, host="127.0.0.1", port=0) as server:
        top([server.url], interval_seconds=1.0, once=True)

    assert "w-1" in capsys.readouterr().out


def test_before_a_job_has_ended_there_are_no_sums() -> None:
    picture = shown(Seen(url="http://w", document=health_of(condition(totals=Totals()))))

    assert "no job has ended yet" in picture
    assert "$" not in picture


def test_a_job_is_shown_with_its_worker_at_80_columns() -> None:
    other = health_of(condition())
    other["worker"] = "w-2"
    other["jobs"]["running"][0]["job_id"] = "j2"

    lines = [line.split() for line in shown(*workers_of(health_of(condition()), other), width=80).splitlines()]

    assert [words[:2] for words in lines if words[:1] in (["j1"], ["j2"])] == [["j1", "w-1"], ["j2", "w-2"]]


def test_one_look_that_finds_no_worker_ends_with_1(capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        top(["http://127.0.0.1:1"], interval_seconds=1.0, once=True)

    assert ended.value.code == 1
    assert "no answer" in capsys.readouterr().out


def test_without_a_terminal_there_is_one_look(capsys: Any) -> None:
    page = Answer(status=200, body=json.dumps(health_of(condition())).encode())
    with HealthServer({"/health": lambda: page}, host="127.0.0.1", port=0) as server:
        top([server.url], interval_seconds=1.0, once=False)

    assert "w-1" in capsys.readouterr().out


def test_one_look_as_json_is_one_document(capsys: Any) -> None:
    page = Answer(status=200, body=json.dumps(health_of(condition())).encode())
    with HealthServer({"/health": lambda: page}, host="127.0.0.1", port=0) as server:
        top([server.url, "http://127.0.0.1:1"], interval_seconds=1.0, once=True, as_json=True)

    first, second = json.loads(capsys.readouterr().out)["workers"]
    assert (first["health"]["worker"], first["problem"]) == ("w-1", "")
    assert second == {"url": "http://127.0.0.1:1", "health": None, "problem": "no answer"}


def test_what_answers_but_is_no_worker_is_shown_as_that() -> None:
    answers: tuple[dict[str, Any], ...] = (
        {},
        {**health_of(condition()), "totals": []},
        {**health_of(condition()), "status": []},
        {"status": "ok"},
    )

    for answer in answers:
        assert "not a worker's answer" in shown(Seen(url="http://other", document=answer))
