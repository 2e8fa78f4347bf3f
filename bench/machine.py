"""The machine of a benchmark, which is part of every result."""

import asyncio
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from worker.adapters.audio import ffmpeg_version, find_ffmpeg
from worker.adapters.gpu import open_gpus

PACKAGES = ("klipstream-worker", "torch", "nemo_toolkit", "numpy")
GIB = 1 << 30
_CPU_NAME = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware, versions and the day."""

    cpu: str
    cores: int
    """Number of processors that this process may use."""
    memory_gib: float
    gpus: tuple[str, ...]
    system: str
    versions: Mapping[str, str]
    date: str


def this_machine() -> Machine:
    """Describe the machine. Starts ffmpeg for a moment. Raises `FfmpegMissing`."""
    with open_gpus() as gpus:
        names = tuple(reading.name for reading in gpus.read())
    return Machine(
        cpu=cpu_name(Path("/proc/cpuinfo").read_text("utf-8")) or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB,
        gpus=names,
        system=f"{platform.system()} {platform.machine()}",
        versions={
            "Python": platform.python_version(),
            **{name: found for name in PACKAGES if (found := _version(name))},
            "ffmpeg": asyncio.run(ffmpeg_version(find_ffmpeg())),
        },
        date=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def cpu_name(cpuinfo: str) -> str | None:
    """Return Linux's name of the processor."""
    found = _CPU_NAME.search(cpuinfo)
    return found[1].strip() if found else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
