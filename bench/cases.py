"""Files for `bench.pipeline` as the worker receives them, and their windows as the engine receives them."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bench.speech import conversation, packaged_utterances, write_audio
from schemas.speech import WindowSpan
from worker.commands.console import load_settings
from worker.core.transcript.planning import ChunkCutter
from worker.ports import SAMPLE_RATE_HZ, Pcm

SECONDS_PER_HOUR = 3600.0
SHORT_FILES = "short files, 1 to 10 min"
CLIPS = "clips, 30 s to 2 min"
"""Beside the short files, without a promise: here what a job costs besides its audio shows most."""
SECONDS_OF_SHORT = {SHORT_FILES: (60.0, 600.0), CLIPS: (30.0, 120.0)}
_SHORT_SEED = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Files that are sent together, and their windows. `samples` lie on disk."""

    name: str
    hours: float
    """Duration of the file in seconds; of all files together if there are several."""
    files: Sequence[Path]
    samples: Pcm
    windows: Sequence[WindowSpan]


def make_cases(
    hours_of_files: Sequence[float], short_files: int, folder: Path, say: Callable[[str], None]
) -> Iterator[Case]:
    """Make a file of each length, the shortest first, then short files and as many clips, below `folder`."""
    utterances = asyncio.run(packaged_utterances())
    for seed, hours in enumerate(sorted(hours_of_files), 1):
        say(f"making a file of {hours:g} h")
        name = f"a file of {hours:g} h"
        yield _case(name, folder / f"{hours:g}h", [conversation(utterances, hours * SECONDS_PER_HOUR, seed)])
    for kind, seconds in SECONDS_OF_SHORT.items() if short_files else ():
        say(f"making {short_files} {kind}")
        lengths = np.linspace(*seconds, short_files)
        talks = [conversation(utterances, float(length), _SHORT_SEED + seed) for seed, length in enumerate(lengths)]
        yield _case(kind, folder / kind.split(",")[0].replace(" ", "-"), talks)


def _case(name: str, stem: Path, talks: Sequence[Iterator[Pcm]]) -> Case:
    """Write each talk as 16 kHz FLAC, and all of them as samples in one file, with their windows."""
    raw = stem.with_suffix(".pcm")
    chunk_seconds = load_settings().jobs.chunk_duration_minutes * 60
    files, windows, written = [], [], 0
    with raw.open("wb") as samples:
        for number, talk in enumerate(talks):
            kept = _Kept(ChunkCutter(chunk_seconds=chunk_seconds), samples)
            files.append(write_audio(stem.with_name(f"{stem.name}-{number}.flac"), kept.blocks(talk)))
            windows += [WindowSpan(written + one.start_sample, written + one.end_sample) for one in kept.windows()]
            written += kept.total_samples
    return Case(
        name=name,
        hours=written / SAMPLE_RATE_HZ / SECONDS_PER_HOUR,
        files=files,
        samples=np.memmap(raw, np.int16, mode="r"),
        windows=windows,
    )


class _Kept:
    """Looks on while a talk is written: keeps its samples and learns its windows."""

    def __init__(self, cutter: ChunkCutter, samples: BinaryIO) -> None:
        self._cutter, self._samples = cutter, samples
        self._spans: list[WindowSpan] = []

    def blocks(self, talk: Iterator[Pcm]) -> Iterator[Pcm]:
        for block in talk:
            self._samples.write(block.tobytes())
            self._spans += [span for chunk in self._cutter.push(block) for span in chunk.windows]
            yield block

    def windows(self) -> Sequence[WindowSpan]:
        """Once all blocks have gone through."""
        return [*self._spans, *(span for chunk in self._cutter.finish() for span in chunk.windows)]

    @property
    def total_samples(self) -> int:
        return self._cutter.total_samples
