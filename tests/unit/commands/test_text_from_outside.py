"""Every command shows text from outside as text: no control characters, no markup, no links, whatever it holds."""

import asyncio
import io
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner, Result

from schemas.codes import ErrorCode, Method
from schemas.events import Artefacts, OtherEngineCost, StoredArtefact
from schemas.job import JobRejected
from tests.support.hostile_text import HOSTILE, hostile_text, hostile_unicode, is_visible, without_colours
from tests.support.jobs.messages import completed_events, cost_events, failed_event, failed_events
from tests.support.workers.conditions import IDENTITY, condition
from tests.support.workers.console import console_on, run
from tests.unit.core.dead_letters.dead_letter_messages import enveloped, forwarded
from worker.app.preflight import Finding
from worker.app.status import health_answer
from worker.commands import check, costs, dlq, health, local_files, submit, validate
from worker.commands.console import cell, fail, out, say
from worker.commands.costs_page import page
from worker.commands.group import CommandGroup
from worker.commands.top import Seen, screen
from worker.commands.validate import Trial, judged
from worker.core.costs.report import report
from worker.core.dead_letters.entries import Selection
from worker.core.dead_letters.replay import ReplayRules
from worker.core.jobs.reporting import KeytermFields
from worker.ports import Delivery
from worker.telemetry.logs import PlainFormatter

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
few = settings(max_examples=25)


@contextmanager
def printed() -> Iterator[io.StringIO]:
    """Return stdout and stderr, which must be visible; an exit of the command is no error."""
    told = io.StringIO()
    wide = mock.patch.dict(os.environ, {"COLUMNS": "300"})
    with redirect_stdout(told), redirect_stderr(told), wide, suppress(typer.Exit, SystemExit):
        yield told
    assert is_visible(told.getvalue().replace("\n", "")), ascii(told.getvalue())


def on_a_terminal(renderable: Any) -> str:
    """Return the terminal's output."""
    console = Console(file=io.StringIO(), force_terminal=True, width=300)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def envelope(text: str) -> Delivery:
    document = json.loads(enveloped().data)
    told = {"dead_letter_id": text[:100], "message": text, "code": text[:100], "violations": [text], "worker": text}
    attributes = {"envelope": text, "dead_letter_id": text, "code": text, "job_id": text, "video_id": text, text: text}
    return replace(enveloped(), data=json.dumps({**document, **told}).encode(), attributes=attributes)


def letters(text: str) -> list[Delivery]:
    job = json.dumps({"job_id": text, "video_id": text, "audio_uri": f"gs://bucket/{text}", text: text}).encode()
    whole = forwarded(
        data=json.dumps({"job_id": "j", "video_id": "v", "audio_uri": "gs://bucket/a", text: text}).encode()
    )
    return [
        envelope(text),
        replace(envelope(text), data=text.encode()),
        replace(whole, attributes={**whole.attributes, "run": text, text: text}),
        forwarded(data=job),
        replace(forwarded(data=job), attributes={text: text}),
    ]


@few
@given(text=hostile_unicode)
def test_dlq_list_shows_it_as_text(text: str) -> None:
    with console_on(letters(text)), printed() as told:
        dlq.show_all(Selection(), most=100, as_json=False)

    assert "dead letter" in told.getvalue()


@few
@given(text=hostile_unicode)
def test_dlq_list_as_json_holds_the_same_strings(text: str) -> None:
    with console_on([envelope(text)]), printed() as told:
        dlq.show_all(Selection(), most=100, as_json=True)

    (document,) = map(json.loads, told.getvalue().splitlines())
    assert (document["message"], document["dead_letter_id"]) == (text, text[:100])


@few
@given(text=hostile_unicode)
def test_dlq_show_shows_it_as_text_and_as_json_with_the_same_strings(text: str) -> None:
    with console_on([envelope(text)]):
        with printed() as card:
            dlq.show_one(text[:100], most=100)
        with printed() as told:
            dlq.show_one(text[:100], most=100, as_json=True)

    assert "what to do" in card.getvalue()
    assert json.loads(told.getvalue())["message"] == text


@few
@given(text=hostile_unicode)
def test_dlq_groups_and_unknown_codes_show_it_as_text(text: str) -> None:
    with console_on(letters(text)):
        with printed() as told:
            dlq.show_all(Selection(), most=100, as_json=False, by_code=True)
        assert "dead letter" in told.getvalue()
        with printed() as told:
            dlq.show_all(Selection(codes=frozenset({text + "?"})), most=100, as_json=False)
        assert "no such code" in told.getvalue()


@few
@given(text=hostile_unicode)
def test_dlq_dry_runs_and_unknown_ids_show_it_as_text(text: str) -> None:
    with console_on(letters(text)):
        with printed() as told:
            dlq.republish(Selection(), ReplayRules(), execute=False, most=100)
        assert "dry run: " in told.getvalue()
        with printed():
            dlq.republish(
                Selection(), ReplayRules(edits=dlq.parse_edits([f"priority={text}"])), execute=False, most=100
            )
        with printed():
            dlq.parse_edits([text.replace("=", "")])
        with printed():
            dlq.discard(Selection(), Path(text.replace("\0", "")), execute=False, most=100)
        with printed() as told:
            dlq.show_one(text + "?", most=100)
        assert "no dead letter" in told.getvalue()


def shown_event(event: Any) -> str:
    with printed() as told:
        submit.show(event, as_json=False)
    assert is_visible(without_colours(on_a_terminal(submit.describe(event))))
    with printed() as as_json:
        submit.show(event, as_json=True)
    assert json.loads(as_json.getvalue()) == json.loads(event.model_dump_json())
    return told.getvalue()


@few
@given(text=hostile_unicode, event=completed_events)
def test_watch_and_submit_show_a_completed_event_as_text(text: str, event: Any) -> None:
    words = StoredArtefact(uri=f"gs://bucket/{text}", generation=1, crc32c=text, bytes=1)
    metadata = event.transcription_metadata.model_copy(update={"method_used": text, "worker": text})
    artefacts = Artefacts(words=words, paragraphs=words, transcript=words)
    hostile = event.model_copy(update={"artefacts": artefacts, "transcription_metadata": metadata})

    assert len(shown_event(hostile).splitlines()) == 1


@few
@given(text=hostile_unicode, event=failed_events)
def test_watch_and_submit_show_a_failed_event_as_text(text: str, event: Any) -> None:
    error = event.error.model_copy(update={"error_message": text, "error_code": text, "suggested_action": text})

    assert len(shown_event(event.model_copy(update={"error": error})).splitlines()) == 1


@few
@given(text=hostile_text)
def test_what_is_no_job_is_refused_in_text(text: str) -> None:
    def refuse() -> None:
        raise JobRejected((text,))

    done = invoke(refuse)

    assert (done.exit_code, is_visible(done.output.replace("\n", ""))) == (2, True)
    assert "not a valid job" in done.output


@few
@given(text=hostile_text)
def test_warnings_of_the_client_library_are_text(text: str) -> None:
    record = logging.LogRecord("worker.client.connections", logging.WARNING, "", 0, "dropped message %s", (text,), None)

    assert is_visible(PlainFormatter("%(message)s").format(record).replace("\n", ""))


def spoilt(document: Any, text: str) -> Any:
    """The document with hostile text for every string of it."""
    if isinstance(document, dict):
        return {name: spoilt(value, text) for name, value in document.items()}
    if isinstance(document, list):
        return [spoilt(value, text) for value in document]
    return text if isinstance(document, str) else document


@few
@given(text=hostile_text)
def test_top_shows_it_as_text(text: str) -> None:
    document = spoilt(json.loads(health_answer(IDENTITY, condition(), 0.0).body), text)
    picture = screen([Seen(url=text, document=document), Seen(url=text, document=None)])

    with printed():
        out().print(picture, soft_wrap=False)

    assert is_visible(without_colours(on_a_terminal(picture)))


@few
@given(text=hostile_unicode, event=cost_events)
def test_costs_shows_it_as_text_on_terminals_and_pages(text: str, event: Any) -> None:
    engine = OtherEngineCost(engine=text, audio_seconds=60, usd=1.0)
    found = report([event.model_copy(update={"engines": (engine,)})], datetime(1970, 1, 1, tzinfo=UTC))

    with printed():
        out().print(costs._table(found, text))
    made = page(found, start=NOW, end=NOW)

    assert is_visible(made.replace("\n", ""))
    assert "<script>alert" not in made


@few
@given(text=hostile_unicode, event=completed_events)
def test_validate_shows_it_as_text(text: str, event: Any) -> None:
    metadata = event.transcription_metadata.model_copy(update={"method_used": text})
    failed = failed_event()
    error = failed.error.model_copy(update={"error_code": text})
    ends = [
        event.model_copy(update={"transcription_metadata": metadata}),
        failed.model_copy(update={"error": error}),
        None,
    ]
    trials = [Trial(job_id=text, audio_uri=text, method=Method.AUTO, event=end) for end in ends]

    with printed() as told:
        validate._show(trials, judged(trials))

    assert "without a figure (jobs: 3)" in told.getvalue()
    assert is_visible(without_colours(on_a_terminal(validate._job_table(trials))))


@few
@given(text=hostile_text)
def test_check_shows_it_as_text(text: str) -> None:
    async def found() -> AsyncIterator[Finding]:
        yield Finding(name=text, ok=False, detail=text)
        yield Finding(name=text, ok=True, detail=text, advice=True)

    for as_json in (False, True):
        with printed() as told:
            asyncio.run(check._report(found(), as_json=as_json))
        assert len(told.getvalue().splitlines()) == 2


@few
@given(text=hostile_text)
def test_transcribe_health_and_errors_show_it_as_text(text: str) -> None:
    for as_json in (False, True):
        with printed():
            shown = local_files.Shown(as_json=as_json)
            shown.failure(Path(text.replace("\0", "0")), ErrorCode.AUDIO_UNDECODABLE, text)
            figures = {"words": 1, "audio_seconds": 1.0, "seconds": 1.0, "speed": 1.0, "flags": [text]}
            terms: KeytermFields = {"keyterms_found": [text], "keyterms_unspeakable": [text]}
            shown.result({**figures, "file": text, "artefacts": [text]}, text, terms, of_several=True)
    for status, body in ((200, text.encode(errors="surrogatepass")), (503, b"\xff\x1b[2J")):
        with printed(), mock.patch.object(health, "fetch", lambda *_, status=status, body=body: (status, body)):
            health.health("http://127.0.0.1:1", "health")
    with printed() as told:
        fail(text)
    assert told.getvalue().startswith("error ")
    with printed():
        say(text, (text, "bold"))


@pytest.mark.parametrize("fragment", HOSTILE)
@pytest.mark.parametrize(
    "words",
    [
        lambda text: ["run", text],
        lambda text: ["run", f"--{text}"],
        lambda text: [f"dlq{text}"],
        lambda text: ["dlq", f"list{text}"],
        lambda text: ["dlq", "list", "--older-than", text],
        lambda text: ["submit", "gs://b/o", "--video-id", "v", "--force-method", text],
        lambda text: ["transcribe", text, "--out", "x"],
        lambda text: ["costs", "--since", text],
    ],
)
def test_usage_errors_quote_it_as_text(words: Callable[[str], list[str]], fragment: str) -> None:
    done = run(*words(fragment.replace("\0", "")), environment={})

    assert done.exit_code == 2, done.output
    assert is_visible(done.output.replace("\n", "")), ascii(done.output)


def test_a_wrong_setting_is_quoted_as_text() -> None:
    done = run("dlq", "list", environment={"PARAKEET_DEVICE": "\x1b[2J\u202e[/b]"})

    assert (done.exit_code, is_visible(done.output.replace("\n", ""))) == (2, True)


@few
@given(text=st.sampled_from(HOSTILE))
def test_no_console_lets_through_what_a_renderer_forgot(text: str) -> None:
    table = Table("a")
    table.add_row(cell("b"), end_section=True)
    table.title = cell(text)

    class Careless:
        def __rich__(self) -> str:
            return "[link=http://evil]here[/link]\x1b[2J\u202e"

    with printed() as told:
        out().print(Careless())
        out().print(table)

    assert "here" in told.getvalue()


@pytest.mark.parametrize("options", [[], ["--debug"]])
def test_a_defect_ends_a_command_with_its_message_as_text_and_no_locals(options: list[str]) -> None:
    def fail() -> None:
        secret = "s3" + "cr3t"
        raise ValueError("bad \x1b[2J\u202e" + secret[:0])

    done = invoke(fail, *options)

    assert done.exit_code == 1
    assert "ValueError" in done.output
    assert r"bad \x1b[2J\u202e" in done.output
    assert "s3cr3t" not in done.output
    assert ("Traceback" in done.output) == bool(options)


def invoke(function: Callable[[], None], *options: str) -> Result:
    """Run the function as the command `go` of a command line like ours."""
    app = typer.Typer(cls=CommandGroup)
    app.callback()(options_of_all)
    app.command("go")(function)
    return CliRunner().invoke(app, ["go", *options])


def options_of_all(debug: bool = False) -> None:
    del debug
