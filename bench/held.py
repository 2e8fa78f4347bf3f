"""Memory of processes: read from outside, or noted by the processes themselves if they hide it.

A worker that does not run as root hides its memory from other processes, and with it the figures. Python imports
`sitecustomize` as it starts: one on the import path of the worker, and so of its inference process, notes the memory of
its process once a second. As root nothing is hidden, and noting, which costs 54 ms for 1.1 GB, is left out.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

NOTE_SECONDS = 1.0
_KIBIBYTE = 1024
_NOTE_TAKER = f"""
import os, threading, time
from pathlib import Path


def note():
    path = Path(__file__).with_name(str(os.getpid()))
    while True:
        lines = Path("/proc/self/smaps_rollup").read_bytes().splitlines()
        held = next(int(line.split()[1]) * {_KIBIBYTE} for line in lines if line.startswith(b"Pss:"))
        path.with_suffix(".new").write_text(str(held))
        path.with_suffix(".new").replace(path)
        time.sleep({NOTE_SECONDS})


threading.Thread(target=note, name="memory-notes", daemon=True).start()
"""


def with_notes(environment: Mapping[str, str], folder: Path, *, hidden: bool) -> dict[str, str]:
    """Return the environment of processes that note in `folder`, which is made, what they hold where it is hidden."""
    if not hidden:
        return dict(environment)
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_NOTE_TAKER, "utf-8")
    path = filter(None, (str(folder), environment.get("PYTHONPATH")))
    return {**environment, "PYTHONPATH": os.pathsep.join(path)}


def held_by(pid: int, notes: Path) -> int:
    """Return the proportional set size in bytes, what several share is counted once; 0 where there is no telling."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except PermissionError:
        return noted(pid, notes)
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * _KIBIBYTE for line in lines if line.startswith(b"Pss:")), 0)


def noted(pid: int, notes: Path) -> int:
    """Return what the process noted last; 0 where it has noted nothing yet."""
    with suppress(OSError, ValueError):
        return int((notes / str(pid)).read_text("utf-8"))
    return 0
