"""Local files of `transcribe`: their names, and gzip data."""

import gzip
import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.app.engines import make_decoder
from worker.app.sample import SPEECH
from worker.commands.job_fields import Choices, Outputs
from worker.commands.local_files import Shown, _without_gzip, transcribe_all
from worker.commands.transcribe import _named
from worker.errors import AudioTooLarge
from worker.settings import JobSettings, read_settings

AUDIO = bytes(range(256)) * 100


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


@pytest.mark.parametrize("layers", [0, 1, 2])
async def test_gzip_data_is_unpacked_and_the_file_stays(tmp_path: Path, layers: int) -> None:
    content = AUDIO
    for _ in range(layers):
        content = gzip.compress(content)
    file = tmp_path / "talk.wav.gz"
    file.write_bytes(content)

    async with _without_gzip(JobSettings(temp_dir=tmp_path), file) as audio:
        assert audio.read_bytes() == AUDIO

    assert names(tmp_path) == ["talk.wav.gz"]
    assert file.read_bytes() == content


async def test_gzip_data_larger_than_a_job_may_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "talk.gz"
    file.write_bytes(gzip.compress(bytes(2_000_000)))

    with pytest.raises(AudioTooLarge):
        async with _without_gzip(JobSettings(temp_dir=tmp_path, max_file_size_gb=0.001), file):
            pass

    assert names(tmp_path) == ["talk.gz"]


async def test_a_file_that_vanishes_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = read_settings({"TEMP_DIR": str(tmp_path)})
    decoder, engine = make_decoder(settings.jobs, settings.engine), nullcontext(MemoryRecogniser())
    named = {"lost": tmp_path / "lost.mp3", "speech": SPEECH}
    outputs = Outputs(folder=tmp_path)

    failed = await transcribe_all("m", settings.jobs, decoder, engine, named, Choices(), outputs, Shown(as_json=True))

    lost, speech = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    assert (failed, lost["error_code"], lost["error"]) == (1, "AUDIO_NOT_FOUND", "No such file or directory")
    assert speech["words"] > 0


@pytest.mark.parametrize(("file", "name"), [("talk.wav", "talk"), ("talk.wav.gz", "talk"), ("talk.GZ", "talk")])
def test_a_file_is_named_without_its_endings(file: str, name: str) -> None:
    assert _named([Path("a folder") / file], None) == {name: Path("a folder") / file}
