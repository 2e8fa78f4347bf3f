"""The allocator is the whole process's, so each case has a process of its own."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys, psutil
from worker.adapters.machine.process import return_large_blocks

if sys.argv[1] == "returning":
    return_large_blocks()
held, process = [], psutil.Process()
first = b"x" * 20_000_000
del first
before = process.memory_info().rss
for size in range(12_000_000, 19_000_000, 1_000_000):
    block = b"x" * size
    held.append([bytes(600) for _ in range(200)])
    del block
print(process.memory_info().rss - before)
"""


def kept_bytes(how: str) -> int:
    finished = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
    return int(finished.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_freed_chunks_of_audio_go_back_to_the_system() -> None:
    kept = {how: kept_bytes(how) for how in ("returning", "as it is")}

    assert kept["returning"] < 4_000_000
    assert kept["as it is"] > 8_000_000


HOLES = """
import psutil
from worker.adapters.machine.process import return_what_is_free

process, held, blocks = psutil.Process(), [], []
before = process.memory_info().rss
for _ in range(400):
    blocks.append(b"x" * 100_000)
    held.append([bytes(600) for _ in range(20)])  # what stays between them
del blocks
kept = process.memory_info().rss
return_what_is_free()
print(kept - before, process.memory_info().rss - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_holes_between_what_is_held_go_back_to_the_system_when_asked() -> None:
    finished = subprocess.run([sys.executable, "-c", HOLES], check=True, capture_output=True, text=True)
    kept_bytes, returned_to_bytes = map(int, finished.stdout.split())

    assert kept_bytes > 30_000_000
    assert returned_to_bytes < kept_bytes / 2
