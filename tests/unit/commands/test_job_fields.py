"""`submit ./file`: what is refused before anything is sent, and what a file's name makes of a job."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from schemas.job import Id
from tests.support.hostile_text import HOSTILE
from tests.support.workers.console import command
from worker.commands.job_fields import video_id_of

ENVIRONMENT = {
    "AUDIO_BUCKET": "some-bucket",
    "PUBSUB_EMULATOR_HOST": "127.0.0.1:9",
    "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9",
}


@pytest.mark.parametrize(
    ("name", "video_id"),
    [
        ("talk.mp3", "talk"),
        ("./deep/er/2301234567.audio.opus", "2301234567.audio"),
        ("gs://bucket/vod/2301.mp3", "2301"),
        ("my talk (final).wav", "my-talk-final"),
        ("..", "audio"),
        ("été.mp3", "t"),
        ("C:\\music\\a.mp3", "a"),
    ],
)
def test_the_name_of_a_file_names_the_video(name: str, video_id: str) -> None:
    assert video_id_of(name) == video_id


@pytest.mark.parametrize("name", [*HOSTILE, "-" * 300, "a" * 500 + ".mp3", "/", ""])
def test_any_name_makes_a_valid_video_id(name: str) -> None:
    assert TypeAdapter(Id).validate_python(video_id_of(name))


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (("no-such-file.mp3",), ENVIRONMENT, "there is no such file"),
        (("{folder}",), ENVIRONMENT, "is a directory"),
        (("{folder}/a.mp3",), {}, "AUDIO_BUCKET is not set"),
    ],
)
async def test_what_cannot_be_uploaded_is_refused_in_one_line(
    tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    (tmp_path / "a.mp3").write_bytes(b"x")

    done = await command("submit", *(word.format(folder=tmp_path) for word in words), environment=environment)

    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_exports_for_eval_are_printed_without_starting_a_server() -> None:
    done = await command("emulators", "--env", "--pubsub-port", "1234", "--storage-port", "4321", environment={})

    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert all(line.startswith("export ") for line in lines)
    assert "export PUBSUB_EMULATOR_HOST=127.0.0.1:1234" in lines
    assert "export STORAGE_EMULATOR_HOST=http://127.0.0.1:4321" in lines
    assert not [line for line in lines if "HEALTH_PORT" in line]


async def test_the_variables_of_the_development_servers_as_json() -> None:
    done = await command("emulators", "--env", "--json", "--pubsub-port", "1234", environment={})

    assert json.loads(done.stdout)["environment"]["PUBSUB_EMULATOR_HOST"] == "127.0.0.1:1234"
