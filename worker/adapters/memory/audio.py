"""The in-memory twin of the audio decoder. Its only format is raw samples behind a magic line."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from worker.errors import AudioTooLong, AudioUndecodable
from worker.ports import SAMPLE_RATE_HZ, AudioFacts, Pcm

_MAGIC = b"MEMORY-PCM\n"
_SAMPLE_BYTES = 2


def memory_audio(samples: Pcm) -> bytes:
    """Return the content of a file that the twin decodes to these samples; half a sample at its end reads as a cut."""
    return _MAGIC + samples.astype("<i2").tobytes()


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
        seconds = len(_body(path)) // _SAMPLE_BYTES / SAMPLE_RATE_HZ
        return AudioFacts(codec="memory", sample_rate_hz=SAMPLE_RATE_HZ, channels=1, duration_seconds=seconds)

    @contextlib.asynccontextmanager
    async def decode(self, path: Path) -> AsyncIterator["MemoryPcmStream"]:
        """See the port."""
        yield MemoryPcmStream(path, self._max_samples, self._block_samples)


class MemoryPcmStream:
    """The `PcmStream` of the twin."""

    def __init__(self, path: Path, max_samples: int, block_samples: int) -> None:
        self._path, self._max_samples, self._block_samples = path, max_samples, block_samples
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
        body = _body(self._path)
        samples = np.frombuffer(body, "<i2", count=len(body) // _SAMPLE_BYTES).astype(np.int16)
        if samples.size > self._max_samples:
            raise AudioTooLong(samples.size / SAMPLE_RATE_HZ, self._max_samples / SAMPLE_RATE_HZ)
        for start in range(0, samples.size, self._block_samples):
            yield samples[start : start + self._block_samples]
        self._truncated = len(body) % _SAMPLE_BYTES != 0


def _body(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(_MAGIC):
        raise AudioUndecodable("it is not raw samples behind the twin's magic line")
    if len(content) < len(_MAGIC) + _SAMPLE_BYTES:
        raise AudioUndecodable("it holds no audio samples")
    return content[len(_MAGIC) :]
