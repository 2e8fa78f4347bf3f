"""Speech of any length for the benchmarks: utterances of the packaged samples in a seeded order, with pauses."""

import asyncio
import random
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.embedded.samples import samples
from worker.ports import SAMPLE_RATE_HZ, Pcm

PAUSE_SECONDS = (0.2, 1.2)
_SAMPLES_ARE_SHORTER_SECONDS = 3600.0
_AS_PCM = ("-f", "s16le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1", "-i", "pipe:0")


async def packaged_utterances() -> Sequence[Pcm]:
    """Every utterance of the samples. Raises what the decoder raises."""
    decoder = FfmpegDecoder(ffmpeg=find_ffmpeg(), limits=Limits(max_seconds=_SAMPLES_ARE_SHORTER_SECONDS))
    found: list[Pcm] = []
    for sample in samples():
        async with decoder.decode(sample.path) as stream:
            audio = np.concatenate([block async for block in stream])
        found += [audio[one.start_sample : one.end_sample] for one in sample.utterances]
    return found


def conversation(utterances: Sequence[Pcm], seconds: float, seed: int) -> Iterator[Pcm]:
    """Blocks of exactly that many seconds together: utterance, pause, utterance, as the seed has it."""
    rng = random.Random(seed)
    missing = round(seconds * SAMPLE_RATE_HZ)
    while missing:
        pause = np.zeros(round(rng.uniform(*PAUSE_SECONDS) * SAMPLE_RATE_HZ), np.int16)
        for block in (rng.choice(utterances), pause):
            taken = block[:missing]
            missing -= len(taken)
            if len(taken):
                yield taken


def write_audio(path: Path, blocks: Iterable[Pcm], *encoding: str) -> Path:
    """Encode the blocks as the suffix of `path` and ffmpeg's options in `encoding` say. Raises `FfmpegMissing`."""
    command = [str(find_ffmpeg()), "-hide_banner", "-loglevel", "error", "-y", *_AS_PCM, *encoding, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as ffmpeg:
        assert ffmpeg.stdin
        for block in blocks:
            ffmpeg.stdin.write(block.tobytes())
        ffmpeg.stdin.close()
        if ffmpeg.wait():
            raise subprocess.CalledProcessError(ffmpeg.returncode, command)
    return path


def some_speech(seconds: float, seed: int) -> Pcm:
    """So much of a conversation at once."""
    return np.concatenate(list(conversation(asyncio.run(packaged_utterances()), seconds, seed)))
