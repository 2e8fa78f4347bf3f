from pathlib import Path

import pytest
import typer
from pydantic import ValidationError

from worker.commands.console import load_settings
from worker.settings import fields, problems, read_settings

PROMISED = {
    "ENABLE_GPU_TRANSCRIPTION": True,
    "PARAKEET_DEVICE": "cuda",
    "TRANSCRIPTION_METHOD": "auto",
    "PARAKEET_MODEL_NAME": "nvidia/parakeet-tdt-0.6b-v2",
    "GPU_BATCH_SIZE": None,
    "PARAKEET_ENGINE": "auto",
    "GPU_MEMORY_LIMIT_GB": 20,
    "GPU_PRECISION": "bfloat16",
    "GPU_GRAPHS": True,
    "KEYTERM_WEIGHT": 3.5,
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


@pytest.mark.parametrize("name", PROMISED)
def test_the_defaults_are_those_that_were_promised(name: str) -> None:
    assert read_settings({}).masked()[name.lower()] == PROMISED[name]


def test_every_setting_belongs_to_one_group() -> None:
    names = [variable for variable, _, _ in fields()]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARAKEET_DEVICE", "tpu"),
        ("TRANSCRIPTION_METHOD", "whisper"),
        ("GPU_BATCH_SIZE", "0"),
        ("GPU_MEMORY_LIMIT_GB", "1"),
        ("PARAKEET_ENGINE", "onnx"),
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


@pytest.mark.parametrize("name", ["MAX_FILE_SIZE_GB", "INSTANCE_VCPUS", "CLAIM_TTL_SECONDS", "MAX_AUDIO_HOURS"])
@pytest.mark.parametrize("value", ["inf", "-Infinity", "nan", "1e999"])
def test_a_number_without_end_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_settings({name: value})

    assert problems(refused.value) == [f"{name}: Input should be a finite number (got {value!r})"]


@pytest.mark.parametrize("name", ["STORAGE_EMULATOR_HOST", "DEEPGRAM_BASE_URL"])
@pytest.mark.parametrize("value", ["api.eu.deepgram.com", "localhost:4443", "https://", "ftp://host", "//host"])
def test_an_address_that_is_no_url_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_settings({name: value})

    assert problems(refused.value) == [f"{name}: must be a URL that begins with http:// or https:// (got {value!r})"]


def test_a_url_where_host_and_port_are_wanted_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValidationError) as refused:
        read_settings({"PUBSUB_EMULATOR_HOST": "http://localhost:8085/"})

    (line,) = problems(refused.value)
    assert line == (
        "PUBSUB_EMULATOR_HOST: must be host:port without a scheme; write localhost:8085 (got 'http://localhost:8085/')"
    )


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(ValidationError) as refused:
        read_settings({"GPU_BATCH_SIZE": "0", "MAX_PARKED": "-1", "HEALTH_PORT": "x"})

    named = [line.split(":")[0] for line in problems(refused.value)]
    assert named == ["GPU_BATCH_SIZE", "MAX_PARKED", "HEALTH_PORT"]


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert read_settings({"FALLBACK_BUDGET_USD_PER_DAY": ""}).money.fallback_budget_usd_per_day is None


def test_capitals_make_no_difference() -> None:
    assert read_settings({"max_parked": "7"}).jobs.max_parked == 7


def test_buckets_are_separated_by_commas() -> None:
    assert read_settings({"INPUT_BUCKETS": "one, two,"}).cloud.input_buckets == {"one", "two"}


@pytest.mark.parametrize("name", ["OUTPUT_BUCKET", "STATE_BUCKET", "INPUT_BUCKETS", "OUTPUT_BUCKETS"])
@pytest.mark.parametrize(
    "value",
    ["gs://my-bucket", "gs://my-bucket/", "my-bucket/", "'my-bucket", "My-Bucket", "gs://my-bucket/some/folder"],
)
def test_a_bucket_that_is_no_bare_name_is_refused_with_the_name_to_write(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_settings({name: value})

    (line,) = problems(refused.value)
    assert line.startswith(f"{name}: ")
    assert "; write my-bucket (got " in line
    assert value in line


def test_a_bucket_of_blanks_is_refused_without_a_guess() -> None:
    with pytest.raises(ValidationError) as refused:
        read_settings({"STATE_BUCKET": "  "})

    (line,) = problems(refused.value)
    assert line.startswith("STATE_BUCKET: ")
    assert "write" not in line


def test_the_refused_bucket_of_several_is_named() -> None:
    with pytest.raises(ValidationError, match="write second"):
        read_settings({"INPUT_BUCKETS": "first, gs://second"})


@pytest.mark.parametrize("name", ["OUTPUT_BUCKET", "PROJECT_ID", "PARAKEET_MODEL_NAME", "INPUT_BUCKETS", "TEMP_DIR"])
@pytest.mark.parametrize("value", ['"a-name"', "'a-name'"])
def test_a_value_in_quotes_is_refused_and_the_quotes_are_named(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_settings({name: value})

    (line,) = problems(refused.value)
    assert line.startswith(f"{name}: ")
    assert "must not be in quotes" in line


def test_a_quoted_key_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError) as refused:
        read_settings({"DEEPGRAM_API_KEY": '"very-secret"'})

    (line,) = problems(refused.value)
    assert line.startswith("DEEPGRAM_API_KEY: ")
    assert "very-secret" not in line


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OUPUT_BUCKET", "OUTPUT_BUCKET"),
        ("INPUT_BUCKET", "INPUT_BUCKETS"),
        ("OUTPUT_BUCKET_NAME", "OUTPUT_BUCKET"),
        ("BUCKET_STATE", "STATE_BUCKET"),
        ("TEMPDIR", "TEMP_DIR"),
        ("MAX_CONCURENT_JOBS", "MAX_CONCURRENT_JOBS"),
        ("MAX_JOBS", "MAX_CONCURRENT_JOBS"),
        ("DEEPGRAM_KEY", "DEEPGRAM_API_KEY"),
        ("PARAKEET_MODEL", "PARAKEET_MODEL_NAME"),
        ("PARAKEET_MODEL_ID", "PARAKEET_MODEL_NAME"),
        ("max_crash", "MAX_CRASHES"),
    ],
)
def test_a_variable_that_resembles_a_setting_is_reported_with_that_setting(name: str, meant: str) -> None:
    assert read_settings({name: "x"}).look_alikes == {name.upper(): meant}


@pytest.mark.parametrize(
    "name",
    [
        *("TMPDIR", "PATH", "HOME", "HOSTNAME", "PORT", "PYTHONPATH", "AUDIO_BUCKET", "COST_TABLE_NAME"),
        *("GOOGLE_CLOUD_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS", "OTEL_EXPORTER_OTLP_ENDPOINT", "HF_HOME"),
        *("K_REVISION", "CLOUD_RUN_WORKER_POOL", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
        *("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "REDIS_PORT_6379_TCP", "REDIS_SERVICE_HOST"),
    ],
)
def test_a_variable_of_another_program_is_left_alone(name: str) -> None:
    assert read_settings({name: "x"}).look_alikes == {}


def test_the_secret_is_never_shown() -> None:
    settings = read_settings({"DEEPGRAM_API_KEY": "very-secret"})

    assert "very-secret" not in f"{settings!r} {settings.masked()}"


def test_settings_do_not_change() -> None:
    settings = read_settings({})

    with pytest.raises(ValidationError):
        settings.jobs.temp_dir = Path("/elsewhere")  # type: ignore[misc]


@pytest.mark.parametrize(("value", "level"), [("DEBUG", "debug"), ("warning", "warning"), ("", "info")])
def test_the_log_level_is_read_in_any_case(value: str, level: str) -> None:
    assert read_settings({"LOG_LEVEL": value}).telemetry.log_level == level


def test_a_log_level_that_is_none_is_named_with_the_levels_there_are() -> None:
    with pytest.raises(ValidationError) as raised:
        read_settings({"LOG_LEVEL": "loud"})

    (problem,) = problems(raised.value)
    assert problem == "LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error' (got 'loud')"


def test_settings_that_differ_from_their_defaults_are_listed_and_secrets_are_not_shown() -> None:
    given = {"MAX_PARKED": "4", "LOG_LEVEL": "debug", "DEEPGRAM_API_KEY": "s3cr3t", "INPUT_BUCKETS": "b,a,c"}

    changed = read_settings(given).changed()

    assert changed == ["INPUT_BUCKETS=a,b,c", "DEEPGRAM_API_KEY=**********", "LOG_LEVEL=debug"]
