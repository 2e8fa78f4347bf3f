"""A worker with a secret and another job's audio that starts `hostile_decoder.py` in place of ffmpeg.

Started as root it becomes uid 10001 without capabilities first. Arguments: Landlock's version to use at most, whether
to use a filter of system calls, and the interpreter to run the stand-in with. Prints what the decoder got.
"""

import asyncio
import ctypes
import json
import os
import resource  # noqa: F401  # now: the unprivileged user may not read where Python is
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from worker.adapters.audio import Confinement, Kernel, Limits
from worker.adapters.audio.confinement.program import Program
from worker.adapters.audio.process import started
from worker.adapters.audio.report import Report
from worker.adapters.machine.process import hide_memory

UID = 10001
HOSTILE_DECODER = Path(__file__).with_name("hostile_decoder.py").read_text("utf-8")


def become_unprivileged() -> None:
    """Be what the image runs as. Changing the user hides the memory by the way, which `hide_memory` must do alone."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)


def interpreter(path: Path, kernel: Kernel) -> Confinement:
    """Python in ffmpeg's place, allowed its own files as ffmpeg is, which for Python are its library's too."""
    found = Program.at(path)
    code = "import os, sys; print(os.path.dirname(os.__file__))"
    library = subprocess.run([path, "-I", "-S", "-c", code], capture_output=True, check=True, text=True).stdout.strip()
    libraries = [folder for folder in map(Path, ("/lib", "/usr/lib")) if folder.is_dir()]  # those of its modules
    confinement = Confinement(path=path, kernel=kernel)
    vars(confinement)["program"] = Program(path=path, files=(*found.files, Path(library), *libraries))
    return confinement


async def attack(confinement: Confinement, folder: Path) -> dict[str, object]:
    """Start the stand-in beside listeners and another job's audio. Returns its report."""
    audio, other = folder / "audio.wav", folder / "other.wav"
    audio.write_bytes(bytes(1000))
    other.write_bytes(b"another job's audio")
    abstract = f"klipstream-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as hidden,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "socket"))
        unix.listen()
        hidden.bind(f"\0{abstract}")
        hidden.listen()
        ports = (str(tcp.getsockname()[1]), str(udp.getsockname()[1]))
        arguments = ("-I", "-S", "-c", HOSTILE_DECODER, str(other), *ports, str(folder / "socket"), abstract)
        async with started(confinement, audio, arguments, Report("fd:"), Limits(max_seconds=60)) as run:
            answer = await run.read(1 << 20)
            status = await run.ended()
    report: dict[str, object] = json.loads(answer or b"{}")
    return {**report, "status": status}


def main(abi: int, filtered: bool, python: Path) -> None:
    become_unprivileged()
    hide_memory()
    offered = Kernel.here()
    kernel = Kernel(landlock_abi=min(abi, offered.landlock_abi), seccomp=offered.seccomp if filtered else None)
    confinement = interpreter(python, kernel)
    folder = Path(tempfile.mkdtemp())
    try:
        report = asyncio.run(attack(confinement, folder))
        report["left"] = sorted(path.name for path in folder.iterdir())
    finally:
        shutil.rmtree(folder)
    facts = {"landlock": kernel.landlock_abi, "seccomp": kernel.seccomp is not None, "uid": os.geteuid()}
    print(json.dumps({**report, **facts, "gaps": confinement.gaps()}))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "filtered", Path(sys.argv[3]))
