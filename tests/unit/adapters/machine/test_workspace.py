import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.adapters.machine.workspace import workspace
from worker.errors import MachineFault

HOLD = """
import sys
from pathlib import Path
from worker.adapters.machine.workspace import workspace
with workspace(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_folder_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with workspace(tmp_path) as folder:
        mode = folder.stat().st_mode & 0o777

    assert mode == 0o700
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_worker_is_removed_by_the_next_one_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    killed, live = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    assert killed.stdout is not None
    assert live.stdout is not None
    theirs = Path(killed.stdout.readline().strip()), Path(live.stdout.readline().strip())
    killed.kill()
    killed.communicate()

    with workspace(tmp_path):
        left = [folder.exists() for folder in theirs]
    live.communicate("")

    assert left == [False, True]


def test_two_workers_of_one_process_id_do_not_remove_each_others_folders(tmp_path: Path) -> None:
    with workspace(tmp_path) as first, workspace(tmp_path) as second:
        assert first.exists()
        assert first != second


@pytest.mark.parametrize("parent", ["missing", "a-file/below"])
def test_a_temp_dir_that_is_no_folder_is_the_machines_fault_and_says_what_to_do(tmp_path: Path, parent: str) -> None:
    (tmp_path / "a-file").touch()

    with pytest.raises(MachineFault, match=r"TEMP_DIR: .*create "), workspace(tmp_path / parent):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_temp_dir_that_may_not_be_written_to_is_the_machines_fault(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(MachineFault, match="TEMP_DIR"), workspace(tmp_path):
        pass
