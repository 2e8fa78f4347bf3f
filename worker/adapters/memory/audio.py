"""The in-memory twin of the audio decoder. Its only format is raw samples behind a line that counts the channels."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from worker.errors import AudioTooLong, AudioUndecodable
from worker.ports import SAMPLE_RATE_HZ, AudioFacts, Pcm

_MAGIC = b"MEMORY-PCM"
_SAMPLE_BYTES = 2


def memory_audio(samples: Pcm) -> bytes:
    """Return the content of a file that the twin decodes to these samples, of shape (samples,) or (samples, channels).

    Half a sample at its end reads as a cut.
    """
    channels = samples.shape[1] if samples.ndim > 1 else 1
    return _MAGIC + b" %d\n" % channels + samples.astype("<i2").tobytes()


class MemoryAudioDecoder:
    """Decodes what `memory_audio` wrote, in blocks of `block_samples`; `version` goes into its identity."""

    def __init__(self, *, max_seconds: float, block_samples: int = 5 * SAMPLE_RATE_HZ, version: int = 1) -> None:
        self._version = version
        self._max_samples = round(max_seconds * SAMPLE_RATE_HZ)
        self._block_samples = block_samples

    async def identity(self) -> str:
        """See the port."""
        return f"memory / {self._version}"

    async def probe(self, path: Path) -> AudioFacts:
        """See the port."""
        channels, body = _content(path)
        seconds = len(body) // (_SAMPLE_BYTES * channels) / SAMPLE_RATE_HZ
        return AudioFacts(codec="memory", sample_rate_hz=SAMPLE_RATE_HZ, channels=channels, duration_seconds=seconds)

    @contextlib.asynccontextmanager
    async def decode(self, path: Path, *, channel: int | None = None) -> AsyncIterator["MemoryPcmStream"]:
        """See the port; the mix is the mean."""
        yield MemoryPcmStream(path, self._max_samples, self._block_samples, channel)


class MemoryPcmStream:
    """The `PcmStream` of the twin."""

    def __init__(self, path: Path, max_samples: int, block_samples: int, channel: int | None = None) -> None:
        self._path, self._max_samples, self._block_samples, self._channel = path, max_samples, block_samples, channel
        self._truncated = False

    @property
    def truncated(self) -> bool:
        """See the port."""
        return self._truncated

    @property
    def other_tracks(self) -> bool:
        """See the port: its files have one track."""
        return False

    async def __aiter__(self) -> AsyncIterator[Pcm]:
        channels, body = _content(self._path)
        frame_bytes = _SAMPLE_BYTES * channels
        both = np.frombuffer(body, "<i2", count=len(body) // frame_bytes * channels).reshape(-1, channels)
        if self._channel is None:
            samples = both.mean(axis=1).astype(np.int16)
        else:
            samples = (both[:, self._channel] if self._channel < channels else np.zeros(len(both))).astype(np.int16)
        if samples.size > self._max_samples:
            raise AudioTooLong(samples.size / SAMPLE_RATE_HZ, self._max_samples / SAMPLE_RATE_HZ)
        for start in range(0, samples.size, self._block_samples):
            yield samples[start : start + self._block_samples]
        self._truncated = len(body) % frame_bytes != 0


def _content(path: Path) -> tuple[int, bytes]:
    """Return the number of channels, and the samples."""
    line, _, body = path.read_bytes().partition(b"\n")
    magic, _, channels = line.partition(b" ")
    if magic != _MAGIC:
        raise AudioUndecodable("it is not raw samples behind the twin's magic line")
    if len(body) < _SAMPLE_BYTES:
        raise AudioUndecodable("it holds no audio samples")
    return int(channels), body
