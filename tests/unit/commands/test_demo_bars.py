"""Progress of the demo, read from the worker's log."""

import json
from pathlib import Path
from typing import Any

import pytest

from worker.commands.demo_bars import DemoBars

READY: dict[str, Any] = {"event": "worker.ready"}
DONE: dict[str, Any] = {"event": "job.done", "job_id": "j-1", "audio_seconds": 181.3, "speed": 37.4}


def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], *events: dict[str, Any], rest: str = "") -> str:
    log = tmp_path / "worker.log"
    log.touch()

    with DemoBars({"j-1": "talk.mp3"}, log):
        log.write_text("not json\n[]\n" + "".join(json.dumps(event) + "\n" for event in events) + rest)

    return capsys.readouterr().out


def test_it_says_that_the_model_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = shown(tmp_path, capsys)

    assert " loading" in told
    assert "talk.mp3" in told
    assert "waits for the model" in told


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([READY], "loaded"),
        ([{"event": "job.received"}], "reads the audio"),
        ([{"event": "job.received"}, {"event": "job.routed", "chunks": 4}, {"event": "chunk.done"}], "transcribes"),
        ([{"event": "job.routed", "chunks": None}, {"event": "chunk.resumed"}], "transcribes"),
        ([DONE], "completed: 181 s of audio, 37x"),
        ([{"event": "job.failed", "code": "AUDIO_\x1b[2J"}], "failed: AUDIO_\\x1b[2J"),
    ],
)
def test_it_follows_the_log(
    events: list[dict[str, Any]], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in shown(tmp_path, capsys, *({"job_id": "j-1", **event} for event in events))


def test_half_a_line_and_other_jobs_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = shown(tmp_path, capsys, {**DONE, "job_id": "j-2"}, rest=json.dumps(DONE))

    assert "completed" not in told
