"""Confinement: a decoder taken over by a file reaches nothing; gaps of the kernel are reported."""

import asyncio
import ctypes
import errno
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit
from tests.support.wait import wait_until
from worker.adapters.audio import Confinement, FfmpegDecoder, Kernel, Limits
from worker.adapters.audio.child import Child
from worker.adapters.audio.confinement import calls, seccomp
from worker.adapters.audio.confinement.calls import code_of
from worker.adapters.audio.confinement.program import Program
from worker.adapters.audio.confinement.seccomp import ARCHITECTURES
from worker.adapters.audio.process import started
from worker.adapters.audio.report import Report
from worker.ports import Pcm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the means")

ROOT = Path(__file__).parents[2]
SYSTEMS = (Path("/usr/bin/python3"), Path("/usr/local/bin/python3"))
"""Interpreters that every user may run."""
SECRET = "not-for-ffmpeg"  # noqa: S105
OFFERED = Kernel.here()
NOTHING = Kernel(landlock_abi=0, seccomp=None)


def under_attack(abi: int, *, filtered: bool) -> Mapping[str, Any]:
    """Return the reach of a decoder that was taken over, with at most the given mechanisms of the kernel."""
    python = next((path for path in SYSTEMS if path.exists()), None)
    if python is None:
        pytest.skip("no Python that the unprivileged user may run")
    command = [sys.executable, "-m", "tests.support.confinement.attack", str(abi)]
    environment = {**os.environ, "DEEPGRAM_API_KEY": SECRET, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    finished = subprocess.run(
        [*command, "filtered" if filtered else "unfiltered", python],
        env=environment,
        capture_output=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr.decode()
    assert SECRET.encode() not in finished.stdout
    report: dict[str, Any] = json.loads(finished.stdout)
    return report


def means(report: Mapping[str, Any]) -> set[str]:
    """The mechanisms that were there, as the attempts name them."""
    versions = {"landlock": 1, "landlock-4": 4, "landlock-6": 6}
    there = {name for name, version in versions.items() if report["landlock"] >= version}
    return there | {"limit"} | ({"seccomp"} if report["seccomp"] else set()) | ({"hidden"} if report["uid"] else set())


def got(report: Mapping[str, Any]) -> set[str]:
    return {attempt for attempt, (outcome, _) in report["tries"].items() if outcome == "done"}


def test_a_decoder_taken_over_gets_nothing_of_the_worker_of_its_files_or_of_the_network() -> None:
    report = under_attack(99, filtered=True)

    closed = {attempt for attempt, (_, needs) in report["tries"].items() if means(report) & set(needs)}
    assert len(report["tries"]) == 51
    assert got(report) & closed == set()
    assert report["left"] == ["audio.wav", "other.wav", "socket"]
    assert report["input_bytes"] == 1000, "its own input it reads"
    assert (report["environment"], report["no_new_privileges"], report["status"]) == ({"LC_ALL": "C"}, 1, 0)
    lacking = sorted(set(report["tries"]) - closed)
    assert bool(report["gaps"]) == bool(lacking), f"open here: {lacking}; said: {report['gaps']}"


@pytest.mark.parametrize(
    ("abi", "filtered", "still_closed", "said"),
    [
        (0, True, {"reach_a_tcp_port", "signal_the_worker", "write_a_file"}, "may read, other jobs' audio"),
        (3, False, {"read_another_jobs_audio", "write_a_file"}, "signal the worker"),
        (
            6,
            False,
            {"read_another_jobs_audio", "reach_a_tcp_port", "signal_the_worker"},
            "open sockets other than TCP",
        ),
        (0, False, {"read_the_environment_of_the_worker", "open_the_memory_of_the_worker"}, "write files"),
    ],
)
def test_an_older_kernels_gaps_are_reported_and_the_rest_stays_confined(
    abi: int, filtered: bool, still_closed: set[str], said: str
) -> None:
    if abi > OFFERED.landlock_abi or (filtered and not OFFERED.seccomp):
        pytest.skip(f"this kernel offers {OFFERED}")

    report = under_attack(abi, filtered=filtered)

    closed = {attempt for attempt, (_, needs) in report["tries"].items() if means(report) & set(needs)}
    assert got(report) & closed == set()
    assert still_closed <= closed
    assert got(report), "the attempts would show what is open"
    assert said in " ".join(report["gaps"])


@pytest.mark.parametrize(
    "kernel",
    [
        Kernel(landlock_abi=0, seccomp=OFFERED.seccomp),
        Kernel(landlock_abi=min(1, OFFERED.landlock_abi), seccomp=None),
        Kernel(landlock_abi=min(4, OFFERED.landlock_abi), seccomp=OFFERED.seccomp),
        NOTHING,
    ],
    ids=["no Landlock", "the first Landlock and no filter", "Landlock 4", "nothing"],
)
async def test_files_are_decoded_alike_whatever_the_kernel_offers(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, kernel: Kernel
) -> None:
    path = media.encode("talk.m4a", talk, "-c:a", "aac")  # its index is at the end: the input must be seekable
    lesser = FfmpegDecoder(ffmpeg=media.ffmpeg, limits=Limits(max_seconds=60), kernel=kernel)

    decoded, expected = await decode_all(lesser, path), await decode_all(decoder, path)

    assert np.array_equal(decoded.samples, expected.samples)


@pytest.mark.skipif(not OFFERED.seccomp, reason="no filter here")
async def test_a_program_begins_once_its_limits_are_set(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.write_bytes(b"samples")
    confinement = Confinement(path=Path("/bin/cat"), kernel=OFFERED)
    seen = []

    def slow(pid: int) -> None:
        cat = psutil.Process(pid)
        wait_until(lambda: cat.status() not in {psutil.STATUS_RUNNING, psutil.STATUS_WAKING})  # it waits, or has ended
        seen.append(cat.status())

    with audio.open("rb", buffering=0) as stdin:
        child = await Child.start((), stdin, confinement, slow)
    copied, status = await child.stdout.read(), await child.wait()

    assert seen == [psutil.STATUS_SLEEPING]
    assert (copied, status) == (b"samples", 0)


async def test_a_program_linked_dynamically_is_confined_with_its_libraries(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.write_bytes(b"samples")
    confinement = Confinement(path=Path("/bin/cat"), kernel=OFFERED)

    async with started(confinement, audio, (), Report("fd:"), Limits(max_seconds=60)) as run:
        copied, status = await run.read(100), await run.ended()
    async with started(confinement, audio, ("/etc/passwd",), Report("fd:"), Limits(max_seconds=60)) as run:
        stolen, refused = await run.read(100), await run.ended()

    assert (copied, status) == (b"samples", 0)
    if OFFERED.landlock_abi:
        assert (stolen, refused) == (b"", 1), "cat reads no file that it is not given open"
    names = [path.name for path in confinement.program.files]
    assert any(re.match(r"(ld-|ld\.so)", name) for name in names)
    assert any(name.startswith("libc.") for name in names)


def test_the_static_ffmpeg_needs_no_file_but_itself(tmp_path: Path) -> None:
    header = b"\x7fELF\x02\x01" + bytes(26) + (64).to_bytes(8, "little") + bytes(14) + (56).to_bytes(2, "little")
    static = tmp_path / "static"
    static.write_bytes(header + (1).to_bytes(2, "little") + bytes(6) + (1).to_bytes(4, "little") + bytes(52))

    program = Program.at(static)

    assert static in program.files
    assert not any(path.is_dir() for path in program.files)
    assert not program.is_script


def test_a_script_in_place_of_ffmpeg_may_start_system_programs_and_check_reports_it(tmp_path: Path) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\nexec /usr/bin/ffmpeg\n")

    (gap,) = Confinement(path=script, kernel=Kernel(landlock_abi=7, seccomp=ARCHITECTURES["x86_64"])).gaps()

    assert "is a script" in gap


def test_where_nothing_is_offered_as_on_macos_the_program_is_not_looked_into(tmp_path: Path) -> None:
    gaps = Confinement(path=tmp_path / "not-there", kernel=NOTHING).gaps()

    assert len(gaps) == 4
    assert not any("script" in gap for gap in gaps)


def test_a_kernel_with_everything_leaves_no_gap(media: MediaKit) -> None:
    kernel = Kernel(landlock_abi=7, seccomp=ARCHITECTURES["aarch64"])

    assert Confinement(path=media.ffmpeg, kernel=kernel).gaps() == ()


@pytest.mark.skipif(not OFFERED.seccomp, reason="no filter here")
@pytest.mark.parametrize("lacking", ["landlock_restrict_self", "seccomp"])
def test_what_a_container_refuses_counts_as_lacking(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, numbers = (
        calls.call,
        {"landlock_restrict_self": 446, "seccomp": 317 if os.uname().machine == "x86_64" else 277},
    )

    def refused(function: str, *arguments: Any) -> int:
        if (function, arguments[0]) != ("syscall", numbers[lacking]):
            return real(function, *arguments)
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(calls, "call", refused)

    here = Kernel.here()

    assert (here.landlock_abi, here.seccomp) == (
        (0, OFFERED.seccomp) if lacking == "landlock_restrict_self" else (OFFERED.landlock_abi, None)
    )


@pytest.mark.skipif(not OFFERED.seccomp, reason="no filter here")
def test_a_filter_that_would_refuse_the_start_of_ffmpeg_counts_as_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "code_of", lambda _: range(4096, 4160))  # as where a preloaded library starts programs

    assert Kernel.here().seccomp is None


async def test_the_worker_itself_stays_free(decoder: FfmpegDecoder, media: MediaKit, talk: Pcm) -> None:
    async with decoder.decode(media.encode("talk.wav", talk)) as stream:
        await anext(aiter(stream))
        by_the_loop = Path(__file__).read_bytes()  # noqa: ASYNC240  # an opening by the loop's own thread is the point
        by_a_thread = await asyncio.to_thread(Path(__file__).read_bytes)

        assert by_the_loop == by_a_thread
        assert gc.isenabled()


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_numbers_of_system_calls_are_those_of_the_kernels_headers(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip("no kernel headers here")
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text("ascii")))
    numbers.setdefault("newfstatat", numbers.get("fstatat", ""))

    wrong = {name for name, number in ARCHITECTURES[machine].allowed.items() if numbers[name] != str(number)}

    assert wrong == set()


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("is_script", [True, False])
def test_a_filter_jumps_forward_within_itself_and_ends_in_a_verdict(machine: str, is_script: bool) -> None:
    program = seccomp.build(ARCHITECTURES[machine], is_script=is_script, gated=is_script)

    returns = 0x06
    assert program[-1][0] == returns
    for place, (operation, true, false, _) in enumerate(program):
        if operation & 0x07 == 0x05:
            assert max(true, false) < 256
            assert place + 1 + max(true, false) < len(program)


def test_processes_are_created_by_this_ones_own_c_library_alone() -> None:
    assert len(code_of("vfork")) == 64
    assert not set(code_of("vfork")) & set(code_of("execve"))
