"""Decoding, codec by codec: one ffmpeg from beginning to end, in parts, and without the path of one thread."""

import asyncio
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bench.machine import this_machine
from bench.options import JsonFlag, Repeats, Write
from bench.outcome import deliver, telling
from bench.report import BenchReport, BenchVerdict, Grid, median
from bench.speech import conversation, packaged_utterances, write_audio
from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.ports import SAMPLE_RATE_HZ

CODECS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "the pipeline's MP3, 8 kHz mono": (".mp3", ("-ar", "8000", "-c:a", "libmp3lame", "-b:a", "32k")),
    "MP3, 44.1 kHz stereo": (".mp3", ("-ar", "44100", "-ac", "2", "-c:a", "libmp3lame", "-b:a", "128k")),
    "AAC in MP4, 44.1 kHz stereo": (".m4a", ("-ar", "44100", "-ac", "2", "-c:a", "aac", "-b:a", "128k")),
    "Opus, 48 kHz": (".opus", ("-c:a", "libopus", "-b:a", "32k")),
    "FLAC, 16 kHz mono": (".flac", ()),
    "FLAC, 44.1 kHz stereo": (".flac", ("-ar", "44100", "-ac", "2")),
    "WAV, 16 kHz mono": (".wav", ()),
}
SEED = 11
_HOUR_SAMPLES = 3600 * SAMPLE_RATE_HZ


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One decode."""

    seconds: float
    first_block_seconds: float
    processor_seconds: float
    """ffmpeg's and the worker's, without hashing."""
    samples: int
    sha256: str


@dataclass(kw_only=True)
class Codec:
    """A codec's turns."""

    name: str
    serial: list[Decoded] = field(default_factory=list)
    parts: list[Decoded] = field(default_factory=list)
    several: list[Decoded] = field(default_factory=list)
    """Serial, each file by several threads of ffmpeg."""

    @property
    def speed_up(self) -> float:
        """Serial over parts, turn by turn."""
        pairs = zip(self.serial, self.parts, strict=True)
        return median(serial.seconds / parts.seconds for serial, parts in pairs)

    @property
    def outcomes(self) -> int:
        """Number of different sample lists over all decodes: 1 if they are exact."""
        return len({one.sha256 for one in (*self.serial, *self.parts, *self.several)})


def decode(minutes: float, parts: int | None, repeats: int, *, as_json: bool, write: Path | None) -> None:
    """Measure and report. Exit 1 unless parts are exact to the sample."""
    parts = parts or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, telling() as say:
        codecs = asyncio.run(_measure(minutes, parts, repeats, Path(folder), say))
    deliver(_report(minutes, parts, repeats, codecs), as_json=as_json, write=write)


async def _measure(
    minutes: float, parts: int, repeats: int, folder: Path, say: Callable[[str], None]
) -> Sequence[Codec]:
    utterances = await packaged_utterances()
    serial, divided, several = _decoder(1), _decoder(parts), _decoder(1, one_thread=False)
    codecs = []
    for name, (suffix, encoding) in CODECS.items():
        codec = Codec(name=name)
        say(f"{name}: making {minutes:g} minutes")
        talk = conversation(utterances, minutes * 60, SEED)
        file = await asyncio.to_thread(write_audio, folder / f"talk{suffix}", talk, *encoding)
        await _decoded(serial, file)  # it is in the page cache now
        for number in range(1, repeats + 1):
            say(f"{name}, turn {number} of {repeats}")
            codec.serial.append(await _decoded(serial, file))
            codec.parts.append(await _decoded(divided, file))
            codec.several.append(await _decoded(several, file))
        file.unlink()
        codecs.append(codec)
    return codecs


def _decoder(parts: int, *, one_thread: bool = True) -> FfmpegDecoder:
    return FfmpegDecoder(ffmpeg=find_ffmpeg(), limits=Limits(max_seconds=86_400), parts=parts, one_thread=one_thread)


async def _decoded(decoder: FfmpegDecoder, file: Path) -> Decoded:
    digest, samples, first = hashlib.sha256(), 0, 0.0
    hashing, began, processor = 0.0, time.perf_counter(), _processor_seconds()
    async with decoder.decode(file) as stream:
        async for block in stream:
            first = first or time.perf_counter() - began
            hashed = time.perf_counter()
            digest.update(block)
            hashing += time.perf_counter() - hashed
            samples += len(block)
    return Decoded(
        seconds=time.perf_counter() - began - hashing,
        first_block_seconds=first,
        processor_seconds=_processor_seconds() - processor - hashing,
        samples=samples,
        sha256=digest.hexdigest(),
    )


def _processor_seconds() -> float:
    """Return what this process and its ended children have used."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _report(minutes: float, parts: int, repeats: int, codecs: Sequence[Codec]) -> BenchReport:
    machine = this_machine()
    return BenchReport(
        key="decode",
        title="Decoding",
        command=f"python -m bench.decode --minutes {minutes:g} --parts {parts} --repeats {repeats}",
        machine=machine,
        grids=(_grid(codecs),),
        figures={codec.name: _figures(codec) for codec in codecs},
        verdicts=tuple(
            BenchVerdict(
                claim=f"{codec.name}: outcomes that differ", measured=codec.outcomes - 1, must_be="at most", limit=0
            )
            for codec in codecs
        ),
        notes=(
            (
                f"{minutes:g} minutes of speech to 16 kHz mono samples, by one ffmpeg and by {parts} side by side, "
                f"in turns; medians of {repeats}. What cannot be divided exactly to the sample (AAC, Opus) is decoded "
                "serially either way. Processor seconds are the worker's and ffmpeg's for an hour of audio, serial, as "
                "the worker decodes and where several threads of ffmpeg do what one does."
            ),
        ),
    )


def _grid(codecs: Sequence[Codec]) -> Grid:
    rows = []
    for codec in codecs:
        serial, parts = (
            median(one.samples / SAMPLE_RATE_HZ / one.seconds for one in turns) for turns in (codec.serial, codec.parts)
        )
        processor, several = (
            median(one.processor_seconds * _HOUR_SAMPLES / one.samples for one in turns)
            for turns in (codec.serial, codec.several)
        )
        first = 1000 * median(one.first_block_seconds for one in codec.parts)
        speed = (f"{serial:.0f}", f"{parts:.0f}", f"{codec.speed_up:.2f}")
        rows.append((codec.name, *speed, f"{processor:.2f}", f"{several:.2f}", f"{first:.0f}"))
    columns = (
        *("codec", "serial, times real time", "in parts", "faster by"),
        *("processor s an hour", "by several threads", "first block after, ms"),
    )
    return Grid(title="Speed", columns=columns, rows=tuple(rows))


def _figures(codec: Codec) -> Mapping[str, object]:
    return {
        "serial_seconds": [one.seconds for one in codec.serial],
        "parts_seconds": [one.seconds for one in codec.parts],
        "processor_seconds": [one.processor_seconds for one in codec.serial],
        "processor_seconds_of_several_threads": [one.processor_seconds for one in codec.several],
        "speed_up": codec.speed_up,
        "outcomes": codec.outcomes,
    }


def main(
    minutes: Annotated[float, typer.Option(help="of speech in each codec", min=1)] = 60.0,
    parts: Annotated[int | None, typer.Option(help="decoded side by side; default: the cores there are", min=1)] = None,
    repeats: Repeats = 3,
    as_json: JsonFlag = False,
    write: Write = None,
) -> None:
    """Compare one ffmpeg with ours in parts, codec by codec."""
    decode(minutes, parts, repeats, as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)
