"""`dlq triage`, `--json` and the checks of names, on a broker in memory, with a scripted operator."""

import asyncio
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import Result

from schemas.codes import ErrorCode
from tests.support.workers.console import Broker, console_on, run
from tests.unit.core.dead_letters.dead_letter_messages import enveloped, job_bytes
from worker.commands import dlq_desk, dlq_triage
from worker.core.dead_letters.entries import Selection, entry_of
from worker.core.dead_letters.replay import ENDS_OF_JOBS, known_codes, remedy_of, remedy_of_code
from worker.ports import Delivery


def letters(count: int) -> list[Delivery]:
    return [enveloped(data=job_bytes(job_id=f"vod-{number}")) for number in range(count)]


def console(*words: str) -> Result:
    return run("dlq", *words, environment=os.environ)


class Operator:
    """Answers prompts from a script; at the end of the script the input ends."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers, self.prompts = list(answers), list[str]()

    async def ask(self, prompt: str) -> str:
        self.prompts.append(prompt)
        await asyncio.sleep(0)
        return self.answers.pop(0) if self.answers else ""


def triaged(answers: Sequence[str], export: Path, capsys: pytest.CaptureFixture[str]) -> str:
    dlq_triage.triage(Selection(), export, max_replays=3, most=100, ask=Operator(answers).ask)
    return capsys.readouterr().out


def replays(broker: Broker) -> list[dict[str, Any]]:
    return [json.loads(delivery.data) for delivery in broker.free("jobs")]


def test_each_letter_is_replayed_dropped_or_skipped_as_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "dropped.jsonl"
    with console_on(letters(4)) as broker:
        shown = triaged(["r\n", "d\n", "s\n", "what?\n", "q\n"], export, capsys)

        assert len(broker.free("jobs")) == 1
        assert len(broker.free()) == 2
    (dropped,) = map(json.loads, export.read_text().splitlines())
    assert dropped["code"] == "AUDIO_NOT_FOUND"
    assert "what?: one of r, e, d, s, q" in shown
    assert shown.splitlines()[-1] == "replayed 1, dropped 1, skipped 1; 1 of 4 untouched"


def test_an_edit_is_checked_before_the_letter_is_replayed_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = ["e\n", "force_metod=deepgram\n", "force_method=deepgram\n", "\n", "e\n", "audio_uri=x\n", "\n", "r\n"]
    with console_on(letters(1)) as broker:
        shown = triaged(answers, tmp_path / "x", capsys)

        (job,) = replays(broker)
    assert job["force_method"] == "deepgram"
    assert job["audio_uri"] == "gs://audio-bucket/1.mp3"
    assert "the worker ignores force_metod; did you mean force_method?" in shown
    assert "r replays it with force_method=deepgram" in shown
    assert "not possible the edited message would not be a valid job" in shown


def test_a_letter_that_stays_is_asked_about_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with console_on([enveloped(run=3)]) as broker:
        shown = triaged(["r\n", "s\n"], tmp_path / "x", capsys)

        assert (len(broker.free()), len(broker.free("jobs"))) == (1, 0)
    assert "stays quarantined" in shown
    assert "skipped 1" in shown


def test_the_end_of_the_input_quits_and_releases_every_letter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with console_on(letters(3)) as broker:
        shown = triaged([], tmp_path / "x", capsys)

        assert len(broker.free()) == 3
    assert "3 of 3 untouched" in shown


@pytest.mark.parametrize("place", ["prompt", "publish", "ack"])
def test_an_interrupt_leaves_every_letter_done_or_untouched(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is cancelled as Ctrl-C does it, at the second letter."""
    with console_on(letters(3)) as broker:
        cancels = Cancels(broker, place)
        monkeypatch.setattr(broker, "topic", cancels.topic)
        monkeypatch.setattr(broker, "subscription", cancels.subscription)

        with suppress(asyncio.CancelledError):
            dlq_triage.triage(Selection(), tmp_path / "x", max_replays=3, most=100, ask=cancels.ask)

        done = 1 if place == "prompt" else 2
        assert len(broker.free("jobs")) == done
        assert len(broker.free()) == 3 - done
    assert f"replayed {done}" in capsys.readouterr().out


class Cancels:
    """Replays the first two letters, and cancels the command in the middle of the second."""

    def __init__(self, broker: Broker, place: str) -> None:
        self._place, self._asked = place, 0
        self._topic, self._subscription = broker.topic, broker.subscription

    async def ask(self, _: str) -> str:
        self._asked += 1
        if self._place == "prompt":
            await self.reached("prompt")
        return "r"

    async def reached(self, place: str) -> None:
        if place == self._place and self._asked == 2:
            for task in asyncio.all_tasks():
                if task.get_coro().__name__ == "run":  # type: ignore[union-attr]
                    task.cancel()
            await asyncio.sleep(0)

    def topic(self, name: str) -> Any:
        return Interrupted(self._topic(name), "publish", self)

    def subscription(self, name: str) -> Any:
        return Interrupted(self._subscription(name), "ack", self)


class Interrupted:
    """Passes calls on; the one that is named is interrupted before it takes effect."""

    def __init__(self, target: Any, name: str, cancels: Cancels) -> None:
        self._target, self._name, self._cancels = target, name, cancels

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._target, name)
        if name != self._name:
            return call

        async def interrupted(*arguments: Any, **named: Any) -> Any:
            await self._cancels.reached(name)
            return await call(*arguments, **named)

        return interrupted


def test_without_a_terminal_triage_names_the_commands_that_need_none() -> None:
    with console_on(letters(1)):
        ended = console("triage")

    assert ended.exit_code == 2
    assert "dlq replay and dlq drop" in ended.stderr


# names


def id_of(number: int) -> str:
    """Return the id of the letter at that place of the list, where there are three or fewer of `letters`."""
    return sorted(entry_of(letter).dead_letter_id for letter in letters(3))[number]


def test_the_short_id_of_the_list_names_the_letter_to_every_command(tmp_path: Path) -> None:
    with console_on(letters(3)) as broker:
        short = console("list").stdout.splitlines()[2].split()[0]
        shown = console("show", short)
        replayed = console("replay", short, "--execute")
        dropped = console("drop", id_of(2)[:4], "--export", str(tmp_path / "x"), "--execute")

        assert [one.exit_code for one in (shown, replayed, dropped)] == [0, 0, 0], dropped.output
        assert (len(broker.free()), len(broker.free("jobs"))) == (1, 1)
    assert len(short) == 8
    assert f"klipstream-worker dlq replay {short} --execute" in shown.stdout


def ambiguous() -> list[Delivery]:
    """Two letters whose ids have the same beginning."""
    made = []
    for last in "ab":
        letter = json.loads(enveloped().data)
        letter["dead_letter_id"] = "feedfeed" + last * 24
        made.append(Delivery(**{**_fields(enveloped()), "data": json.dumps(letter).encode()}))
    return made


def _fields(delivery: Delivery) -> dict[str, Any]:
    return {name: getattr(delivery, name) for name in Delivery.__slots__}


def test_an_ambiguous_beginning_lists_the_candidates_and_does_nothing() -> None:
    with console_on(ambiguous()) as broker:
        ended = console("replay", "feedfeed", "--execute")
        listed = console("list")

        assert len(broker.free()) == 2
    assert ended.exit_code == 2
    assert "feedfeedaaaa (AUDIO_NOT_FOUND, vod-1), feedfeedbbbb (AUDIO_NOT_FOUND, vod-1)" in ended.stderr
    assert {line.split()[0] for line in listed.stdout.splitlines()[2:4]} == {"feedfeedaaaa", "feedfeedbbbb"}


@pytest.mark.parametrize("text", ["", "f", "fee", "nope", "*"])
def test_an_id_that_names_nothing_ends_the_command_before_anything_is_done(text: str) -> None:
    with console_on(ambiguous()) as broker:
        ended = console("replay", text, "--execute")

        assert (len(broker.free()), len(broker.free("jobs"))) == (2, 0)
    assert ended.exit_code == 1
    assert "no dead letter" in ended.stderr


def test_the_id_of_a_job_is_answered_with_those_of_its_letters() -> None:
    with console_on(ambiguous()):
        ended = console("show", "vod-1")

    assert ended.exit_code == 1
    assert "no dead letter vod-1; letters of that job: feedfeedaaaa (AUDIO_NOT_FOUND, vod-1)" in ended.stderr


def test_one_id_of_several_that_names_nothing_is_a_remark() -> None:
    with console_on(letters(3)) as broker:
        ended = console("replay", id_of(0), "0123456789", "--execute")

        assert len(broker.free("jobs")) == 1
    assert ended.exit_code == 0
    assert "no dead letter 0123456789" in ended.stderr


def test_a_code_that_is_none_is_refused_with_those_there_are() -> None:
    with console_on([*letters(2), enveloped(code=ErrorCode.EXPIRED)]):
        ended = console("list", "--code", "AUDIO_NOT_FOND")

    assert ended.exit_code == 2
    assert "no such code: AUDIO_NOT_FOND; did you mean AUDIO_NOT_FOUND?" in ended.stderr
    assert "There are: AUDIO_NOT_FOUND (2), EXPIRED (1)" in ended.stderr


def test_a_code_without_letters_is_a_remark_and_case_does_not_matter() -> None:
    with console_on(letters(2)):
        none, found = console("list", "--code", "expired"), console("list", "--code", "audio_not_found")

    assert (none.exit_code, found.exit_code) == (0, 0)
    assert "no dead letter has the code EXPIRED; there are: AUDIO_NOT_FOUND (2)" in none.stderr
    assert "2 dead letters" in found.stdout


@pytest.mark.parametrize(
    ("edit", "answer"),
    [
        ("nonsense=3", "the worker ignores nonsense; it reads audio_generation"),
        ("force_metod=deepgram", "the worker ignores force_metod; did you mean force_method?"),
        ("transcription_config.enable_gup=false", "did you mean enable_gpu?"),
    ],
)
def test_a_field_that_the_worker_ignores_is_refused(edit: str, answer: str) -> None:
    ended = console("replay", "--set", edit)

    assert ended.exit_code == 2
    assert answer in " ".join(ended.stderr.split())


@pytest.mark.parametrize("edit", ["metadata.k=1", "transcription_config.enable_gpu=false", "priority=urgent"])
def test_a_field_that_the_worker_reads_can_be_set(edit: str) -> None:
    with console_on(letters(1)):
        assert "1 to replay" in console("replay", "--set", edit).stdout


def test_every_code_has_a_remedy() -> None:
    assert sorted(error.code.value for error in ENDS_OF_JOBS) == sorted(known_codes())
    assert remedy_of_code("A_NEWER_CODE").startswith("read the reason")


def test_the_remedy_of_a_letter_is_the_worker_s_and_by_code_where_it_wrote_none() -> None:
    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    own = entry_of(enveloped(code=code, suggested_action="set DEEPGRAM_API_KEY, then replay"))

    assert remedy_of(own) == "set DEEPGRAM_API_KEY, then replay"
    assert remedy_of(entry_of(enveloped(code=code))) == "check Deepgram's status page, then replay"


# what is printed


def test_a_terminal_shows_that_letters_are_being_read_and_nothing_of_it_on_stdout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(dlq_desk, "err", lambda: terminal)
    with console_on(letters(3)):
        done = console("list", "--json")

    assert isinstance(terminal.file, io.StringIO)
    assert "reading dead letters" in terminal.file.getvalue()
    assert len(documents_of(done)) == 3


def test_groups_of_letters_have_their_remedy_and_their_command() -> None:
    with console_on([*letters(2), enveloped(code=ErrorCode.EXPIRED)]):
        shown = console("list", "--by", "code").stdout
        documents = [json.loads(line) for line in console("list", "--by", "code", "--json").stdout.splitlines()]

    assert "upload the audio, then replay the job" in shown
    assert "klipstream-worker dlq replay --code AUDIO_NOT_FOUND --execute" in shown
    assert [(one["code"], one["letters"]) for one in documents] == [("AUDIO_NOT_FOUND", 2), ("EXPIRED", 1)]


def test_a_card_says_what_failed_why_and_what_to_do_and_has_no_data() -> None:
    with console_on(letters(3)):
        shown = console("show", id_of(0)).stdout
        document = json.loads(console("show", id_of(0), "--json").stdout)

    for part in ("AUDIO_NOT_FOUND", "no object at gs://audio-bucket/1.mp3", "upload the audio", "vod-", "w1"):
        assert part in shown, part
    assert "base64" not in shown
    assert max(map(len, shown.splitlines())) < 200
    assert (document["worker"], document["remedy"]) == ("w1", "upload the audio, then replay the job")
    assert json.loads(document["original"])["job_id"] == document["job_id"]


def documents_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_replay_and_drop_as_json_are_a_line_for_each_letter_and_their_sums(tmp_path: Path) -> None:
    export = ("--export", str(tmp_path / "x"))
    with console_on([*letters(1), enveloped(run=3)]):
        dry = documents_of(console("replay", "--json"))
        dropping = documents_of(console("drop", *export, "--json"))
        done = documents_of(console("replay", "--execute", "--json"))
        dropped = documents_of(console("drop", *export, "--execute", "--json"))

    assert sorted(one["outcome"] for one in dry[:-1]) == ["stays", "would_replay"]
    assert dry[-1] == {"outcome": "summary", "would_replay": 1, "stay": 1}
    assert [one["outcome"] for one in dropping] == ["would_drop", "would_drop", "summary"]
    assert done[-1] == {"outcome": "summary", "replayed": 1, "stay": 1}
    assert [one["reason"] for one in done if one["outcome"] == "stays"] == [
        "quarantined: it was replayed 3 times and failed again"
    ]
    assert dropped[-1] == {"outcome": "summary", "dropped": 1, "stay": 0}
