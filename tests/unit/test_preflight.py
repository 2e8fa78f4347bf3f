import pytest

from worker.preflight.machine import memory_finding
from worker.settings import Settings


def test_what_all_jobs_may_hold_at_once_fits_with_room_to_spare_by_default() -> None:
    found = memory_finding(Settings())

    # 4 GiB of files, and 4 jobs with 3 chunks of 10 minutes and 4 parts of 5 minutes, at 32 kB a second.
    assert found.detail == "audio may take 4.4 GiB of INSTANCE_MEMORY_GIB=16"
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
    found = memory_finding(Settings(**settings))

    assert not found.ok
    assert "lower DOWNLOAD_ROOM_GB" in found.detail
