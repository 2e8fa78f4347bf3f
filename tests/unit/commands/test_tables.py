"""Every table at 40 to 200 columns and through a pipe: no line too wide, no header cut, no column empty."""

import io
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

from schemas.codes import ErrorCode, Method
from schemas.speech import Word
from tests.support.hostile_text import HOSTILE, hostile_text, is_visible
from tests.support.jobs.ended_jobs import completed, cost_of
from tests.support.jobs.messages import failed_event
from tests.support.workers.conditions import IDENTITY, condition
from tests.unit.core.dead_letters.dead_letter_messages import enveloped
from worker.app.status import health_answer
from worker.commands import accuracy, canary, costs, demo, dlq, top, validate
from worker.commands.accuracy import ManifestEntry, score
from worker.commands.canary import Judgement
from worker.commands.tables import Card, Command, Field, FittedTable, age, bar, beside_deepgram, print_fitted
from worker.commands.top import answer_card
from worker.commands.validate import Trial, judged
from worker.core.costs.report import report
from worker.core.dead_letters.entries import DeadLetterEntry, entry_of, read

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
LONG = "klipstream-worker-production-00012-abc@00f46b92c5d8e3a17f"
NAMES = (LONG, "w-1", "日本語の名前", *HOSTILE)


def seen_workers() -> RenderableType:
    workers = [top.Seen(url=f"http://{name}:8080/", document=None) for name in NAMES]
    for name in NAMES:
        health = json.loads(health_answer(IDENTITY, condition(), 0.0).body)
        health["worker"], health["reason"] = name, name
        (job,) = health["jobs"]["running"]
        health["jobs"]["running"] = [{**job, "job_id": name, "video_id": name} for _ in range(3)]
        workers.append(top.Seen(url="http://w", document=health))
    return top.screen(workers)


def cost_report() -> RenderableType:
    days = [
        cost_of(f"j{day}", at=NOW - timedelta(days=day), parakeet_hours=1000, deepgram_hours=1) for day in range(40)
    ]
    return costs._table(report(days, NOW - timedelta(days=50)), "7d")


def jobs_and_promises() -> RenderableType:
    ends = (completed("a", chunks=18), failed_event(), None)
    trials = [Trial(job_id=name, audio_uri=name, method=Method.AUTO, event=end) for name in NAMES for end in ends]
    trials[0].cost = cost_of("a", parakeet_hours=3)
    return validate._job_table(trials)


def promises() -> RenderableType:
    trials = [Trial(job_id="a", audio_uri="a", method=Method.AUTO, event=completed("a", chunks=18))]
    return validate._verdict_table(judged(trials))


def revisions() -> RenderableType:
    names = ("success", "fallback", "speed", "cost")
    judgements = [
        Judgement(criterion=name, verdict="not enough yet", old=0.9, new=None, old_sample=123_456, new_sample=0)
        for name in names
    ]
    return canary._table(judgements, LONG, "\x1b[2J" + LONG)


def word_errors() -> RenderableType:
    entries = [ManifestEntry(audio=Path(name.replace("\0", "")), text="one two", condition=name) for name in NAMES]
    return accuracy.table([score(entry, 3600.0, [Word("one", 0.0, 0.5, 0.9)]) for entry in entries])


def dead_letters() -> tuple[DeadLetterEntry, ...]:
    codes = ("AUDIO_NOT_FOUND", "TRANSCRIPTION_FALLBACK_FAILED", LONG)
    return tuple(
        replace(
            entry_of(enveloped(run=number)),
            job_id=name,
            video_id=name,
            code=codes[number % 3],
            reason=f"no object at gs://{name}/" * 9,
            failed_at=NOW - timedelta(hours=number),
            attempts=number,
            copies=("1", "2"),
        )
        for number, name in enumerate([*NAMES, None] * 3)
    )


def letters_in_a_table() -> RenderableType:
    return dlq.table(dead_letters(), NOW)


def letters_counted() -> RenderableType:
    return dlq.counts(dead_letters())


def letters_in_groups() -> RenderableType:
    return dlq.groups(dead_letters(), NOW)


def one_letter() -> RenderableType:
    entry = dead_letters()[0]
    letter = replace(read(enveloped()), message=LONG * 9, violations=HOSTILE, worker=LONG, data=b"\x1b[2J" * 99)
    return dlq.letter_card(entry, letter, entry.dead_letter_id[:8], NOW)


def health() -> RenderableType:
    card = answer_card("health", json.loads(health_answer(IDENTITY, condition(), 0.0).body))
    assert card is not None
    return card


def demo_costs() -> RenderableType:
    return demo._costs([cost_of("demo-1", parakeet_hours=1), cost_of(None, deepgram_hours=1000)])


CARDS = (letters_counted, letters_in_groups, one_letter, health)
TABLES = (
    letters_in_a_table,
    seen_workers,
    cost_report,
    jobs_and_promises,
    promises,
    revisions,
    word_errors,
    demo_costs,
)


def lines_at(shown: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def piped(shown: RenderableType) -> list[str]:
    """Return the lines as a command prints them without a terminal."""
    printed = io.StringIO()
    without = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with redirect_stdout(printed), mock.patch.dict(os.environ, without, clear=True):
        print_fitted(shown)
    return printed.getvalue().splitlines()


def headers(lines: list[str]) -> list[str]:
    """Return the line above each rule that begins with the name of a first column."""
    firsts = {"id", "worker", "job", "day", "criterion", "file"}
    above = [line for line, below in pairwise(lines) if below and set(below) == {"─"}]
    return [line for line in above if line.split()[:1] and line.split()[0] in firsts]


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("table", TABLES)
def test_a_table_fits_its_terminal_with_whole_headers(table: Callable[[], RenderableType], width: int) -> None:
    lines = lines_at(table(), width)

    assert max(map(cell_len, lines)) <= width
    assert all(map(is_visible, lines))
    assert not any("…" in line for line in headers(lines))
    assert headers(lines) or width == 40


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("card", CARDS)
def test_a_card_fits_its_terminal(card: Callable[[], RenderableType], width: int) -> None:
    lines = lines_at(card(), width)

    assert max(map(cell_len, lines)) <= width
    assert all(map(is_visible, lines))


@pytest.mark.parametrize("table", [*TABLES, *CARDS])
def test_through_a_pipe_every_value_is_whole(table: Callable[[], RenderableType]) -> None:
    lines = piped(table())

    assert all(map(is_visible, lines))
    assert not any("…" in line for line in lines)
    assert not any(line.endswith(" ") for line in lines)


FIELDS = (Field(name="id", least=8), Field(name="empty"), Field(name="code"), Field(name="reason", rank=1, least=10))
ROWS = [("0123456789abcdef", "", "AUDIO_NOT_FOUND", "no object at gs://bucket/1.mp3"), ("b", "-", "EXPIRED", "late")]


def table_at(width: int) -> list[str]:
    return lines_at(FittedTable(fields=FIELDS, rows=ROWS, title="letters"), width)


def test_a_column_without_values_is_not_shown() -> None:
    assert table_at(100)[1].split() == ["id", "code", "reason"]


def test_long_values_are_shortened_before_a_column_of_use_is_left_out() -> None:
    assert table_at(40)[1].split() == ["id", "code", "reason"]
    assert "01234567…" in table_at(40)[3]
    assert table_at(30)[1].split() == ["id", "code"]


def test_a_column_that_matters_gets_a_good_width_before_one_that_may_be_left_out() -> None:
    fields = (Field(name="reason", least=5, good=20), Field(name="run", rank=1))
    table = FittedTable(fields=fields, rows=[("no object at gs://bucket/1.mp3", "1")])

    assert lines_at(table, 24)[0].split() == ["reason"]
    assert lines_at(table, 25)[2] == "no object at gs://b…  1"


def test_an_id_is_shortened_in_its_middle() -> None:
    table = FittedTable(fields=[Field(name="id", least=8, is_id=True)], rows=[("0123456789abcdef",), ("語" * 9,)])

    assert lines_at(table, 8)[2:] == ["012…cdef", "語 …語語"]


def test_a_terminal_too_narrow_for_the_columns_gets_cards() -> None:
    lines = table_at(20)

    assert lines[1].split() == ["id", "0123456789ab"]
    assert [line.split()[0] for line in lines if line.startswith("code")] == ["code", "code"]
    assert max(map(len, lines)) <= 20


def test_an_empty_table_has_its_header() -> None:
    lines = lines_at(FittedTable(fields=FIELDS, rows=[]), 80)

    assert lines[0].split() == ["id", "empty", "code", "reason"]


@given(
    texts=st.lists(hostile_text, min_size=4, max_size=4),
    width=st.integers(min_value=12, max_value=130),
)
def test_whatever_it_holds_a_table_fits(texts: list[str], width: int) -> None:
    lines = lines_at(FittedTable(fields=FIELDS, rows=[texts, texts], title=texts[0]), width)
    lines += lines_at(Card(facts=[("reason", text) for text in texts]), width)

    assert all(cell_len(line) <= width for line in lines)
    assert all(map(is_visible, lines))


def test_a_pipe_with_columns_set_gets_that_width() -> None:
    printed = io.StringIO()
    with redirect_stdout(printed), mock.patch.dict(os.environ, {"COLUMNS": "40"}):
        print_fitted(FittedTable(fields=FIELDS, rows=ROWS), Text("and a sentence that is longer than forty columns"))

    assert max(map(len, printed.getvalue().splitlines())) <= 40


def test_a_bar_shows_the_share_that_is_done() -> None:
    assert bar(20, 60).plain == "━━━─────── " + " 33 %"
    assert bar(0, None).plain == "─" * 10 + "   0 %"
    assert bar(9, 6).plain == "━" * 10 + " 100 %"


def test_spans_are_in_their_largest_unit() -> None:
    seconds = (0.4, 59, 60, 3600, 7200, 47 * 3600, 172_800)

    assert [age(one) for one in seconds] == ["0 s", "59 s", "1 min", "60 min", "2 h", "47 h", "2 d"]
    assert age(timedelta(minutes=5)) == "5 min"
    assert age(None) == "-"


def test_a_terminal_of_no_columns_is_one_of_the_usual_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "0")

    print_fitted(Card(facts=[("worker", "w-1")]))

    assert capsys.readouterr().out == "worker  w-1\n"


@pytest.mark.parametrize("width", [20, 28, 40, 59, 60, 61, 68, 71, 72, 80, 120])
def test_a_command_that_is_too_long_for_a_line_is_still_one_command_when_pasted(width: int) -> None:
    words = ("klipstream-worker", "dlq", "drop", "--export", "dropped.jsonl", "--execute", "--", "-a b")
    lines = [line.plain for line in Command(words).lines(width)]

    pasted = subprocess.run(
        ["sh", "-c", "print() { printf '%s\\n' \"$@\"; }; print " + "\n".join(lines)],
        stdout=subprocess.PIPE,
        check=True,
    )

    assert pasted.stdout.decode().splitlines() == list(words)
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert max(map(len, lines)) <= width


def test_control_characters_of_a_commands_words_are_escaped() -> None:
    (line,) = Command(("dlq", "show", "\x1b[2J")).lines(80)

    assert "\x1b" not in line.plain


def test_a_cost_above_deepgrams_is_called_that() -> None:
    assert [beside_deepgram(98.06), beside_deepgram(-30)] == ["98.1 % below Deepgram", "30.0 % above Deepgram"]


def test_the_replay_of_an_expired_letter_takes_its_time_away() -> None:
    letter = enveloped(code=ErrorCode.EXPIRED)
    entry = entry_of(letter)

    shown = [dlq.letter_card(entry, read(letter), "51c6", NOW), dlq.groups([entry], NOW)]

    assert all("--set expires_at=null --execute" in "\n".join(lines_at(one, 200)) for one in shown)
