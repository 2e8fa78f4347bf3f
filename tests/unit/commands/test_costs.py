import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from schemas.state import ResultMarker, StoredMessage
from tests.support.jobs.ended_jobs import completed, cost_of, failed, json_lines
from worker.adapters.memory.store import MemoryObjectStore
from worker.cli.main import app
from worker.commands.costs import parse_span, read_results
from worker.commands.costs_page import page
from worker.core.costs.report import CostReport, report
from worker.ports import ObjectRef

NOW = datetime.now(UTC)
RUNNER = CliRunner()
EVENTS = (
    cost_of("a", at=NOW - timedelta(hours=1), parakeet_hours=3),
    completed("a", chunks=18),
    cost_of("b", at=NOW - timedelta(hours=1), parakeet_hours=1, deepgram_hours=1),
    completed("b", chunks=12, fallback=6),
)


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text(json_lines(EVENTS))
    return path


def run(*arguments: str) -> str:
    ended = RUNNER.invoke(app, ["costs", *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_the_report_of_a_file_as_json(events_file: Path) -> None:
    rows = [json.loads(line) for line in run("--file", str(events_file), "--json").splitlines()]

    assert [(row["day"] == "all", row["engine"]) for row in rows] == [
        (False, "deepgram"),
        (False, "parakeet"),
        (False, "all"),
        (True, "deepgram"),
        (True, "parakeet"),
        (True, "all"),
    ]
    assert rows[1] == {
        "day": rows[0]["day"],
        "engine": "parakeet",
        "audio_hours": 4.0,
        "usd": 0.08,
        "usd_per_audio_hour": 0.02,
        "savings_percent": 92.59,
    }
    assert rows[-1] == {
        "day": "all",
        "engine": "all",
        "audio_hours": 5.0,
        "usd": 0.35,
        "usd_per_audio_hour": 0.07,
        "savings_percent": 74.07,
        "jobs": 2,
        "failed_jobs": 0,
        "fallback_percent": 20.0,
    }


def test_the_report_as_a_table(events_file: Path) -> None:
    shown = run("--file", str(events_file), "--since", "2w")

    assert "costs of the last 2w" in shown
    assert re.search(r"all +all +5\.00 +0\.3500 +0\.0700 +20\.0 % +74\.1 % +2 +0\n", shown)


def test_older_jobs_are_left_out(events_file: Path) -> None:
    events_file.write_text(json_lines([cost_of("a", at=NOW - timedelta(hours=25), parakeet_hours=1), *EVENTS]))

    rows = [json.loads(line) for line in run("--file", str(events_file), "--since", "24h", "--json").splitlines()]

    assert rows[-1]["jobs"] == 2


def test_lines_that_are_no_events_are_counted_and_left_out(events_file: Path) -> None:
    with events_file.open("a") as file:
        file.write("\n{}\nnot json\n")

    for options in ([], ["--json"]):
        ended = RUNNER.invoke(app, ["costs", "--file", str(events_file), *options])

        assert "2 entries could not be read" in ended.stderr
        assert "entries" not in ended.stdout


def test_a_file_without_any_event_is_no_report_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes\n\ntext\n")

    ended = RUNNER.invoke(app, ["costs", "--file", str(tmp_path / "notes.md")])

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "none of its lines is an event" in " ".join(ended.stderr.split())


def test_a_mark_before_the_first_line_costs_no_event(events_file: Path) -> None:
    before = run("--file", str(events_file), "--json")
    events_file.write_bytes(b"\xef\xbb\xbf" + events_file.read_bytes())

    assert run("--file", str(events_file), "--json") == before


@pytest.mark.parametrize("wrong", ["", "7", "7m", "-7d", "d", "7 d", "999999d"])
def test_a_span_that_is_none_is_a_usage_error(wrong: str) -> None:
    ended = RUNNER.invoke(app, ["costs", f"--since={wrong}", "--file", "x"])

    assert ended.exit_code == 2


def test_spans() -> None:
    assert [parse_span(text) for text in ("36h", "7d", "2w")] == [
        timedelta(hours=36),
        timedelta(days=7),
        timedelta(days=14),
    ]


def test_a_missing_file_is_reported() -> None:
    ended = RUNNER.invoke(app, ["costs", "--file", "/nowhere/events.jsonl"])

    assert ended.exit_code == 2
    assert "does not exist" in ended.stderr


def test_without_a_state_bucket_there_must_be_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_BUCKET", raising=False)

    ended = RUNNER.invoke(app, ["costs"])

    assert ended.exit_code == 2
    assert "STATE_BUCKET" in ended.stderr


def test_the_figures_behind_the_promise_can_be_seen() -> None:
    shown = run("--explain")

    for hours, usd in ((1, "0.270"), (3, "0.810"), (6, "1.620")):
        assert re.search(rf"{hours} +{usd} +0\.\d+ +91\.6 %", shown)
    assert "4 vCPU / 16 GiB saves 90 % from 33.5 times real time on" in shown
    assert "8 vCPU / 32 GiB saves 90 % from 42.2 times real time on" in shown


def test_the_figures_behind_the_promise_as_json() -> None:
    document = json.loads(run("--explain", "--json"))

    assert [(shape["vcpus"], shape["speed_for_90_percent"]) for shape in document["shapes"]] == [(4, 33.52), (8, 42.16)]


def marker(job_id: str, *events: object) -> bytes:
    stored = tuple(StoredMessage(topic="completion", data=event.model_dump_json(), attributes={}) for event in events)
    made = ResultMarker(job_id=job_id, fingerprint="f", run=0, outcome="completed", messages=stored, concluded_at=NOW)
    return made.model_dump_json().encode()


async def test_results_are_read_from_the_bucket_and_what_is_older_is_not_even_opened() -> None:
    moment = NOW - timedelta(days=30)
    store = MemoryObjectStore(lambda: moment)
    await store.write(ObjectRef("state", "results/old.json"), b"unreadable, and old", content_type="")
    moment = NOW
    await store.write(ObjectRef("state", "results/a.json"), marker("a", *EVENTS[:2]), content_type="")
    await store.write(ObjectRef("state", "results/b.json"), marker("b", cost_of("b"), failed("b")), content_type="")
    await store.write(ObjectRef("state", "results/c.json"), b"unreadable", content_type="")
    await store.write(ObjectRef("state", "claims/a.json"), b"unreadable", content_type="")

    events, unreadable = await read_results(store, "state", NOW - timedelta(days=7))

    assert list(events) == [*EVENTS[:2], cost_of("b"), failed("b")]
    assert unreadable == 1


def pages(found: CostReport) -> str:
    return page(found, start=NOW - timedelta(days=7), end=NOW)


def parsed(made: str) -> ET.Element:
    """The page as XML, which it is but for its doctype and its void elements."""
    return ET.fromstring(re.sub(r"<!doctype html>|<meta[^>]*>", "", made))  # noqa: S314 - our own page


MONTH = report(
    [
        cost_of(f"job-{day}", at=NOW - timedelta(days=day), parakeet_hours=day % 5, deepgram_hours=day % 3)
        for day in range(31)
    ],
    NOW - timedelta(days=40),
)


@pytest.mark.parametrize("found", [CostReport(days={}), report(EVENTS, NOW - timedelta(days=1)), MONTH])
def test_the_page_is_well_formed_needs_nothing_from_elsewhere_and_speaks(found: CostReport) -> None:
    made = pages(found)

    tree = parsed(made)
    drawings = [element for element in tree.iter() if element.tag == "svg"]
    assert not re.search(r"https?://|src=|href=|<script|@import|url\(", made)
    assert len(drawings) == 4
    assert all(drawing.get("role") == "img" and drawing.get("aria-label") for drawing in drawings)
    assert "color-scheme: light dark" in made
    assert not re.search(r"\b(nan|inf|None)\b", made)


def test_every_figure_of_the_page_is_in_its_table() -> None:
    made = pages(report(EVENTS, NOW - timedelta(days=1)))

    tree = parsed(made)
    table = [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]
    assert table[0] == ["day", "engine", "audio h", "USD", "USD / audio h", "fallback", "saved", "jobs", "failed"]
    assert table[-1] == ["all", "all", "5.00", "0.3500", "0.0700", "20.0 %", "74.1 %", "2", "0"]


def test_the_command_writes_the_page(events_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "costs.html"

    shown = run("--file", str(events_file), "--html", str(target))

    assert str(target.name) in shown.replace("\n", "")
    assert target.read_text("utf-8").startswith("<!doctype html>")
