"""The process behind a decode: held back, limited, and gone afterwards, however it ends."""

import asyncio
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit
from tests.support.wait import eventually
from worker.adapters.audio import Confinement, FfmpegDecoder, Kernel, Limits
from worker.adapters.audio.child import Child
from worker.errors import AudioUndecodable, EngineFailure, TranscriptionTimeout
from worker.ports import SAMPLE_RATE_HZ

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by Linux's means")

Children = Callable[[], list[psutil.Process]]

MINUTES = 5
LIMITS = Limits(max_seconds=3600, stall_seconds=10)
UNCONFINED = Kernel(landlock_abi=0, seccomp=None)  # for a script that sends a signal
SET_ROBUST_LIST = {"x86_64": 273, "aarch64": 99}
PARENT = """
import asyncio, pathlib, sys
from worker.adapters.audio import FfmpegDecoder, Limits

async def main():
    decoder = FfmpegDecoder(ffmpeg=pathlib.Path(sys.argv[1]), limits=Limits(max_seconds=3600))
    async with decoder.decode(pathlib.Path(sys.argv[2])) as stream:
        await anext(aiter(stream))
        print("decoding", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def long(media: MediaKit) -> Path:
    return media.encode("minutes.flac", np.zeros(MINUTES * 60 * SAMPLE_RATE_HZ, np.int16))


@pytest.fixture
def decoder(media: MediaKit) -> FfmpegDecoder:
    return FfmpegDecoder(ffmpeg=media.ffmpeg, limits=LIMITS)


@pytest.fixture
def children() -> Children:
    """Return the child processes of this test; a whole run of the suite has servers of its own beside them."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [child for child in psutil.Process().children(recursive=True) if child not in before]


def _stand_in(folder: Path, script: str) -> Path:
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


async def test_leaving_early_leaves_no_process(decoder: FfmpegDecoder, long: Path, children: Children) -> None:
    async with decoder.decode(long) as stream:
        await anext(aiter(stream))
        during = len(children())

    assert during == 1
    assert children() == []


async def test_leaving_without_a_look_leaves_no_process(decoder: FfmpegDecoder, long: Path, children: Children) -> None:
    async with decoder.decode(long):
        pass

    assert children() == []


async def test_cancelling_a_decode_leaves_no_process(long: Path, tmp_path: Path, children: Children) -> None:
    hung = FfmpegDecoder(ffmpeg=_stand_in(tmp_path, "exec sleep 60"), limits=LIMITS)
    decoding = asyncio.create_task(decode_all(hung, long))

    async def one_runs() -> bool:
        return len(children()) == 1

    await eventually(one_runs)

    decoding.cancel()

    with pytest.raises(asyncio.CancelledError):
        await decoding
    assert children() == []


async def test_ffmpeg_blocks_while_its_output_is_not_read(
    decoder: FfmpegDecoder, long: Path, children: Children
) -> None:
    async with decoder.decode(long) as stream:
        await anext(aiter(stream))
        (ffmpeg,) = children()

        written = [0]

        async def no_more_comes() -> bool:
            written.append(ffmpeg.io_counters().write_chars)
            return written[-1] == written[-2]

        await eventually(no_more_comes)
        rest = [block.size async for block in stream]

    assert written[-1] < MINUTES * 60 * SAMPLE_RATE_HZ * 4 / 5
    assert sum(rest) == (MINUTES * 60 - 5) * SAMPLE_RATE_HZ


async def test_ffmpeg_runs_at_low_priority_and_ignores_ctrl_c(
    decoder: FfmpegDecoder, long: Path, children: Children
) -> None:
    asyncio.get_running_loop().call_soon(time.sleep, 0.5)  # so busy that ffmpeg has its threads before it is held back
    async with decoder.decode(long) as stream:
        await anext(aiter(stream))
        (ffmpeg,) = children()
        threads = [thread.id for thread in ffmpeg.threads()]
        niceness = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
        policies, group = {os.sched_getscheduler(thread) for thread in threads}, os.getpgid(ffmpeg.pid)

    assert len(threads) > 1
    assert niceness == {min(19, psutil.Process().nice() + 10)}
    assert policies == {os.SCHED_BATCH}
    assert group == ffmpeg.pid


async def test_limits_are_set_after_execve_and_before_the_programs_first_step(media: MediaKit, long: Path) -> None:
    """In execve they would be lost: its last step restores the stack's limit that it read in its first."""
    confinement = Confinement(path=media.ffmpeg, kernel=Kernel.here())
    if confinement.kernel.seccomp is None:
        pytest.skip("this kernel has no filter of system calls to hold a program with")
    calls = []

    def limit(pid: int) -> None:
        calls.append(Path(f"/proc/{pid}/syscall").read_text().split()[0])

    for _ in range(20):
        with long.open("rb", buffering=0) as audio:
            child = await Child.start(("-version",), audio, confinement, limit)
        await child.wait()

    assert calls == [str(SET_ROBUST_LIST[platform.machine()])] * 20


async def test_limits_are_set_after_execve_without_a_filter_too(media: MediaKit, long: Path) -> None:
    states = []

    def limit(pid: int) -> None:
        states.append(psutil.Process(pid).status())

    decoding = ("-nostdin", "-i", "fd:", "-f", "s16le", "pipe:1")  # which ends only once its output is read
    for _ in range(20):
        with long.open("rb", buffering=0) as audio:
            child = await Child.start(decoding, audio, Confinement(path=media.ffmpeg, kernel=UNCONFINED), limit)
        child.kill()
        assert await child.wait() == -signal.SIGKILL

    assert states == [psutil.STATUS_STOPPED] * 20


async def test_many_decodes_run_side_by_side(decoder: FfmpegDecoder, long: Path, children: Children) -> None:
    decoded = await asyncio.gather(*(decode_all(decoder, long) for _ in range(4)))

    assert {one.samples.size for one in decoded} == {MINUTES * 60 * SAMPLE_RATE_HZ}
    assert children() == []


async def test_a_decode_is_confined(decoder: FfmpegDecoder, long: Path, children: Children) -> None:
    async with decoder.decode(long) as stream:
        await anext(aiter(stream))
        (ffmpeg,) = children()
        memory, processor = ffmpeg.rlimit(psutil.RLIMIT_DATA), ffmpeg.rlimit(psutil.RLIMIT_CPU)
        written, opened = ffmpeg.rlimit(psutil.RLIMIT_FSIZE), ffmpeg.rlimit(psutil.RLIMIT_NOFILE)
        addresses, stack = ffmpeg.rlimit(psutil.RLIMIT_AS), ffmpeg.rlimit(psutil.RLIMIT_STACK)
        threads = ffmpeg.rlimit(psutil.RLIMIT_NPROC)
        environment, folder = ffmpeg.environ(), ffmpeg.cwd()

    assert memory == (LIMITS.memory_bytes, LIMITS.memory_bytes)
    assert (addresses[1], stack[1], threads[1]) == (4 << 30, 8 << 20, 4096)
    assert processor == (240, 245)
    assert (written, opened) == ((0, 0), (64, 64))
    assert (environment, folder) == ({"LC_ALL": "C"}, "/")


def test_limits_that_the_worker_itself_has_are_not_raised(media: MediaKit, long: Path) -> None:
    limits = "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (3000, 3000))"

    parent = subprocess.Popen([sys.executable, "-c", f"{limits}\n{PARENT}", media.ffmpeg, long], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout
        parent.stdout.readline()
        (ffmpeg,) = psutil.Process(parent.pid).children(recursive=True)
        threads = ffmpeg.rlimit(psutil.RLIMIT_NPROC)
        parent.kill()

    assert threads == (3000, 3000)


async def test_a_file_that_needs_too_much_memory_is_refused(media: MediaKit, long: Path) -> None:
    poor = FfmpegDecoder(ffmpeg=media.ffmpeg, limits=Limits(max_seconds=3600, memory_bytes=16 << 20))

    with pytest.raises(AudioUndecodable):
        await decode_all(poor, long)


async def test_a_file_that_takes_too_much_processor_time_is_refused(long: Path, tmp_path: Path) -> None:
    busy = FfmpegDecoder(ffmpeg=_stand_in(tmp_path, "kill -XCPU $$"), limits=LIMITS, kernel=UNCONFINED)

    with pytest.raises(AudioUndecodable, match="more than 240 s of CPU time"):
        await decode_all(busy, long)


async def test_a_decoder_that_hangs_is_a_fault_of_the_machine(
    media: MediaKit, long: Path, tmp_path: Path, children: Children
) -> None:
    probed = media.encode("second.aiff", np.zeros(SAMPLE_RATE_HZ, np.int16))
    limits = Limits(max_seconds=3600, stall_seconds=0.05)
    hung = FfmpegDecoder(ffmpeg=_stand_in(tmp_path, "exec sleep 60"), limits=limits)

    with pytest.raises(TranscriptionTimeout):
        await decode_all(hung, long)
    with pytest.raises(TranscriptionTimeout):
        await hung.probe(probed)

    assert children() == []


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_decoder_stopped_from_outside_is_never_taken_for_the_end_of_the_audio(
    decoder: FfmpegDecoder, long: Path, stop: signal.Signals, children: Children
) -> None:
    async with decoder.decode(long) as stream:
        blocks = aiter(stream)
        await anext(blocks)
        (ffmpeg,) = children()
        ffmpeg.send_signal(stop)

        with pytest.raises(EngineFailure):
            _ = [block async for block in blocks]

    assert not stream.truncated


async def test_a_flood_on_stderr_is_listened_to_but_not_kept(long: Path, tmp_path: Path) -> None:
    flood = "head -c 20000000 /dev/zero >&2; echo >&2; echo '[error] enough' >&2; exit 1"
    loud = FfmpegDecoder(ffmpeg=_stand_in(tmp_path, flood), limits=LIMITS)

    with pytest.raises(AudioUndecodable, match="enough"):
        await decode_all(loud, long)


async def test_kill_9_of_the_parent_takes_ffmpeg_with_it(media: MediaKit, long: Path) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220  # started once, before anything waits
        [sys.executable, "-c", PARENT, media.ffmpeg, long], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout
        assert parent.stdout.readline() == "decoding\n"
        (ffmpeg,) = psutil.Process(parent.pid).children(recursive=True)

        parent.kill()

        async def gone() -> bool:
            return not ffmpeg.is_running() or ffmpeg.status() == psutil.STATUS_ZOMBIE

        await eventually(gone)
