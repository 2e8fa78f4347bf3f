"""Where each packet of samples lies on the file's time line.

Times come from the container, lengths from the samples, and the two are never quite the same. Samples follow each other
as they come; the container's time decides where it differs by more than `TOLERANCE`: what is missing becomes silence,
and what is too much, which happens where a recorder's clock ran faster than its sound card's, is taken out of quiet
moments. A clock that starts anew inside a file, as in joined recordings, means nothing: the samples follow on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.adapters.audio import matroska
from worker.adapters.audio.report import Report
from worker.errors import AudioTooLong
from worker.ports import SAMPLE_RATE_HZ, Pcm

TOLERANCE_SAMPLES = SAMPLE_RATE_HZ // 10
"""A recording's packets may be timed by when they arrived; up to this the samples are the better clock."""
COARSE_TOLERANCE_SAMPLES = SAMPLE_RATE_HZ // 200
"""Packets of a second hide a gap inside, or what ffmpeg lost where the format changed: so little may not be asked."""
MOST_OVERLAP_SAMPLES = SAMPLE_RATE_HZ * 3 // 10
"""Beyond it samples are taken out although they are loud."""
RESTART_SAMPLES = SAMPLE_RATE_HZ
"""A clock that goes back by more than this has started anew."""
_QUIET_PEAK = 328  # -40 dB
_SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
_SILENCE_SAMPLES = 5 * SAMPLE_RATE_HZ


_WITHOUT_CLOCK = frozenset(
    {"aac", "ac3", "aiff", "amr", "au", "caf", "eac3", "flac", "mp3", "w64", "wav"},
)
"""Containers that state no times: ffmpeg counts samples, at the rate that the file begins with."""
_CODEC_DELAY_SECONDS = 0.03
"""An Opus track that starts with the file starts this late by ffmpeg's reckoning."""
_TIMED_FROM_THE_TRACK = frozenset({"mpegts", "ogg"})


class TimesDiffer(Exception):
    """A packet of a coarse decode is not where the samples before it end: only each frame's own time can tell why."""


@dataclass(slots=True)
class Timeline:
    """The time line of one decode.

    `late_seconds`: how long after the file's first moment the audio starts, as the headers say; None where it follows
    on something, so that its first moment is its first sample. `max_seconds`: what the audio may last.
    """

    coarse: bool
    late_seconds: float | None
    max_seconds: float
    has_clock: bool = True
    """The container states times; otherwise they only tell a coarse decode that something changes."""
    filled: int = 0
    """Samples laid down so far, silence included."""
    has_gap: bool = False
    """Silence was put in between."""
    dropped_loud: bool = False
    """Samples that were not quiet had to be taken out."""
    _offset: int | None = None
    _last: int = 0

    def lay(self, milliseconds: int, samples: Pcm) -> Iterator[Pcm]:
        """Yield the packet, and the silence before it, in order; shape (samples, mixes).

        Raises `TimesDiffer`, or `AudioTooLong` before so much silence comes.
        """
        stated = milliseconds * _SAMPLES_PER_MS
        if self._offset is None:
            self._offset = self._first(stated) - stated
        elif stated < self._last - RESTART_SAMPLES:
            self._offset = self.filled - stated
        self._last = stated
        missing = stated + self._offset - self.filled
        if self.coarse and self.filled and abs(missing) > COARSE_TOLERANCE_SAMPLES:
            raise TimesDiffer
        if self.has_clock and (seconds := (stated + self._offset) / SAMPLE_RATE_HZ) > self.max_seconds:
            raise AudioTooLong(seconds, self.max_seconds)
        if not self.has_clock:
            missing = 0
        if missing > TOLERANCE_SAMPLES or (missing > 0 and not self.filled):
            self.has_gap = self.has_gap or self.filled > 0
            yield from self._silence(missing, samples.shape[1])
        elif -missing > TOLERANCE_SAMPLES:
            samples = self._without_overlap(-missing, samples)
        self.filled += len(samples)
        if len(samples):
            yield samples

    def _first(self, stated: int) -> int:
        if self.late_seconds is None:
            return 0
        return max(stated, round(self.late_seconds * SAMPLE_RATE_HZ))

    def _silence(self, count: int, mixes: int) -> Iterator[Pcm]:
        while count:
            part = min(count, _SILENCE_SAMPLES)
            self.filled += part
            count -= part
            yield np.zeros((part, mixes), np.int16)

    def _without_overlap(self, overlap: int, samples: Pcm) -> Pcm:
        quiet = not samples.size or int(np.abs(samples.astype(np.int32)).max()) < _QUIET_PEAK
        if not quiet and overlap <= MOST_OVERLAP_SAMPLES:
            return samples
        self.dropped_loud = self.dropped_loud or not quiet
        return samples[overlap:]


def has_clock(report: Report) -> bool:
    """Return True where the container states times."""
    return report.container not in _WITHOUT_CLOCK


def late_seconds(path: Path, report: Report) -> float:
    """Return how long after the file's first moment the track starts, where ffmpeg's own times do not tell.

    Those of MPEG-TS and Ogg count from the track's start, those of Matroska from the start of what is not video.
    """
    track, start = report.track, report.start_seconds
    if track is None or start is None:
        return 0.0
    if report.container == "matroska" and start > 0:
        first = matroska.first_moment(path)
        late = 0.0 if first is None else start - first
        return late if late > _CODEC_DELAY_SECONDS else 0.0
    if report.container in _TIMED_FROM_THE_TRACK and track.start_seconds is not None:
        return max(0.0, track.start_seconds - start)
    return 0.0
