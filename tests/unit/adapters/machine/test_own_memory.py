"""Another process of the same user reads neither memory nor environment; the process itself still reads its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux hides a process and reports its memory")

UID = 10001
# Forked, so that both are the unprivileged user without starting a program that this user may not read.
SCRIPT = """
import ctypes, os, sys
from worker.adapters.machine.process import hide_memory

if os.geteuid() == 0:
    os.setresgid(*[{uid}] * 3)
    os.setresuid(*[{uid}] * 3)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after a start: changing the user hides it as well
if sys.argv[1] == "hidden":
    hide_memory()
said, say = os.pipe()
if not os.fork():
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    for name in ("environ", "mem", "smaps_rollup"):
        try:
            os.close(os.open(f"/proc/{{os.getppid()}}/{{name}}", os.O_RDONLY))
            os.write(say, b"read ")
        except OSError:
            os.write(say, b"refused ")
    os._exit(0)
os.wait()
print(os.read(said, 100).decode(), b"Pss:" in open("/proc/self/smaps_rollup", "rb").read())
"""


@pytest.mark.parametrize(
    ("how", "outcome"), [("hidden", "refused refused refused  True"), ("open", "read read read  True")]
)
def test_once_hidden_the_memory_is_read_from_within_alone(how: str, outcome: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(uid=UID), how],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
        cwd=Path(__file__).parents[4],
    )

    assert finished.stdout.strip() == outcome
