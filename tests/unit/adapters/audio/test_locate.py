"""Choice of ffmpeg: never an older one than the bundled."""

from pathlib import Path

import imageio_ffmpeg
import pytest

from worker.adapters.audio import find_ffmpeg, is_too_old
from worker.adapters.audio.locate import FfmpegMissing, ffmpeg_version
from worker.app.machine_checks import machine_findings
from worker.settings import EngineSettings, JobSettings


def program(folder: Path, says: str, *, name: str = "ffmpeg") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = program(tmp_path / "wheel", "exit 1", name="ffmpeg-linux-x86_64-v9.0.2")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(path))
    return path


def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> Path:
    path = program(tmp_path / "system", says)
    monkeypatch.setenv("PATH", str(path.parent))
    return path


@pytest.mark.parametrize(
    "version",
    ["9.0.2", "9.0.2-0+deb14u1", "n9.0.2-17-g2a571b6068", "9.1", "10.0", "9.0.10"],
)
def test_a_system_ffmpeg_that_is_as_new_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundled: Path, version: str
) -> None:
    system = on_path(tmp_path, monkeypatch, f"echo 'ffmpeg version {version} Copyright (c)'")

    assert find_ffmpeg() == system != bundled


@pytest.mark.parametrize(
    "says",
    [
        *(f"echo 'ffmpeg version {version} Copyright (c)'" for version in ("4.4.2", "5.1.6-0+deb12u1", "9.0.1", "9.0")),
        "echo 'ffmpeg version N-118193-g5f38c82536-20241228 Copyright'",
        "echo 'ffmpeg version git-2020-01-01 Copyright'",
        "exit 0",
        "exit 127",
        "echo hello",
    ],
)
def test_a_system_ffmpeg_that_is_older_or_does_not_say_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundled: Path, says: str
) -> None:
    on_path(tmp_path, monkeypatch, says)

    assert find_ffmpeg() == bundled


def test_any_system_ffmpeg_serves_where_there_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise RuntimeError

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    system = on_path(tmp_path, monkeypatch, "exit 0")

    assert find_ffmpeg() == system
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FfmpegMissing):
        find_ffmpeg()


@pytest.mark.parametrize(
    "says", ["exit 0", "exit 3", "echo", "printf '\\377\\376'", "echo ffmpeg", "echo 'ffmpeg version'"]
)
async def test_an_ffmpeg_without_a_version_is_named_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    silent = program(tmp_path, says)
    monkeypatch.setattr("worker.app.machine_checks.find_ffmpeg", lambda: silent)

    version = await ffmpeg_version(silent)
    finding = await anext(machine_findings(JobSettings(), EngineSettings()))

    assert version == "unknown version"
    assert finding.ok
    assert finding.advice


@pytest.mark.parametrize(
    ("version", "old"),
    [("8.1", False), ("n9.0.2-17-g2a571b6068-20260930", False), ("8.0.9", True), ("7.0.2-static", True), ("N-1", True)],
)
def test_releases_before_8_1_are_too_old(version: str, old: bool) -> None:
    assert is_too_old(version) == old


async def test_the_bundled_ffmpeg_is_current() -> None:
    found = await anext(machine_findings(JobSettings(), EngineSettings()))

    assert found.ok
    assert not found.advice
    assert " at " in found.detail
