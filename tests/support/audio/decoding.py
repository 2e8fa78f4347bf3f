"""Take a decode's whole output."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.ports import AudioDecoder, Pcm


@dataclass(frozen=True, kw_only=True)
class Decoded:
    samples: Pcm
    truncated: bool
    other_tracks: bool = False


async def decode_all(decoder: AudioDecoder, path: Path, *, channel: int | None = None) -> Decoded:
    async with decoder.decode(path, channel=channel) as stream:
        blocks = [block async for block in stream]
    return Decoded(samples=np.concatenate(blocks), truncated=stream.truncated, other_tracks=stream.other_tracks)
