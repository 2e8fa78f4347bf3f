"""`transcribe --output html`: where the page finds its audio, whatever the files are called."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from worker.commands.job_fields import PageAudio
from worker.commands.local_files import write_page
from worker.core.jobs.reporting import KeytermFields
from worker.ports import EngineFacts

ENGINE = EngineFacts(
    model_name="/models/tiny.nemo",
    model_fingerprint="f",
    device_name="cpu",
    uses_gpu=False,
    languages=frozenset({"en"}),
)
WORD = {"word": "hello", "start": 0.5, "end": 0.9, "confidence": 0.5, "punctuated_word": "Hello."}
KEYTERMS = KeytermFields(keyterms_found=("<b>Zed</b>",), keyterms_unspeakable=("Zo\u202eë",))
ARTEFACT = {
    "metadata": {"duration": 2.0},
    "results": {
        "channels": [
            {
                "alternatives": [
                    {"words": [WORD], "paragraphs": {"paragraphs": [{"start": 0.5, "end": 0.9, "num_words": 1}]}}
                ]
            }
        ]
    },
}


def page_of(folder: Path, audio: Path, place: PageAudio = "beside") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audio_v_transcript.json").write_text(json.dumps(ARTEFACT))
    path = write_page(folder / "audio_v_transcript.json", audio, ["parakeet"], ENGINE, place, KEYTERMS)
    assert path == folder / "audio_v_transcript.html"
    assert [file.name for file in folder.iterdir() if "partial" in file.name] == []
    return path.read_text("utf-8")


def test_the_page_says_which_keyterms_were_found(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(b"RIFF")

    page = page_of(tmp_path / "out", tmp_path / "talk.wav")

    assert "keyterms found: &lt;b&gt;Zed&lt;/b&gt;" in page
    assert "Zo\\u202eë" in page


def source_in(page: str) -> str:
    (found,) = re.findall(r'<audio[^>]* src="([^"]*)"', page)
    return str(found)


@pytest.mark.parametrize(
    "name", ["talk.mp3", "a talk #1?.mp3", "data:x.mp3", '"quoted".mp3', "é\u202e.mp3", "100%.wav"]
)
def test_the_page_finds_its_audio_beside_it_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    audio = tmp_path / name
    audio.write_bytes(b"RIFF")

    source = source_in(page_of(tmp_path / "out" / "deep", audio))

    assert not re.match(r"[a-z]+:", source)
    assert (tmp_path / "out" / "deep" / unquote(source)).resolve() == audio


def test_the_audio_can_be_inside_the_page(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(b"RIFF")

    page = page_of(tmp_path / "out", tmp_path / "talk.wav", "inside")

    assert source_in(page) == "data:audio/x-wav;base64,UklGRg=="
    assert "This file needs no network and no other file." in page


def test_the_page_says_what_made_it(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(b"RIFF")

    page = page_of(tmp_path / "out", tmp_path / "talk.wav")

    assert "1 word in 2.0 s of audio" in page
    assert "by tiny.nemo on cpu" in page
    assert 'class="c1" title="50 % sure">Hello.</span>' in page
