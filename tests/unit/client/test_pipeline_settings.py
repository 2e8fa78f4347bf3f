import sys
from pathlib import Path

import pytest

from worker.client.pipeline import transcribe
from worker.client.pipeline_settings import PipelineMisconfigured, PipelineSettings, transcripts_folder

NAMES = {"PROJECT_ID": "my-project", "AUDIO_BUCKET": "my-audio"}


@pytest.mark.parametrize(
    ("audio", "environment", "folder"),
    [
        ("output/Raw/Audio/audio_1.mp3", {}, "output/Raw/Transcripts"),
        ("/srv/Output/Raw/Audio/audio_1.mp3", {"K_SERVICE": "pipeline"}, "/srv/Output/Raw/Transcripts"),
        ("audio_1.mp3", {}, "output/Raw/Transcripts"),
        ("Audio/audio_1.mp3", {}, "output/Raw/Transcripts"),
        ("audio_1.mp3", {"BASE_DIR": "/srv", "K_SERVICE": "pipeline"}, "/srv/output/Raw/Transcripts"),
        ("/data/audio_1.mp3", {"K_SERVICE": "pipeline"}, "/tmp/output/Raw/Transcripts"),  # noqa: S108 - the pipeline's own
    ],
)
def test_transcripts_belong_where_the_pipeline_looks(audio: str, environment: dict[str, str], folder: str) -> None:
    assert transcripts_folder(Path(audio), environment) == Path(folder)


def test_two_names_are_enough() -> None:
    settings = PipelineSettings.read(environment=NAMES)

    assert settings == PipelineSettings(
        project_id="my-project",
        audio_bucket="my-audio",
        jobs_topic="transcription-jobs",
        completion_topic="transcription-completions",
        subscription=None,
        timeout_seconds=1800.0,
        usual_timeout_seconds=1800.0,
    )


def test_the_call_s_own_timeout_beats_the_variable_and_leaves_that_of_other_calls() -> None:
    settings = PipelineSettings.read(60, {**NAMES, "TRANSCRIPTION_TIMEOUT": "5"})

    assert (settings.timeout_seconds, settings.usual_timeout_seconds) == (60, 5)


def test_a_wrong_timeout_of_the_call_is_named_as_the_call_names_it() -> None:
    with pytest.raises(PipelineMisconfigured, match=r"^timeout_seconds must be seconds above 0.*-1"):
        PipelineSettings.read(-1, NAMES)


@pytest.mark.parametrize("variable", ["JOBS_TOPIC", "COMPLETION_TOPIC", "PIPELINE_SUBSCRIPTION"])
def test_a_resource_has_a_short_name(variable: str) -> None:
    with pytest.raises(PipelineMisconfigured, match=f"{variable} must be a short name.*'projects/p/topics/t'"):
        PipelineSettings.read(environment={**NAMES, variable: "projects/p/topics/t"})


@pytest.mark.parametrize("value", ["0", "-1", "inf", "1e12", "nan", "soon"])
def test_a_timeout_is_a_positive_number_of_seconds(value: str) -> None:
    with pytest.raises(PipelineMisconfigured, match=f"TRANSCRIPTION_TIMEOUT must be seconds above 0.*'{value}'"):
        PipelineSettings.read(environment={**NAMES, "TRANSCRIPTION_TIMEOUT": value})


def test_a_machine_without_credentials_names_the_command_that_gets_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("google.cloud.storage")
    for name, value in NAMES.items():
        monkeypatch.setenv(name, value)
    for name in ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    audio = tmp_path / "audio.mp3"
    audio.write_bytes(b"ID3")

    with pytest.raises(PipelineMisconfigured, match="gcloud auth application-default login"):
        transcribe(audio, "1")


def test_an_install_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in NAMES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    audio = tmp_path / "audio.mp3"
    audio.write_bytes(b"ID3")

    with pytest.raises(ImportError, match=r"pip install 'klipstream-worker\[client\]'"):
        transcribe(audio, "1")
