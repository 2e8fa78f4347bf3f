"""ffmpeg's command lines: what it may open, and what it shall do with it.

The file's content decides what happens, never its name, and may name nothing else to open: playlists, concat scripts,
images and subtitles are not on the list of containers, no protocol but `file` exists, and MP4's external data
references stay off (ffmpeg's default). Video tracks and album art are never decoded: no decoder of theirs is allowed.
"""

from pathlib import Path

from worker.ports import SAMPLE_RATE_HZ

CONTAINERS = ("wav", "flac", "mp3", "aac", "ogg", "matroska", "mov", "aiff")
_DECODERS = (
    *("aac", "alac", "flac", "libopus", "libvorbis", "mp2float", "mp3", "mp3float", "opus", "vorbis"),
    *("ac3", "eac3"),  # the sound of films in MP4 and Matroska
    *("pcm_alaw", "pcm_mulaw", "pcm_s8", "pcm_u8"),
    *(f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")),
)

# async=1 with first_pts=0 keeps times true to the file: silence for a late start and for gaps above 0.1 s, nothing
# stretched. rematrix_maxval=1 scales a down-mix so that it cannot clip.
_RESAMPLE = "aresample=async=1:first_pts=0:rematrix_maxval=1"


def source(path: Path) -> str:
    """The file as ffmpeg is told of it, and as it calls it in its messages."""
    return f"file:{path.absolute()}"


def decode_arguments(path: Path, begin_second: int = 0, end_second: int | None = None) -> tuple[str, ...]:
    """Decode the first audio track, or a stretch of it, to mono float samples at `SAMPLE_RATE_HZ` on stdout.

    Float, because ffmpeg's own conversion to int16 turns NaN into full-scale noise.
    """
    output = ("-ac", "1", "-ar", str(SAMPLE_RATE_HZ), "-c:a", "pcm_f32le", "-f", "f32le", "pipe:1")
    begin = ("-ss", str(begin_second)) if begin_second else ()
    length = () if end_second is None else ("-t", str(end_second - begin_second))
    return (*_input(path, *begin, *length), "-af", _RESAMPLE, *output)


def probe_arguments(path: Path) -> tuple[str, ...]:
    """Decode one frame of the first audio track and describe it on stderr."""
    return (*_input(path), "-af", "ashowinfo", "-frames:a", "1", "-f", "null", "-")


def _input(path: Path, *options: str) -> tuple[str, ...]:
    return (
        *("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"),
        *("-protocol_whitelist", "file"),
        *("-format_whitelist", ",".join(CONTAINERS)),
        *("-codec_whitelist", ",".join(_DECODERS)),
        *("-threads", "1", *options, "-i", source(path), "-map", "0:a:0"),
    )
