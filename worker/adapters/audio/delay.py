"""The encoder's delay, in files that do not state it.

Every codec of this kind begins with some samples that are none of the recording's: 25 ms of an MP3 at 44.1 kHz, 138 ms
at 8 kHz, and all times come so much late. Where the container states the delay, ffmpeg cuts it off. Elsewhere it is cut
off here if it is as quiet as an encoder leaves it: a file that was cut out of another begins with sound, and keeps it.
"""

from collections.abc import Iterator

import numpy as np

from worker.adapters.audio.report import Report
from worker.ports import SAMPLE_RATE_HZ, Pcm

_SAMPLES = {"mp3": 1105, "mp2": 481, "aac": 1024, "ac3": 256, "eac3": 256}
"""Samples at the codec's own rate: the delay of common encoders and of the decoder's filters."""
_BARE = frozenset({"aac", "ac3", "eac3", "mp3"})
_FOR_VIDEO = frozenset({"avi", "flv", "mpegts"})
"""These do not state it either, but with pictures their times are set so that sound and picture agree."""
_WMA_FRAMES = {
    "wmav1": {16_000: 512, 32_000: 1024},
    "wmav2": {16_000: 512, 22_050: 1024},
}
_QUIET_PEAK = 328  # -40 dB


def trimmer_for(report: Report) -> "Trimmer":
    """Return the trimmer of the delay that the track likely has, if the file does not state it."""
    track = report.track
    if track is None or track.rate_hz is None:
        return Trimmer(0)
    to_samples = SAMPLE_RATE_HZ / track.rate_hz
    if report.container == "asf" and not report.has_video:
        return Trimmer(round(_wma_frame(track.codec, track.rate_hz) * to_samples), always=True)
    if report.container not in _BARE and (report.container not in _FOR_VIDEO or report.has_video):
        return Trimmer(0)
    if report.container == "mp3" and track.start_seconds:  # a LAME header
        return Trimmer(0)
    return Trimmer(round(_SAMPLES.get(track.codec, 0) * to_samples))


def _wma_frame(codec: str, rate_hz: int) -> int:
    """Return the length of a frame, as ff_wma_get_frame_len_bits in libavcodec/wma_common.c.

    The first one is half of what its samples are made of, so that it holds none of the recording.
    """
    if codec not in _WMA_FRAMES:
        return 0
    return next((samples for ceiling_hz, samples in _WMA_FRAMES[codec].items() if rate_hz <= ceiling_hz), 2048)


class Trimmer:
    """Removes an encoder's delay from the start of the samples, if all of it is quiet, or `always`."""

    def __init__(self, count: int, *, always: bool = False) -> None:
        self._count, self._always = count, always
        self._held: list[Pcm] = []
        self._held_count = 0

    def push(self, samples: Pcm) -> Iterator[Pcm]:
        """Yield what is to be kept; nothing before the decision can be made."""
        if not self._count:
            yield samples
            return
        self._held.append(samples)
        self._held_count += len(samples)
        if self._held_count > self._count:
            together = np.concatenate(self._held)
            start = together[: self._count]
            is_cut = self._always or max(int(start.max()), -int(start.min())) < _QUIET_PEAK
            yield together[self._count :] if is_cut else together
            self._count, self._held = 0, []

    def finish(self) -> Iterator[Pcm]:
        """Yield what is still held: the file is no longer than the delay."""
        yield from self._held
        self._held = []
