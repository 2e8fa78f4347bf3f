"""ffmpeg's command lines: what it may open, and what it shall do with it.

The file's content decides what happens, never its name, and may name nothing else to open: playlists, concat scripts,
images and subtitles are not on the list of containers, there is no protocol that opens a file by its name (ffmpeg 6
brought `fd`; on Windows it stays `file`), and MP4's external data references stay off (ffmpeg's default). Video tracks
and album art are never decoded: no decoder of theirs is allowed.
"""

import os
from pathlib import Path

from worker.adapters.audio.samples import Encoding
from worker.ports import SAMPLE_RATE_HZ

_PROTOCOL = "fd" if os.name == "posix" else "file"
CONTAINERS = ("wav", "flac", "mp3", "aac", "ogg", "matroska", "mov", "aiff")
_DECODERS = (
    *("aac", "alac", "flac", "libopus", "libvorbis", "mp2float", "mp3", "mp3float", "opus", "vorbis"),
    *("ac3", "eac3"),  # the sound of films in MP4 and Matroska
    *("pcm_alaw", "pcm_mulaw", "pcm_s8", "pcm_u8"),
    *(f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")),
)

# All arithmetic is in floats, whatever the file holds: ffmpeg's own choice would cut 24 bits off to 16, not round them.
# async=1 with first_pts=0 keeps times true to the file: silence for a late start and for gaps above 0.1 s, nothing
# stretched. rematrix_maxval=1 scales a down-mix so that it cannot clip.
_RESAMPLE = "aformat=sample_fmts=fltp,aresample=async=1:first_pts=0:rematrix_maxval=1"

# ffmpeg hands every frame from thread to thread, and its codecs' are short: a second at a time takes a third less of
# its time, and with a pipe that is not flushed after each, a third of ours.
_IN_LONG_FRAMES = "asetnsamples=n=16384:p=0"


def source(path: Path) -> str:
    """Return the file's name in ffmpeg's command line and messages: on POSIX, the descriptor that it inherits as 0."""
    return f"{_PROTOCOL}:" if _PROTOCOL == "fd" else f"{_PROTOCOL}:{path.absolute()}"


def decode_arguments(
    path: Path, encoding: Encoding, begin_second: int = 0, end_second: int | None = None
) -> tuple[str, ...]:
    """Decode the first audio track, or a stretch of it, to mono samples at `SAMPLE_RATE_HZ` on stdout."""
    samples = ("-ac", "1", "-ar", str(SAMPLE_RATE_HZ), "-c:a", f"pcm_{encoding.name}", "-f", encoding.name)
    begin = ("-ss", str(begin_second)) if begin_second else ()
    length = () if end_second is None else ("-t", str(end_second - begin_second))
    filters = ("-af", f"{_RESAMPLE},{_IN_LONG_FRAMES}")
    return (*_input(path, *begin, *length), *filters, *samples, "-flush_packets", "0", "pipe:1")


def probe_arguments(path: Path) -> tuple[str, ...]:
    """Decode one frame of the first audio track and describe it on stderr."""
    return (*_input(path), "-af", "ashowinfo", "-frames:a", "1", "-f", "null", "-")


def _input(path: Path, *options: str) -> tuple[str, ...]:
    return (
        *("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"),
        *("-protocol_whitelist", _PROTOCOL),
        *("-format_whitelist", ",".join(CONTAINERS)),
        *("-codec_whitelist", ",".join(_DECODERS)),
        *("-threads", "1", *options, "-i", source(path), "-map", "0:a:0"),
    )
