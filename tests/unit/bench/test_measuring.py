"""The arithmetic of the benchmarks and what they are fed."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cases import SECONDS_OF_SHORT, Case, make_cases
from bench.held import held_by, noted, with_notes
from bench.pipeline import chunk_starts, hear_alone
from bench.scale import fairness
from bench.speech import conversation, write_audio
from bench.workers import watching_memory
from schemas.speech import WindowSpan
from tests.support.wait import eventually, wait_until
from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.transcript.planning import ChunkCutter
from worker.ports import SAMPLE_RATE_HZ, Pcm

CLIPS = [np.full(samples, number + 1, np.int16) for number, samples in enumerate((8_000, 12_345, 40_000))]


@given(seconds=st.floats(0, 60), seed=st.integers(0, 9))
def test_a_conversation_has_exactly_the_length_that_was_asked_for(seconds: float, seed: int) -> None:
    blocks = list(conversation(CLIPS, seconds, seed))

    assert sum(map(len, blocks)) == round(seconds * SAMPLE_RATE_HZ)
    assert all(map(len, blocks))


def test_a_conversation_is_the_seeds_and_no_other() -> None:
    first, again, other = (np.concatenate(list(conversation(CLIPS, 30, seed))) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


async def decoded(path: Path) -> Pcm:
    async with FfmpegDecoder(ffmpeg=find_ffmpeg(), limits=Limits(max_seconds=3600)).decode(path) as stream:
        return np.concatenate([block async for block in stream])


async def test_flac_holds_the_very_samples_that_were_written(tmp_path: Path) -> None:
    blocks = list(conversation(CLIPS, 12.3, 1))

    path = write_audio(tmp_path / "talk.flac", blocks)

    assert np.array_equal(await decoded(path), np.concatenate(blocks))


def test_the_windows_offered_to_the_engine_alone_are_those_that_the_worker_would_cut(tmp_path: Path) -> None:
    cases = list(make_cases([0.02], 2, tmp_path, lambda _: None))

    short = [(kind, 2) for kind in SECONDS_OF_SHORT]
    assert [(case.name, len(case.files)) for case in cases] == [("a file of 0.02 h", 1), *short]
    for case in cases:
        expected = [window for file in case.files for window in windows_of(asyncio.run(decoded(file)))]
        offered = [np.array(case.samples[span.start_sample : span.end_sample]) for span in case.windows]
        assert len(offered) == len(expected)
        assert all(map(np.array_equal, offered, expected))


def windows_of(audio: Pcm) -> list[Pcm]:
    cutter = ChunkCutter(chunk_seconds=600)
    chunks = (*cutter.push(audio), *cutter.finish())
    return [chunk.samples_of(span) for chunk in chunks for span in chunk.windows]


async def test_the_engine_alone_recognises_every_window_once() -> None:
    heard = []

    async def script(samples: Pcm, job_id: str) -> None:
        del job_id
        heard.append(len(samples))

    spans = [WindowSpan(start, start + 100 + start) for start in range(200)]
    case = Case(name="it", hours=1, files=(), samples=np.zeros(1_000, np.int16), windows=spans)

    seconds = await hear_alone(MemoryRecogniser(script=script), case)

    assert sorted(heard) == [100 + start for start in range(200)]
    assert seconds > 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_fairness_ranges_from_one_worker_with_everything_to_equal_shares(jobs: list[int]) -> None:
    assert 1 / len(jobs) - 1e-9 <= fairness(jobs) <= 1 + 1e-9


def test_fairness_at_its_ends() -> None:
    assert fairness([6, 6, 6]) == pytest.approx(1)
    assert fairness([12, 0, 0]) == pytest.approx(1 / 3)
    assert fairness([0, 0]) == 1


def test_when_chunks_went_to_the_engine_is_read_from_the_trace() -> None:
    spans = [{"name": "chunk", "startTimeUnixNano": "1500000000"}, {"name": "probe", "startTimeUnixNano": "7"}]
    line = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})

    assert list(chunk_starts([line, line])) == [1.5, 1.5]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux reports the memory of processes")
async def test_the_memory_of_descendants_counts(tmp_path: Path) -> None:
    python = shutil.which("python3") or "python3"
    child = await asyncio.create_subprocess_exec(
        python, "-c", "held = b'x' * 2**25; print(flush=True); input()", stdin=-1, stdout=-1
    )
    assert child.stdout
    await child.stdout.readline()
    try:
        with watching_memory(child.pid, tmp_path) as held:
            await eventually(lambda: asyncio.sleep(0, bool(held)))
    finally:
        child.kill()
        await child.wait()

    assert max(held) > 2**25


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux reports the memory of processes")
def test_processes_that_hide_their_memory_note_themselves_what_they_hold(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    environment = with_notes({**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, notes, hidden=True)
    program = "import sys; held = b'x' * 2**26; sys.stdin.read()"

    with subprocess.Popen([sys.executable, "-P", "-c", program], env=environment, stdin=subprocess.PIPE) as process:
        wait_until(lambda: noted(process.pid, notes) > 2**26)
        process.communicate()

    assert noted(process.pid, notes) < 2**30


def test_what_is_not_hidden_is_not_noted(tmp_path: Path) -> None:
    assert with_notes({"PATH": "/bin"}, tmp_path / "notes", hidden=False) == {"PATH": "/bin"}


def test_what_is_hidden_is_read_from_the_notes_and_what_has_ended_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("4096")

    assert noted(1, tmp_path) == 4096
    assert noted(2, tmp_path) == 0
    assert held_by(2**22 + 1, tmp_path) == 0  # no process has that number
