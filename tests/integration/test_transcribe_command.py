"""`transcribe` on the worker's own speech, with the tiny model: artefacts, errors, exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.audio.media import riff_wav
from worker.adapters.audio import find_ffmpeg
from worker.app.sample import SPEECH
from worker.embedded.samples import tiny_model

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(300)]


def transcribe(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    settings = {"PARAKEET_DEVICE": "cpu", "PARAKEET_MODEL_NAME": str(tiny_model()), **environment}
    return subprocess.run(
        [sys.executable, "-m", "worker", "transcribe", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_file_gets_its_artefacts_and_one_that_is_no_audio_fails_alone(tmp_path: Path) -> None:
    speech, text = Path(shutil.copy(SPEECH, tmp_path / "speech.flac")), tmp_path / "text.mp3"
    text.write_text("no audio at all\n" * 100)

    done = transcribe(text, speech, "--out", tmp_path / "out", "--output", "srt", "--output", "html", "--json")

    assert done.returncode == 1, done.stderr
    failed, good = (json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"file"'))
    assert (failed["file"], failed["error_code"]) == (str(text), "AUDIO_UNDECODABLE")
    assert (good["file"], good["words"] > 20) == (str(speech), True)
    assert (good["audio_seconds"], good["flags"]) == (pytest.approx(21.0, abs=1.0), ["shorter_than_analysis_window"])
    assert good["speed"] == pytest.approx(good["audio_seconds"] / good["seconds"], rel=0.1)
    assert len(good["text"].split()) == good["words"]
    assert {Path(name).suffix for name in good["artefacts"]} == {".csv", ".json", ".srt", ".html"}
    assert {Path(name) for name in good["artefacts"]} == set((tmp_path / "out").iterdir())


def test_text_goes_to_stdout_figures_to_stderr_and_the_log_nowhere(tmp_path: Path) -> None:
    done = transcribe(SPEECH, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    (figures,) = done.stderr.splitlines()
    assert figures.startswith(f"ok {len(done.stdout.split())} words, ")
    assert figures.endswith("audio_speech_words.csv audio_speech_paragraphs.csv audio_speech_transcript.json")
    assert {file.name for file in tmp_path.iterdir()} == set(figures.split()[-3:])


def test_the_log_is_shown_where_it_is_asked_for(tmp_path: Path) -> None:
    done = transcribe(SPEECH, "-v", cwd=tmp_path)

    assert '"event": "engine.loading"' in done.stderr


def test_the_keyterms_that_were_found_are_in_the_line_of_the_file(tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("maria\n\n.*\n")

    done = transcribe(
        SPEECH, "--out", tmp_path / "out", "--keyterm", "Anna", "--keyterm", "Zed", "--keyterms-file", terms, "--json"
    )

    assert done.returncode == 0, done.stderr
    (told,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"file"'))
    assert told["keyterms_found"] == ["Anna", "maria"]
    assert ".*" in told["keyterms_unspeakable"]


def test_a_model_that_cannot_be_loaded_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    missing = tmp_path / "missing.nemo"

    done = transcribe(SPEECH, "--out", tmp_path, PARAKEET_MODEL_NAME=str(missing))

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error ")
    assert str(missing) in last


@pytest.mark.parametrize(
    ("names", "options", "reason"),
    [
        (["a.wav", "b.wav"], ["--video-id", "both"], "--video-id names the artefacts of one file"),
        (["a.wav", "a.mp3"], [], "would have artefacts of the same names"),
        (["a b.wav"], [], "'a b' cannot be a video id"),
    ],
)
def test_names_that_cannot_be_are_usage_errors_before_a_process_is_started(
    tmp_path: Path, names: list[str], options: list[str], reason: str
) -> None:
    files = [tmp_path / name for name in names]
    for file in files:
        file.touch()

    done = transcribe(*files, "--out", tmp_path / "out", *options)

    assert done.returncode == 2
    assert reason in done.stderr
    assert not (tmp_path / "out").exists()


def test_each_channel_apart_has_the_words_that_its_samples_have_alone(tmp_path: Path) -> None:
    command = [find_ffmpeg(), "-loglevel", "error", "-i", SPEECH, "-ar", "16000", "-f", "s16le", "-"]
    left = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, "<i2")
    right = np.concatenate([left[len(left) // 2 :], left[: len(left) // 2]])
    both = np.stack([left, right], axis=1)
    for name, samples in (("left", left), ("right", right), ("both", both)):
        (tmp_path / f"{name}.wav").write_bytes(riff_wav(samples.tobytes(), channels=samples.ndim))

    alone = transcribe(tmp_path / "left.wav", tmp_path / "right.wav", "--out", tmp_path / "out", "--json")
    apart = transcribe(tmp_path / "both.wav", "--out", tmp_path / "out", "--channels", "apart", "--json")

    assert (alone.returncode, apart.returncode) == (0, 0), apart.stderr
    channels = [channels_of(tmp_path / "out", name) for name in ("left", "right", "both")]
    assert channels[2] == [*channels[0], *channels[1]]
    assert channels[0] != channels[1]


def channels_of(folder: Path, video_id: str) -> Any:
    """The transcript's entry of each channel."""
    return json.loads((folder / f"audio_{video_id}_transcript.json").read_text())["results"]["channels"]
