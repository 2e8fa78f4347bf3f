"""Files that `transcribe` may overwrite: its own, of the same audio."""

import json
from pathlib import Path

import pytest
import typer

from schemas.codes import Artefact
from schemas.ids import request_id
from worker.commands.job_fields import Outputs, PageAudio, sha256_of
from worker.commands.transcribe import refuse_foreign


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    audio = tmp_path / "talk.wav"
    audio.write_bytes(b"sound")
    return audio


def refuse(audio: Path, *captions: Artefact, page: PageAudio | None = None) -> None:
    outputs = Outputs(folder=audio.parent / "out", captions=frozenset(captions), page=page)
    refuse_foreign({"talk": audio}, outputs)


def transcript_of(audio: Path, **changes: str) -> Path:
    metadata = {"request_id": request_id("talk"), "sha256": sha256_of(audio), **changes}
    file = audio.parent / "out" / "audio_talk_transcript.json"
    file.write_text(json.dumps({"metadata": metadata}))
    return file


def test_a_folder_without_such_files_is_written_to(talk: Path) -> None:
    (talk.parent / "out" / "audio_other_words.csv").touch()

    refuse(talk)


def test_files_of_the_same_audio_are_overwritten(talk: Path) -> None:
    transcript_of(talk)
    (talk.parent / "out" / "audio_talk_words.csv").touch()

    refuse(talk)


@pytest.mark.parametrize("changes", [{"sha256": "of another file"}, {"request_id": "of another name"}])
def test_files_of_other_audio_are_not_overwritten(
    changes: dict[str, str], talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transcript = transcript_of(talk, **changes)

    with pytest.raises(typer.Exit):
        refuse(talk)

    assert f"{transcript} exists and is not a transcript of this audio" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"metadata": 1}', '{"metadata": {"sha256": 1}}', "\udcff"])
def test_a_file_that_is_no_transcript_of_ours_is_not_overwritten(content: str, talk: Path) -> None:
    file = talk.parent / "out" / "audio_talk_transcript.json"
    file.write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(typer.Exit):
        refuse(talk)


def test_captions_and_the_page_are_looked_for_where_they_are_asked_for(talk: Path) -> None:
    out = talk.parent / "out"
    (out / "audio_talk.srt").touch()
    (out / "audio_talk_transcript.html").touch()

    refuse(talk)
    refuse(talk, Artefact.VTT)
    with pytest.raises(typer.Exit):
        refuse(talk, Artefact.SRT)
    with pytest.raises(typer.Exit):
        refuse(talk, page="beside")
