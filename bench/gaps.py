"""Second passes over holes: needless ones, and the time they cost: `python -m bench.gaps`.

Transcribes speech of the bank with the tiny model, as the worker does, and puts made sounds of 20 to 40 s between its
scenes: music of seven kinds, noise, hum, clicks, beeps, silence. A second pass is needless where the hole has less than
half a second of an utterance in it. Exit 1 unless needless holes are less than 1 % of all windows, and the time that is
lost, the processor's for finding holes and the engine's for needless passes, less than 2 % of the first passes' time.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bench.machine import this_machine
from bench.options import JsonFlag, Write
from bench.outcome import deliver, telling
from bench.report import BenchReport, BenchVerdict, Grid
from schemas.speech import WindowSpan, WindowTranscript
from tests.support.audio.made_sounds import MUSIC, NOISES
from tests.support.audio.speech_bank import Utterance, build_long_file, decode
from tests.support.engines.parakeet import BATCH_SIZE
from worker.adapters.parakeet.engine import ParakeetEngine, Patience
from worker.adapters.parakeet.protocol import EngineOptions
from worker.core.transcript.planning import Chunk, ChunkCutter
from worker.core.transcript.quality import ROUNDS, Hole, filled, holes, second_window
from worker.embedded.samples import tiny_model
from worker.ports import SAMPLE_RATE_HZ, Pcm, WindowRecogniser

SCENE_SECONDS = 90
SOUND_SECONDS = (20, 40)
CHUNK_SECONDS = 600
LEAST_SPEECH_SECONDS = 0.5
MOST_NEEDLESS_PERCENT = 1.0
MOST_TIME_PERCENT = 2.0


@dataclass(frozen=True, kw_only=True)
class Programme:
    """Speech with made sounds in between."""

    samples: Pcm
    utterances: tuple[Utterance, ...]


@dataclass(kw_only=True)
class HoleCounts:
    """Counts and seconds over all files."""

    windows: int = 0
    holes: int = 0
    mended: int = 0
    needless: int = 0
    first_seconds: float = 0.0
    second_seconds: float = 0.0
    """Engine time of second passes."""
    lost_seconds: float = 0.0
    """Processor time of finding holes, and engine time of needless passes."""

    @property
    def needless_percent(self) -> float:
        """Windows with a needless hole, per hundred windows."""
        return 100 * self.needless / max(1, self.windows)

    @property
    def lost_percent(self) -> float:
        """Time that is lost, per hundred of the engine's time for the first passes."""
        return 100 * self.lost_seconds / max(1e-9, self.first_seconds)

    @property
    def second_percent(self) -> float:
        """The engine's time for second passes, per hundred of that for the first passes."""
        return 100 * self.second_seconds / max(1e-9, self.first_seconds)


def main(
    seeds: Annotated[list[int] | None, typer.Argument(help="of the files")] = None,
    minutes: Annotated[float, typer.Option(help="of speech in each file")] = 20,
    write: Write = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Measure on one file a seed."""
    numbers = seeds or [1, 2]
    with telling() as say:
        say(f"{len(numbers)} times {minutes:g} min of speech, as it is and with made sounds")
        clean, mixed = asyncio.run(_measured(numbers, minutes * 60))
    rows = [(name, *_cells(tally)) for name, tally in (("speech alone", clean), ("with made sounds", mixed))]
    columns = ("audio", "windows", "holes", "mended", "needless", "needless, %", "second passes, %", "lost, %")
    report = BenchReport(
        key="gaps",
        title="Second passes over holes",
        command=f"python -m bench.gaps {' '.join(map(str, numbers))} --minutes {minutes:g}",
        machine=this_machine(),
        grids=(Grid(title="Holes", columns=columns, rows=tuple(rows)),),
        figures={"clean": vars(clean), "mixed": vars(mixed)},
        verdicts=[
            *(
                BenchVerdict(
                    claim=f"{name}: needless second passes, % of windows",
                    measured=tally.needless_percent,
                    must_be="at most",
                    limit=MOST_NEEDLESS_PERCENT,
                )
                for name, tally in (("speech alone", clean), ("with made sounds", mixed))
            ),
            BenchVerdict(
                claim="speech alone: time lost, % of the first passes'",
                measured=clean.lost_percent,
                must_be="at most",
                limit=MOST_TIME_PERCENT,
            ),
        ],
        notes=(f"The tiny model, {minutes:g} minutes of speech a file; made sounds between scenes of 90 s.",),
    )
    deliver(report, as_json=as_json, write=write)


def _cells(tally: HoleCounts) -> tuple[str, ...]:
    counts = (tally.windows, tally.holes, tally.mended, tally.needless)
    return (
        *map(str, counts),
        f"{tally.needless_percent:.2f}",
        f"{tally.second_percent:.2f}",
        f"{tally.lost_percent:.2f}",
    )


async def _measured(seeds: Sequence[int], seconds: float) -> tuple[HoleCounts, HoleCounts]:
    clean, mixed = HoleCounts(), HoleCounts()
    async with ParakeetEngine(
        EngineOptions(model_name=str(tiny_model()), device="cpu", batch_size=BATCH_SIZE, memory_limit_gib=4),
        patience=Patience(silence_seconds=60),  # of a busy machine
    ) as engine:
        for seed in seeds:
            speech = _speech(seed, seconds)
            await _transcribe(engine, speech, clean)
            await _transcribe(engine, with_sounds(speech, seed), mixed)
    return clean, mixed


def _speech(seed: int, seconds: float) -> Programme:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        reference = build_long_file(seed, seconds, path)
        return Programme(samples=decode(path), utterances=reference.utterances)


def with_sounds(speech: Programme, seed: int) -> Programme:
    """Return the speech with a made sound, or silence, after each scene of about 90 s, between two utterances."""
    rng, makers = random.Random(seed), cycle([*MUSIC.values(), *NOISES.values(), None])
    pieces: list[Pcm] = []
    utterances: list[Utterance] = []
    begin = length = 0
    for one, following in zip(speech.utterances, [*speech.utterances[1:], None], strict=True):
        utterances.append(one.moved(one.start_sample - begin + length))
        if following is None or one.end_sample - begin > SCENE_SECONDS * SAMPLE_RATE_HZ:
            seconds, maker = rng.uniform(*SOUND_SECONDS), next(makers)
            end = len(speech.samples) if following is None else following.start_sample
            sound = maker(seconds, seed) if maker else np.zeros(int(seconds * SAMPLE_RATE_HZ), np.int16)
            pieces += [speech.samples[begin:end], sound]
            length += end - begin + len(sound)
            begin = end
    return Programme(samples=np.concatenate(pieces), utterances=tuple(utterances))


async def _transcribe(engine: WindowRecogniser, programme: Programme, tally: HoleCounts) -> None:
    """Transcribe chunk by chunk, and mend each as the worker does."""
    cutter = ChunkCutter(CHUNK_SECONDS)
    for chunk in (*cutter.push(programme.samples), *cutter.finish()):
        windows, seconds = await _recognised(engine, chunk, chunk.windows)
        tally.windows += len(windows)
        tally.first_seconds += sum(seconds)
        began = time.thread_time()
        found = left = holes(chunk, windows)
        tally.lost_seconds += time.thread_time() - began
        needless = {hole for hole in found if _speech_seconds(hole, programme) < LEAST_SPEECH_SECONDS}
        for number in range(ROUNDS):
            heard, seconds = await _recognised(engine, chunk, [second_window(chunk, hole, number) for hole in left])
            for hole, transcript, one in zip(left, heard, seconds, strict=True):
                tally.second_seconds += one
                tally.lost_seconds += one if hole in needless else 0.0
                windows = list(filled(windows, hole, transcript))
            left = holes(chunk, windows) if left else ()
        tally.holes += len(found)
        tally.needless += len(needless)
        tally.mended += sum(not any(hole.overlaps(other) for other in left) for hole in found)


async def _recognised(
    engine: WindowRecogniser, chunk: Chunk, spans: Sequence[WindowSpan]
) -> tuple[list[WindowTranscript], list[float]]:
    """Return the words of each window, and the engine's time for it."""
    answers = await asyncio.gather(*(engine.recognise(chunk.samples_of(span), "bench") for span in spans))
    heard = [WindowTranscript(span, answer.words) for span, answer in zip(spans, answers, strict=True)]
    return heard, [answer.engine_seconds for answer in answers]


def _speech_seconds(hole: Hole, programme: Programme) -> float:
    return sum(_shared(hole, programme.utterances)) / SAMPLE_RATE_HZ


def _shared(hole: Hole, utterances: Sequence[Utterance]) -> Iterator[int]:
    for one in utterances:
        yield max(0, min(hole.end, one.end_sample) - max(hole.start, one.start_sample))


if __name__ == "__main__":
    typer.run(main)
