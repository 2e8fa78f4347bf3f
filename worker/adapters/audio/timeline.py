"""Position of each packet of samples on the file's time line.

Times come from the container and lengths from the samples, which never match exactly. Packets are joined without gaps,
unless the container's time differs by more than `TOLERANCE_SAMPLES`: missing audio becomes silence, and surplus audio,
which occurs when a recorder's clock ran faster than its sound card's, is removed from quiet passages. A clock that is
reset inside a file, as in joined recordings, is ignored: the samples are joined.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from worker.adapters.audio import matroska
from worker.adapters.audio.command import FILE_TIMES_OFFSET_SECONDS
from worker.adapters.audio.report import Report
from worker.errors import AudioTooLong
from worker.ports import SAMPLE_RATE_HZ, Pcm

TOLERANCE_SAMPLES = SAMPLE_RATE_HZ // 10
"""A recording's packets may be timed by when they arrived; up to this the samples are the better clock."""
COARSE_TOLERANCE_SAMPLES = SAMPLE_RATE_HZ // 200
"""More than this between packets of a second may be what ffmpeg lost where the format changed."""
PERSISTS_SAMPLES = SAMPLE_RATE_HZ
"""A difference that grows little by little counts once it has lasted so long. In MPEG-TS, after a change of rate, it
grows up to 0.4 s between two times that are stated, because ffmpeg reckons those between them by the old rate."""
MOST_OVERLAP_SAMPLES = SAMPLE_RATE_HZ * 3 // 10
"""Beyond it samples are taken out although they are loud."""
CLAMPED_SAMPLES = SAMPLE_RATE_HZ // 500
"""ffmpeg's writer lets no time go back: it makes it the last one and a millisecond more. So little between packets that
are longer is a clock that was set back."""
BROADCAST_GAP_SECONDS = 3600.0
"""MPEG-TS clocks are set, too, where advertisements are spliced in; but as much as this may be missing."""

_WITHOUT_CLOCK = frozenset({"aac", "ac3", "aiff", "amr", "au", "caf", "eac3", "flac", "mp3", "w64", "wav"})
"""Containers that state no times: ffmpeg counts samples, at the rate that the file begins with."""
_CODEC_DELAY_SECONDS = 0.03
"""An Opus track that starts with the file starts this late by ffmpeg's reckoning."""
_QUIET_PEAK = 328  # -40 dB
_SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
_SILENCE_SAMPLES = 5 * SAMPLE_RATE_HZ


class Doubt(Exception):
    """A fast decode may not be true to the file: a packet is not where its predecessor ends, say. A slower one is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PacketClock:
    """The meaning of the times of a file's packets."""

    states_times: bool = True
    """False if the container states no times; ffmpeg's own times then only signal changes to a coarse decode."""
    zero_seconds: float = 0.0
    """The reading of the clock at the file's first moment."""
    longest_gap_seconds: float = math.inf
    """A longer jump means that it was set."""


def clock_of_file(path: Path, report: Report) -> PacketClock:
    """Return the clock of unmodified times of a file."""
    clock = clock_of(path, report)
    if report.container == "mpegts":
        return clock
    zero = clock.zero_seconds + (report.start_seconds or 0.0) + FILE_TIMES_OFFSET_SECONDS
    return replace(clock, zero_seconds=zero)


def clock_of(path: Path, report: Report) -> PacketClock:
    """Return the clock that ffmpeg's times for the track are read on, which begin with the file but in MPEG-TS."""
    track, start = report.track, report.start_seconds or 0.0
    match report.container:
        case str(container) if container in _WITHOUT_CLOCK:
            return PacketClock(states_times=False)
        case "mpegts":  # its times are unmodified
            zero = start + FILE_TIMES_OFFSET_SECONDS
            return PacketClock(zero_seconds=zero, longest_gap_seconds=BROADCAST_GAP_SECONDS)
        case "ogg" if track is not None and track.start_seconds is not None:  # from the track's start on
            return PacketClock(zero_seconds=min(0.0, start - track.start_seconds))
        case "matroska" if start > 0:  # from the start of what is not video
            first = matroska.first_moment(path)
            late = 0.0 if first is None else start - first
            return PacketClock(zero_seconds=-late if late > _CODEC_DELAY_SECONDS else 0.0)
        case _:
            return PacketClock()


@dataclass(slots=True)
class Timeline:
    """The time line of one decode, which may last `max_seconds`.

    `follows`: another one went before, so that its first moment is its first sample.
    """

    clock: PacketClock
    max_seconds: float
    coarse: bool
    follows: bool = False
    filled: int = 0
    """Samples laid down so far, silence included."""
    has_gap: bool = False
    """Silence was put in between."""
    dropped_loud: bool = False
    """Samples that were not quiet had to be taken out."""
    _offset: int | None = None
    _last: int = 0
    _last_count: int = 0
    _set_back: bool = False
    _missing: int = 0
    _missing_for: int = 0

    def starts_late(self, milliseconds: int) -> bool:
        """Return True for the first packet where it is not at the file's first moment."""
        stated = milliseconds * _SAMPLES_PER_MS - round(self.clock.zero_seconds * SAMPLE_RATE_HZ)
        return self._offset is None and not self.follows and stated > COARSE_TOLERANCE_SAMPLES

    def missing_before(self, milliseconds: int) -> int:
        """Return how many samples lie between what is filled and a packet of this time; 0 for the first packet."""
        return 0 if self._offset is None else milliseconds * _SAMPLES_PER_MS + self._offset - self.filled

    def lay(self, milliseconds: int, samples: Pcm) -> Iterator[Pcm]:
        """Yield the packet, and the silence before it, in order; shape (samples, mixes).

        Raises `Doubt`, or `AudioTooLong` before so much silence comes.
        """
        missing = self._missing_before(milliseconds * _SAMPLES_PER_MS, len(samples))
        if self.coarse and self.filled and abs(missing) > TOLERANCE_SAMPLES:
            raise Doubt
        if not self.clock.states_times:
            missing = 0
        if self._is_gap(missing, len(samples)):
            self.has_gap = self.has_gap or self.filled > 0
            if (seconds := (self.filled + missing) / SAMPLE_RATE_HZ) > self.max_seconds:
                raise AudioTooLong(seconds, self.max_seconds)
            yield from self._silence(missing, samples.shape[1])
        elif -missing > TOLERANCE_SAMPLES:
            samples = self._without_overlap(-missing, samples)
        self.filled += len(samples)
        if len(samples):
            yield samples

    def _missing_before(self, stated: int, count: int) -> int:
        """Return how many samples lie between what is filled and the packet; negative where it comes too early."""
        jump = stated - self._last
        was_set_back = self._set_back
        self._set_back = jump <= CLAMPED_SAMPLES < self._last_count
        if self._offset is None:
            late = 0 if self.follows else max(0, stated - round(self.clock.zero_seconds * SAMPLE_RATE_HZ))
            self._offset = late - stated
        elif jump > self.clock.longest_gap_seconds * SAMPLE_RATE_HZ or (
            not self.coarse and (was_set_back or self._set_back)
        ):
            self._offset = self.filled - stated
        self._last, self._last_count = stated, count
        return stated + self._offset - self.filled

    def _is_gap(self, missing: int, count: int) -> bool:
        if not self.filled:
            return missing > 0
        at_once, self._missing = missing - self._missing, missing
        self._missing_for = self._missing_for + count if missing > TOLERANCE_SAMPLES else 0
        found = missing > TOLERANCE_SAMPLES and (at_once > TOLERANCE_SAMPLES or self._missing_for > PERSISTS_SAMPLES)
        if found:
            self._missing = self._missing_for = 0
        return found

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
