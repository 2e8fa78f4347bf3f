"""Small media files for tests, built with ffmpeg from known samples, and the means to compare what comes back.

A pytest plugin: `media`, `talk`, `decoder`.
"""

import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.ports import SAMPLE_RATE_HZ, Pcm

TALKING_BAND_HZ = 3_400  # survives 8 kHz


def babble(seconds: float, seed: int = 1) -> Pcm:
    """Band-limited noise in syllable-long swells: no two moments alike, so that a shift shows."""
    count = round(seconds * SAMPLE_RATE_HZ)
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum[np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ) > TALKING_BAND_HZ] = 0
    swells = 1 + np.sin(2 * np.pi * 4 * np.arange(count) / SAMPLE_RATE_HZ)
    wave = np.fft.irfft(spectrum, count) * swells
    return (wave / np.abs(wave).max() * 16_000).astype(np.int16)


def lag_samples(heard: Pcm, truth: Pcm) -> int:
    """By how many samples `heard` comes later than `truth`: where their cross-correlation peaks."""
    size = heard.size + truth.size
    product = np.fft.rfft(heard.astype(float), size) * np.conj(np.fft.rfft(truth.astype(float), size))
    lag = int(np.argmax(np.fft.irfft(product, size)))
    return lag - size if lag > size // 2 else lag


def riff_wav(
    payload: bytes,
    *,
    tag: int = 1,
    bits: int = 16,
    rate: int = SAMPLE_RATE_HZ,
    channels: int = 1,
    size: int | None = None,
    valid_bits: int | None = None,
) -> bytes:
    """A WAV file byte by byte; `size` is what its data chunk claims, `tag` 3 means float.

    With `valid_bits`, those of each sample that count, it has the extended format.
    """
    frame = channels * bits // 8
    stated = tag if valid_bits is None else 0xFFFE
    layout = struct.pack("<HHIIHH", stated, channels, rate, rate * frame, frame, bits)
    if valid_bits is not None:
        layout += struct.pack("<HHIH", 22, valid_bits, 0, tag) + bytes.fromhex("000000001000800000aa00389b71")
    claimed = len(payload) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", claimed) + payload
    return b"RIFF" + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body


def float_wav(samples: NDArray[np.float32], rate: int = SAMPLE_RATE_HZ) -> bytes:
    """A mono WAV of float32 samples."""
    return riff_wav(samples.astype("<f4").tobytes(), tag=3, bits=32, rate=rate)


@dataclass(frozen=True, kw_only=True)
class MediaKit:
    """Writes files into `directory`. What was encoded once is shared by the tests, so never change such a file."""

    directory: Path
    ffmpeg: Path

    @classmethod
    def at(cls, directory: Path) -> "MediaKit":
        return cls(directory=directory, ffmpeg=find_ffmpeg())

    def write(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def encode(self, name: str, samples: Pcm, *options: str, before: tuple[str, ...] = ()) -> Path:
        """Encode `samples` to `name`; `before` are inputs before the samples, or options of the samples' input."""
        piped = samples.astype("<i2").tobytes()
        path = self.directory / f"{zlib.crc32(piped + repr((before, options)).encode()):08x}-{name}"
        if not path.exists():
            source = ("-f", "s16le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1", "-i", "pipe:0")
            self.run(*before, *source, *options, str(path), piped=piped)
        return path

    def run(self, *arguments: str, piped: bytes = b"") -> None:
        command = [self.ffmpeg, "-hide_banner", "-loglevel", "error", "-y", *arguments]
        subprocess.run(command, input=piped, check=True, timeout=60)

    def cut(self, path: Path, share: float) -> Path:
        """A copy that ends early."""
        content = path.read_bytes()
        return self.write(f"cut-{path.name}", content[: int(len(content) * share)])


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> MediaKit:
    return MediaKit.at(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="session")
def talk() -> Pcm:
    return babble(3.0)


@pytest.fixture
def decoder(media: MediaKit) -> FfmpegDecoder:
    return FfmpegDecoder(ffmpeg=media.ffmpeg, limits=Limits(max_seconds=60))
