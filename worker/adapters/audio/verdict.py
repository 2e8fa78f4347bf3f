"""Decides whether audio is missing, from ffmpeg's complaints and the file.

Complaints alone are no proof: ffmpeg reports a tag between two songs like damage.
"""

import mmap
from pathlib import Path

from worker.adapters.audio import mpeg_audio, ogg
from worker.adapters.audio.command import ByteRange, Way
from worker.adapters.audio.headers import FLAC
from worker.adapters.audio.report import Report

_MPEG_AUDIO = frozenset({"mp3", "aac"})
"""Formats without a container: frames, and any bytes between them."""
JOINED = frozenset({"ogg", "flac"})
"""Containers of which joined files must be decoded piece by piece."""
_MOST_PIECES = 4_096


def is_missing(path: Path, report: Report, way: Way, decoded_seconds: float, *, has_gap: bool) -> bool:
    """Return True if less audio was decoded than the file contains or states, or some is damaged.

    May read the whole file. `has_gap`: audio is missing by the container's clock.
    """
    ends_with_file = way.ignores_wav_size or way.states_no_length
    if report.damaged or way.lacks_samples or (report.corrupt_packets and not ends_with_file):
        return True
    if report.falls_short(decoded_seconds):
        return True
    if report.container == "ogg":
        is_spoilt = (report.lost_sync and ogg.is_spoilt(path)) or (has_gap and ogg.lacks_pages(path))
        return is_spoilt or ogg.ends_early(path)
    if report.lost_sync and report.container != "flac":
        return mpeg_audio.is_spoilt(path) if report.container in _MPEG_AUDIO else has_gap
    return False


def joined_pieces(path: Path, container: str | None) -> tuple[ByteRange, ...]:
    """Return the stretches of a joined file that ffmpeg can only decode one by one, in order. Reads the whole file."""
    match container:
        case "ogg":
            starts = ogg.links(path)
        case "flac":
            starts = _flac_starts(path)
        case _:
            starts = [0]
    starts = starts[: _MOST_PIECES + 1]
    ends = [*starts[1:], None]
    return tuple(ByteRange(start=start, end=end) for start, end in zip(starts, ends, strict=True))


def _flac_starts(path: Path) -> list[int]:
    """Return where a FLAC stream begins: the first one behind its tags, if any, at 0."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = [begin.start() for begin in FLAC.finditer(content)]
    return [0, *found[1:]]
