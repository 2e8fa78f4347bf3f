"""`accuracy` on the worker's own speech, with the tiny model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.audio.accuracy import SAMPLE_TEXT
from worker.app.sample import SPEECH
from worker.embedded.samples import tiny_model

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]


def accuracy(manifest: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PARAKEET_DEVICE": "cpu", "PARAKEET_MODEL_NAME": str(tiny_model())}
    command = [sys.executable, "-m", "worker", "accuracy", "--manifest", manifest, *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_each_file_is_scored_by_its_words_and_a_missing_one_fails_alone(tmp_path: Path) -> None:
    speech = Path(shutil.copy(SPEECH, tmp_path / SPEECH.name))
    lines = [
        {"audio_filepath": speech.name, "duration": 21.4, "text": SAMPLE_TEXT},
        {"audio_filepath": str(speech), "text": "something else", "condition": "wrong", "keyterms": ["Anna", "Zed"]},
        {"audio_filepath": "missing.wav", "text": "nothing"},
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    done = accuracy(manifest, "--json", "--keyterm", "helen")

    assert done.returncode == 1
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"file"')]
    (missing,) = (one for one in found if "error" in one)
    right, wrong = (one for one in found if "error" not in one)
    assert "missing.wav" in missing["file"]
    assert right["format"] == SPEECH.suffix[1:]
    assert right["word_error_rate_percent"] < 15
    assert right["written_word_error_rate_percent"] >= right["word_error_rate_percent"]
    assert wrong["word_error_rate_percent"] > 100
    assert (right["keyterm_recall_percent"], right["keyterm_precision_percent"]) == (100, 100)
    assert (wrong["keyterm_recall_percent"], wrong["keyterm_precision_percent"]) == (None, 0)
    assert (right["condition"], wrong["condition"]) == (None, "wrong")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"audio_filepath": "a", "text": "b", "words": "c"}', "words: must be a list"),
        ('{"audio_filepath": "a", "text": "b", "words": [{"word": "b", "start": "x"}]}', "words.0.start:"),
        ('{"audio_filepath": "a", "text": null}', "text: must be a string"),
        ('{"text": "x"}', "audio_filepath"),
        ('{"audio_filepath": "a", "text": "b", "offset": 3}', "offset"),
        ('{"audio_filepath": "a", "text": "b", "keyterms": ["c", ""]}', "keyterms.1: must not be empty"),
        ('{"audio_filepath": "a", "text": "b", "keyterms": "c"}', "keyterms: must be a list"),
    ],
)
def test_a_line_that_is_no_entry_is_named_before_a_model_is_loaded(tmp_path: Path, line: str, reason: str) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(f"{line}\n")

    done = accuracy(manifest)

    assert done.returncode == 2
    assert "manifest.jsonl:1:" in done.stderr.replace("\n", "")
    assert reason in done.stderr
