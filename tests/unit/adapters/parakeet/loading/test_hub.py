"""Hub names, with a cache that is filled and no network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from worker.embedded.samples import tiny_model

REVISION = "0123456789abcdef0123456789abcdef01234567"
PROGRAM = """
import sys
from worker.adapters.parakeet.loading.model_path import model_path
from worker.errors import ModelLoadingError
try:
    print(model_path(sys.argv[1]))
except ModelLoadingError as error:
    print(f"refused: {error.reason}")
"""


def found(home: Path, name: str) -> str:
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def cached(home: Path, name: str, *files: str) -> Path:
    """Lay out a repository as the hub's client caches it."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    for file in files:
        shutil.copy(tiny_model(), snapshot / file)
    return snapshot


def test_a_hub_name_is_the_cached_nemo_file(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "nvidia/parakeet-tdt-0.6b-v3", "parakeet-tdt-0.6b-v3.nemo", "config.json")

    assert found(tmp_path, "nvidia/parakeet-tdt-0.6b-v3") == str(snapshot / "parakeet-tdt-0.6b-v3.nemo")


def test_a_hub_name_without_a_nemo_file_is_its_folder_of_safetensors(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "moondream/parakeet-ultra", "config.json", "model.safetensors", "tokenizer.json")

    assert found(tmp_path, "moondream/parakeet-ultra") == str(snapshot)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nvidia/parakeet-tdt-0.6b-v2", "the hub does not give it: LocalEntryNotFoundError"),
        ("nvidia/--", "the hub does not give it: HFValidationError"),
        ("parakeet", "neither a .nemo file, nor a folder, nor a hub name"),
        ("/nowhere/model.nemo", "there is no file /nowhere/model.nemo"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    assert found(tmp_path, name).startswith(f"refused: {reason}")
