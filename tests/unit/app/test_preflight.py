import errno
from pathlib import Path

import pytest

from worker.adapters.audio import FfmpegMissing, Kernel, find_ffmpeg
from worker.adapters.audio.confinement.seccomp import ARCHITECTURES
from worker.app import machine_checks
from worker.app.machine_checks import confinement_findings, ffmpeg_finding, memory_finding, temp_dir_findings
from worker.app.preflight import variable_findings
from worker.settings import EngineSettings, JobSettings, read_settings


def test_what_all_jobs_may_hold_at_once_fits_with_room_to_spare_by_default() -> None:
    found = memory_finding(JobSettings(), EngineSettings())

    # 4 GiB of files; 4 jobs with 3 chunks of 10 minutes and 4 parts of 5, at 32 kB a second; 8 ffmpegs of 0.375 GiB.
    assert found.detail == "audio may take 7.4 GiB of INSTANCE_MEMORY_GIB=16"
    assert found.ok


@pytest.mark.parametrize(
    "settings",
    [
        {"download_room_gb": 16},
        {"max_file_size_gb": 16},
        {"max_concurrent_jobs": 64, "chunks_in_flight": 16, "chunk_duration_minutes": 10},
        {"instance_memory_gib": 4},
    ],
)
def test_settings_that_could_fill_the_instance_s_memory_are_refused_at_the_start(settings: dict[str, float]) -> None:
    effective = read_settings(settings)

    found = memory_finding(effective.jobs, effective.engine)

    assert not found.ok
    assert "lower DOWNLOAD_ROOM_GB" in found.detail


def test_check_reports_full_confinement_without_advice() -> None:
    (found,) = confinement_findings(find_ffmpeg, Kernel(landlock_abi=7, seccomp=ARCHITECTURES["x86_64"]))

    assert (found.ok, found.advice) == (True, False)
    assert "reaches no other file" in found.detail


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (Kernel(landlock_abi=0, seccomp=ARCHITECTURES["x86_64"]), "other jobs' audio"),
        (Kernel(landlock_abi=7, seccomp=None), "open sockets other than TCP"),
        (Kernel(landlock_abi=0, seccomp=None), "signal the worker"),
    ],
    ids=["no Landlock", "no filter", "neither, as on macOS"],
)
def test_what_a_machine_lacks_to_confine_ffmpeg_is_advice_with_the_consequence(kernel: Kernel, said: str) -> None:
    (found,) = confinement_findings(find_ffmpeg, kernel)

    assert (found.ok, found.advice) == (True, True)
    assert said in found.detail


def test_without_an_ffmpeg_its_confinement_is_no_subject() -> None:
    def missing() -> Path:
        raise FfmpegMissing

    assert list(confinement_findings(missing, Kernel.here())) == []


@pytest.mark.parametrize("version", ["5.1.6-0+deb12u1", "4.4.2-0ubuntu0.22.04.1", "n5.0"])
def test_an_ffmpeg_that_cannot_read_an_inherited_file_is_refused_at_the_start(version: str) -> None:
    found = ffmpeg_finding(Path("/usr/bin/ffmpeg"), version)

    assert not found.ok
    assert "6.0 or newer" in found.detail


@pytest.mark.parametrize(
    "version", ["6.0", "7.0.2-static", "n8.1", "9.0.2", "N-118000-gabcdef", "2026-11-01-git-0123456789"]
)
def test_a_newer_ffmpeg_and_one_without_a_number_are_taken(version: str) -> None:
    assert ffmpeg_finding(Path("/usr/bin/ffmpeg"), version).ok


def test_a_temp_dir_that_takes_files_passes_and_is_left_as_it_was(tmp_path: Path) -> None:
    found = temp_dir_findings(JobSettings(temp_dir=tmp_path, download_room_gb=0.000001))

    assert [(finding.ok, finding.advice) for finding in found] == [(True, False)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["missing", "a-file"])
def test_a_temp_dir_that_is_no_directory_is_refused_and_the_setting_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").touch()

    (found,) = temp_dir_findings(JobSettings(temp_dir=tmp_path / name))

    assert not found.ok
    assert "create it, or correct TEMP_DIR" in found.detail


def test_a_temp_dir_that_takes_no_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(machine_checks, "takes_files", refuse)

    (found,) = temp_dir_findings(JobSettings(temp_dir=tmp_path))

    assert not found.ok
    assert "No space left on device" in found.detail


def test_less_room_than_the_settings_promise_to_downloads_is_advice(tmp_path: Path) -> None:
    found = temp_dir_findings(JobSettings(temp_dir=tmp_path, download_room_gb=1_000_000))

    assert [(finding.ok, finding.advice) for finding in found] == [(True, False), (True, True)]
    assert "DOWNLOAD_ROOM_GB promises" in found[1].detail


def test_a_variable_that_resembles_a_setting_is_advice_with_both_names() -> None:
    (found,) = variable_findings({"OUPUT_BUCKET": "OUTPUT_BUCKET"})

    assert (found.name, found.ok, found.advice) == ("OUPUT_BUCKET", True, True)
    assert "did you mean OUTPUT_BUCKET?" in found.detail
