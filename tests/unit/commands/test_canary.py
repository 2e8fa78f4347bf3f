import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from worker.cli.main import app

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "v1" / "events" / "cost.json").read_text())
STARTED = datetime.now(UTC) - timedelta(hours=3)


def event(number: int, revision: str, *, group: str = "parakeet", **fields: Any) -> dict[str, Any]:
    made = {
        **GOLDEN,
        "event_id": f"{revision}-{number}",
        "occurred_at": (STARTED + timedelta(seconds=number + 1000 * int(revision[-1]))).isoformat(),
        "revision": revision,
        "rollout_group": group,
        "processing_time_seconds": 18.0 + number % 3,
        "chunks_total": 6,
        "chunks_fallback": 0,
    }
    return {**made, **fields}


def judged(tmp_path: Path, events: list[dict[str, Any]], *options: str) -> Result:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*events, {"event_type": "other"}, "no event"]))
    return CliRunner().invoke(app, ["canary", "--file", str(path), "--json", *options])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_newest_revision_is_compared_with_the_one_before_it(tmp_path: Path) -> None:
    events = [event(number, f"pool-{which}") for which in (1, 2, 3) for number in range(300)]

    result = judged(tmp_path, events)

    assert result.exit_code == 0
    assert lines(result)[-1] == {"old": "pool-2", "new": "pool-3", "verdict": "pass"}
    assert {line["criterion"]: (line["old_sample"], line["new_sample"]) for line in lines(result)[:-1]} == {
        "success": (300, 300),
        "fallback": (1800, 1800),
        "speed": (300, 300),
        "cost": (300, 300),
    }


def test_a_worse_revision_ends_with_1(tmp_path: Path) -> None:
    events = [event(number, "pool-1") for number in range(300)]
    events += [event(number, "pool-2", outcome="failed" if number < 30 else "completed") for number in range(300)]

    result = judged(tmp_path, events)

    assert result.exit_code == 1
    assert lines(result)[0]["verdict"] == "fail"


def test_too_few_jobs_end_with_3(tmp_path: Path) -> None:
    result = judged(tmp_path, [event(number, f"pool-{which}") for which in (1, 2) for number in range(30)])

    assert result.exit_code == 3
    assert lines(result)[-1]["verdict"] == "not enough yet"


def test_the_groups_of_a_roll_out_are_compared(tmp_path: Path) -> None:
    events = [
        event(n, "pool-1", group=group, event_id=f"{group}-{n}")
        for group in ("parakeet", "deepgram")
        for n in range(300)
    ]

    result = judged(tmp_path, events, "--by", "group")

    assert lines(result)[-1] == {"old": "deepgram", "new": "parakeet", "verdict": "pass"}


def test_events_of_before_are_left_out(tmp_path: Path) -> None:
    events = [event(number, f"pool-{which}") for which in (1, 2) for number in range(300)]

    result = judged(tmp_path, events, "--since", "1h")

    assert result.exit_code == 2
    assert "two revisions with cost events are needed" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--by", "colour"), "--by"),
        (("--table", "costs"), "--table PROJECT.DATASET.TABLE"),
        (("--table", "p.d.t` WHERE TRUE; DROP TABLE x"), "--table PROJECT.DATASET.TABLE"),
        (("--file", "/nonexistent/events"), "does not exist"),
        (("--since", "soon"), "--since soon"),
    ],
)
def test_unusable_input_ends_with_2_and_one_line(options: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(app, ["canary", *options])

    assert result.exit_code == 2
    assert said in result.stderr


def test_the_costs_table_is_read_with_bq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for which in (1, 2):
        for number in range(300):
            one = event(number, f"pool-{which}")
            row = {
                "event_id": one["event_id"],
                "occurred_at": one["occurred_at"].split(".")[0] + "Z",
                "outcome": one["outcome"],
                "audio_seconds": one["audio_seconds"],
                "usd_total": one["usd_total"],
                "revision": one["revision"],
                "rollout_group": one["rollout_group"],
                "processing_time_seconds": one["processing_time_seconds"],
                "chunks_total": one["chunks_total"],
                "chunks_fallback": one["chunks_fallback"],
            }
            rows.append({name: None if value is None else str(value) for name, value in row.items()})
    (tmp_path / "rows").write_text(json.dumps(rows))
    (tmp_path / "bq").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\ncat {tmp_path}/rows\n')
    (tmp_path / "bq").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    result = CliRunner().invoke(app, ["canary", "--json", "--table", "klipstream.transcription.costs", "--since", "2d"])

    assert result.exit_code == 0, result.output
    assert lines(result)[-1]["verdict"] == "pass"
    asked = (tmp_path / "asked").read_text()
    assert "FROM `klipstream.transcription.costs` WHERE occurred_at >" in asked
    assert "INTERVAL 48 HOUR" in asked


def test_an_error_of_bq_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bq").write_text("#!/bin/sh\necho 'Access Denied: Table costs'\nexit 1\n")
    (tmp_path / "bq").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    result = CliRunner().invoke(app, ["canary", "--table", "a.b.c"])

    assert result.exit_code == 1
    assert "Access Denied: Table costs" in result.stderr


@pytest.mark.parametrize(("answer", "named"), [("no JSON", "'no JSON"), ('[{"event_id": "x"}]', "event_id")])
def test_an_answer_of_bq_that_is_none_is_quoted(
    answer: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bq").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (tmp_path / "bq").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    result = CliRunner().invoke(app, ["canary", "--table", "a.b.c"])

    assert result.exit_code == 1
    assert named in result.stderr


def test_bq_that_fails_without_a_word_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bq").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "bq").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    result = CliRunner().invoke(app, ["canary", "--table", "a.b.c"])

    assert (result.exit_code, "bq: ended with 3" in result.stderr) == (1, True)


def test_a_revision_without_events_is_named_with_those_there_are(tmp_path: Path) -> None:
    events = [event(number, f"pool-{which}") for which in (1, 2) for number in range(300)]

    result = judged(tmp_path, events, "--new", "pool-8")

    assert result.exit_code == 3
    assert "no cost event is of pool-8; in that time there is: pool-1, pool-2" in " ".join(result.stderr.split())


def test_a_person_reads_a_table(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event(n, f"pool-{w}")) + "\n" for w in (1, 2) for n in range(300)))

    result = CliRunner().invoke(app, ["canary", "--file", str(path)], env={"COLUMNS": "160"})

    assert result.exit_code == 0
    assert "300 jobs" in result.stdout
    assert "pool-2 against pool-1: pass" in result.stdout + result.stderr
