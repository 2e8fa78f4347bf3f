"""Short versions of what `make chaos` does at length, on real worker processes with the null engine."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.deliveries import deliver
from tests.chaos.faults import PLAYS, theatre
from tests.chaos.fleet import ROOT
from tests.chaos.replay import replay_killed
from tests.chaos.shutdown import MOST_EXIT_SECONDS, exit_with_hanging_storage, tries

# Seconds of a free machine each; a worker's start alone takes ten on a busy one.
pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


def test_killed_workers_behind_failing_networks_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--short", "--seed", "3", "--keep", str(tmp_path)]

    # In a process of its own, which becomes the parent of whatever the killed workers leave behind.
    campaign = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert campaign.returncode == 0, campaign.stdout + campaign.stderr


@pytest.mark.alone
async def test_a_stopped_worker_s_job_goes_on_at_once_from_its_checkpoints_elsewhere(tmp_path: Path) -> None:
    found = [one async for one in tries(tmp_path, 1, random.Random(1), workers=2)]

    assert [one for one in found if not one.kept] == []


@pytest.mark.alone
async def test_a_worker_whose_storage_hangs_exits_in_time_all_the_same(tmp_path: Path) -> None:
    seconds = await exit_with_hanging_storage(tmp_path)

    assert seconds < MOST_EXIT_SECONDS


async def test_two_workers_that_receive_one_job_transcribe_it_once(tmp_path: Path) -> None:
    found = await deliver(tmp_path, audio_seconds=120, job_seconds=3, workers=2, messages=2)

    assert found.once_each, found


async def test_a_replay_that_is_killed_and_run_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    found = await replay_killed(tmp_path, jobs=12, rate=10)

    assert found.kept, found


@pytest.mark.parametrize(("name", "healthy"), [("output bucket 503", False), ("missing TEMP_DIR", True)])
async def test_a_sick_worker_harms_no_job(tmp_path: Path, name: str, healthy: bool) -> None:
    (play,) = [one for one in PLAYS if one.name == name]

    async with theatre(tmp_path, jobs=10) as on:
        found = await on.play(play, beside_a_healthy_one=healthy)

    assert found.kept, found
