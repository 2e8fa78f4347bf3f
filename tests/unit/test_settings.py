from enum import Enum
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError

from worker.commands.console import load_settings
from worker.settings import Settings

PROMISED = {
    "ENABLE_GPU_TRANSCRIPTION": True,
    "PARAKEET_DEVICE": "cuda",
    "TRANSCRIPTION_METHOD": "auto",
    "PARAKEET_MODEL_NAME": "nvidia/parakeet-tdt-0.6b-v2",
    "GPU_BATCH_SIZE": 8,
    "GPU_MEMORY_LIMIT_GB": 20,
    "GPU_PRECISION": "bfloat16",
    "GPU_GRAPHS": True,
    "CHUNK_DURATION_MINUTES": 10,
    "CHUNKS_IN_FLIGHT": 2,
    "ENABLE_BATCH_PROCESSING": True,
    "MAX_CONCURRENT_JOBS": 4,
    "MAX_PARKED": 4,
    "ENABLE_FALLBACK": True,
    "COST_OPTIMIZATION": True,
    "SHORT_FILE_THRESHOLD_HOURS": 2,
    "LONG_FILE_THRESHOLD_HOURS": 4,
    "PARAKEET_ROLLOUT_PERCENT": 100,
    "ENABLE_PERFORMANCE_METRICS": True,
    "LOG_TRANSCRIPTION_COSTS": True,
    "MAX_FILE_SIZE_GB": 2,
    "MAX_AUDIO_HOURS": 12,
    "MAX_JOB_ATTEMPTS": 5,
    "MAX_CRASHES": 10,
    "CLAIM_TTL_SECONDS": 30,
    "FALLBACK_BUDGET_USD_PER_DAY": None,
    "DEEPGRAM_API_KEY": None,
    "DEEPGRAM_MODEL": "nova-3",
    "HEALTH_PORT": 8080,
    "PROGRESS_EVENTS": False,
}


@pytest.fixture(autouse=True)
def _an_empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", PROMISED)
def test_the_defaults_are_those_that_were_promised(name: str) -> None:
    value = getattr(Settings(), name.lower())

    assert (value.value if isinstance(value, Enum) else value) == PROMISED[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARAKEET_DEVICE", "tpu"),
        ("TRANSCRIPTION_METHOD", "whisper"),
        ("GPU_BATCH_SIZE", "0"),
        ("GPU_MEMORY_LIMIT_GB", "-1"),
        ("GPU_PRECISION", "int8"),
        ("GPU_GRAPHS", "perhaps"),
        ("CHUNK_DURATION_MINUTES", "0.05"),
        ("CHUNKS_IN_FLIGHT", "two"),
        ("PARAKEET_ROLLOUT_PERCENT", "101"),
        ("HEALTH_PORT", "70000"),
        ("FALLBACK_BUDGET_USD_PER_DAY", "-0.01"),
    ],
)
def test_a_bad_value_ends_the_command_with_its_name_and_itself(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(typer.Exit) as ended:
        load_settings()

    assert ended.value.exit_code == 2
    said = capsys.readouterr().err
    assert name in said
    assert value in said


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALLBACK_BUDGET_USD_PER_DAY", "")

    assert Settings().fallback_budget_usd_per_day is None


def test_buckets_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INPUT_BUCKETS", "one, two,")

    assert Settings().input_buckets == {"one", "two"}


def test_the_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "very-secret")

    assert "very-secret" not in f"{Settings()!r} {Settings().masked()}"


def test_settings_do_not_change() -> None:
    settings = Settings()

    with pytest.raises(ValidationError):
        settings.temp_dir = Path("/elsewhere")  # type: ignore[misc]
