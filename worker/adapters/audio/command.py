"""ffmpeg's command lines, with allow-lists of protocols, containers and codecs.

The container is detected by the file's content, never by its name, and the content cannot make ffmpeg open another
file: playlists, concat scripts, images and subtitles are not on the list of containers; the only protocols are `fd`
(on Windows `file`) and `subfile`, a byte range of the same file; MP4's external data references are off (ffmpeg's
default). Video tracks and album art are never decoded: none of their decoders is allowed.
"""

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from worker.adapters.audio.headers import SamplesSize
from worker.adapters.audio.matroska import are_floats
from worker.adapters.audio.report import Report
from worker.ports import SAMPLE_RATE_HZ

_PROTOCOL = "fd" if os.name == "posix" else "file"
_PROTOCOLS = f"{_PROTOCOL},subfile"
CONTAINERS = (
    *("wav", "flac", "mp3", "aac", "ogg", "matroska", "mov", "aiff"),
    *("ac3", "eac3"),  # bare, as recordings of television are cut out
    *("mpegts", "flv", "avi"),  # what tools for streams leave
    *("caf", "w64", "au", "amr", "asf"),  # Apple's and Sony's recorders, Unix, phones, Windows
)
_DECODERS = (
    *("aac", "alac", "flac", "libopus", "libvorbis", "mp2", "mp2float", "mp3", "mp3float", "opus", "vorbis"),
    *("aac_latm", "ac3", "eac3"),  # the sound of films and television
    *("amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "wmav1", "wmav2", "wmapro"),
    *("pcm_alaw", "pcm_mulaw", "pcm_s8", "pcm_u8"),
    *(f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")),
)

FILE_TIMES_OFFSET_SECONDS = 100_000
"""Offset added to unmodified times of a file; larger than the clock of MPEG-TS before it wraps."""
CHANNELS_MAX = 64
"""More than this ffmpeg cannot mix."""

# ffmpeg takes a jump above 10 s in an Ogg file for a clock that was set, and cuts it out; in other containers one above
# 30 h for no time at all. Both are gaps.
_JUMP_SECONDS = 10_000_000

_ONE_THREAD_CONTAINERS = frozenset({"aac", "flac", "matroska", "mov", "mp3", "ogg"})
_ONE_THREAD_CODECS = frozenset({"aac", "alac", "flac", "mp3", "opus", "vorbis", "pcm_s16le", "pcm_s24le", "pcm_s32le"})
"""One packet of these is one frame: `amovie` takes no second one from a packet."""
_KEEP_PADDING = frozenset({("caf", "alac"), ("asf", "wmav1"), ("asf", "wmav2")})
_ENDS_WITH_ITS_FILE = frozenset({"aac", "mp3"})
"""Containers that can end in no other way, so that they need not state a length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteRange:
    """Bytes of the file from `start` up to `end`; None as the end is the file's."""

    start: int
    end: int | None

    def within(self, other: "ByteRange") -> "ByteRange | None":
        """Return what both have in common; None where that is nothing."""
        start, end = max(self.start, other.start), min(self.end or sys.maxsize, other.end or sys.maxsize)
        return ByteRange(start=start, end=end % sys.maxsize or None) if start < end else None


ALL_BYTES = ByteRange(start=0, end=None)
_LARGE_CLUSTERS = ("-cluster_time_limit", "5000", "-cluster_size_limit", "5000000")
"""Each cluster is one write, and each write wakes the worker: 5 s at a time take a tenth of its time less than 1 s."""
_LATER = ("-output_ts_offset", str(FILE_TIMES_OFFSET_SECONDS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """Options of reading a file, decided by its headers: encoding, track, channels, and precision of times."""

    floats: bool = False
    """The samples come as float32, not int16."""
    track: int = 0
    """Among the audio tracks."""
    channels: int | None = 1
    """As the headers say; 0 for a layout with a name such as 5.1. None: the headers count the channels only."""
    only: int | None = None
    """The channel to decode, counted from 0; None: their mix."""
    is_broadcast: bool = False
    ignores_wav_size: bool = False
    states_no_length: bool = False
    """Another header's size of the samples was not known when it was written."""
    lacks_samples: bool = False
    """The file has less samples than its header states; or more, of which ffmpeg reads no further."""
    keeps_padding: bool = False
    """Nothing is cut off although ffmpeg would do so: of ALAC in CAF, whose last packet is shorter already by what
    would be cut off once more, and of WMA, of whose first two frames the second may be the recording's."""
    each_frame: bool = False
    """Each of the codec's frames comes with its own time, and both mixes whatever the number of channels: for a file
    that changes inside or has gaps. Otherwise a second at a time."""
    kept: tuple[ByteRange, ...] = ()
    """The bytes to read of the file, in this order; (): all of them."""
    read_as: str | None = None
    """A container: one thread of ffmpeg reads the file as this, decodes and mixes, which takes half of the processor
    time; a first doubt ends it. None: each step has a thread, and what ffmpeg can mend it does."""
    padded_codec: str | None = None
    """The codec of a WAV's samples where ffmpeg errs about it."""
    samples: SamplesSize | None = None
    """A WAV's plain samples of 16 bits."""
    start_seconds: float = field(default=0.0, compare=False)
    """The start of the file on its own clock."""

    def suited_to(self, report: Report) -> "Way":
        """Return the way that the headers ask for. `report` may be of any track."""
        number = report.best_track
        if number >= len(report.tracks):
            return self
        track = report.tracks[number]
        suited = replace(
            self,
            floats=are_floats(track.codec),
            track=number,
            channels=track.channels if track.is_named or track.channels == 1 else None,
            is_broadcast=report.container == "mpegts",
            keeps_padding=(report.container, track.codec) in _KEEP_PADDING,
            start_seconds=report.start_seconds or 0.0,
        )
        return replace(suited, read_as=report.container if suited.is_plain(report) else None)

    def is_plain(self, report: Report) -> bool:
        """Return True where one thread of ffmpeg will do for the file that the report describes."""
        track = report.tracks[self.track]
        return (
            _PROTOCOL == "fd"
            and (report.container in _ONE_THREAD_CONTAINERS or self.read_as == report.container)
            and (report.container in _ENDS_WITH_ITS_FILE or report.claimed_seconds is not None)
            and track.codec in _ONE_THREAD_CODECS
            and self.channels in {1, 2}
            and not (self.ignores_wav_size or report.has_video or self.kept)
        )

    @property
    def mean_alone(self) -> bool:
        """Only the mean of two channels is decoded, since `samples` show where these cancel each other."""
        wav = self.samples.wav if self.samples else None
        return wav is not None and wav.has_two_channels and self.read_as == "wav" and self.only is None

    @property
    def mixes(self) -> int:
        """The number of interleaved mixes in the output."""
        is_one = self.only is not None or self.mean_alone or (self.channels == 1 and not self.each_frame)
        return 1 if is_one else 2

    @property
    def frame_bytes(self) -> int:
        """The size in bytes of one sample of every mix."""
        return self.mixes * (4 if self.floats else 2)


def source(path: Path) -> str:
    """Return the file's name in ffmpeg's command line and messages: on POSIX, the descriptor that it inherits as 0."""
    return f"{_PROTOCOL}:" if _PROTOCOL == "fd" else f"{_PROTOCOL}:{path.absolute()}"


def decode_arguments(
    path: Path,
    way: Way,
    *,
    begin_second: int = 0,
    end_second: int | None = None,
    byte_range: ByteRange = ALL_BYTES,
) -> tuple[str, ...]:
    """Decode a track, or some seconds or bytes of it, to 16 kHz samples with their times, as Matroska on stdout."""
    if way.read_as is not None:
        return _in_one_thread(path, way, begin_second, end_second)
    begin = ("-ss", str(begin_second)) if begin_second else ()
    length = () if end_second is None else ("-t", str(end_second - begin_second))
    jumps = ("-dts_delta_threshold", str(_JUMP_SECONDS), "-dts_error_threshold", str(_JUMP_SECONDS))
    # In MPEG-TS a clock may be set, and after a change of rate ffmpeg errs about times: `Timeline` judges them itself.
    # Before they wrapped they count as negative, which Matroska could not state.
    times = ("-copyts",) if way.is_broadcast else ()
    later = _LATER if way.is_broadcast else ()
    whole = ("-ignore_length", "1") if way.ignores_wav_size else ()
    padded = ("-flags2", "+skip_manual") if way.keeps_padding else ()
    decoder = ("-c:a", way.padded_codec) if way.padded_codec else ()
    return (
        *_input(_source_of(path, way, byte_range), *jumps, *times, *whole, *padded, *decoder, *begin, *length),
        *("-filter_complex", f"[0:a:{way.track}]{_mixed(way)}[mixed]"),
        *later,
        *_output(way),
    )


def _in_one_thread(path: Path, way: Way, begin_second: int, end_second: int | None) -> tuple[str, ...]:
    """Let a source of the filter graph read the file; ffmpeg's own input shows its headers and is not read on.

    Each opens the inherited descriptor at byte 0, which `subfile` does, and in turn: they share its position.
    """
    trim = [f"start={way.start_seconds + begin_second:.6f}"] if begin_second else []
    trim += [] if end_second is None else [f"end={way.start_seconds + end_second:.6f}"]
    trimmed = f"atrim={':'.join(trim)}," if trim else ""
    whitelists = f"protocol_whitelist={_PROTOCOLS}:format_whitelist={way.read_as}:codec_whitelist={','.join(_DECODERS)}"
    options: dict[str, object] = {
        "filename": _bytes_of(path, ALL_BYTES),
        "format_name": way.read_as,
        "streams": f"a:{way.track}",
        "dec_threads": 1,
        "format_opts": whitelists,
    }
    not_searched: tuple[str, ...] = ()
    if way.read_as == "wav":  # ffmpeg's own input has looked for AC-3 and DTS among the samples, or need not
        options["format_opts"] = f"probesize=32:{whitelists}"
        not_searched = ("-probesize", "32") if way.samples else ()
    if begin_second:
        options["seek_point"] = begin_second
    source_filter = ":".join(f"{name}={_quoted(str(value))}" for name, value in options.items())
    return (
        *_input(_bytes_of(path, ALL_BYTES), *not_searched),
        *("-filter_complex_threads", "1", "-filter_complex", f"amovie={source_filter},{trimmed}{_mixed(way)}[mixed]"),
        *_LATER,
        *_output(way),
    )


def _quoted(value: str) -> str:
    """Quote an option of a filter, which is read twice: as a part of the graph, and of the filter's list."""
    return "'" + value.replace("\\", "\\\\").replace(":", "\\:") + "'"


def _output(way: Way) -> tuple[str, ...]:
    return (
        *("-map", "[mixed]", "-c:a", "pcm_f32le" if way.floats else "pcm_s16le", "-f", "matroska", *_LARGE_CLUSTERS),
        *("-flush_packets", "0", "pipe:1"),  # a write for each packet would cost as much as small packets do
    )


def probe_arguments(path: Path, way: Way) -> tuple[str, ...]:
    """Decode one frame of a track and describe it on stderr."""
    whole = ("-ignore_length", "1") if way.ignores_wav_size else ()
    mapped = ("-map", f"0:a:{way.track}")
    return (*_input(source(path), *whole), *mapped, "-af", "ashowinfo", "-frames:a", "1", "-f", "null", "-")


def _input(name: str, *options: str) -> tuple[str, ...]:
    protocols = f"{_PROTOCOLS},concat" if name.startswith("concat:") else _PROTOCOLS
    return (
        *("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"),
        *("-protocol_whitelist", protocols),
        *("-format_whitelist", ",".join(CONTAINERS)),
        *("-codec_whitelist", ",".join(_DECODERS)),
        *("-threads", "1", *options, "-i", name),
    )


def _source_of(path: Path, way: Way, link: ByteRange) -> str:
    """Return the name of what is read of some bytes of the file.

    Several stretches are opened at once, and share one position in the file: the last one, of a byte that means
    nothing behind the end, leaves it where the first one begins.
    """
    if not way.kept:
        return source(path) if link == ALL_BYTES else _bytes_of(path, link)
    stretches = [both for piece in way.kept if (both := piece.within(link))]
    begin = stretches[0].start
    stretches.append(ByteRange(start=begin, end=begin + 1))
    return "concat:" + "|".join(_bytes_of(path, stretch) for stretch in stretches)


def _bytes_of(path: Path, byte_range: ByteRange) -> str:
    return f"subfile,,start,{byte_range.start},end,{byte_range.end or 0},,:{source(path)}"


def _mixed(way: Way) -> str:
    """Return the filters from the track's frames to packets of one or two mixes.

    All arithmetic is in floats, whatever the file's format: ffmpeg's default would truncate 24 bits to 16 instead of
    rounding. No filter may fill gaps or keep frames across a change of format: ffmpeg rebuilds its filters where a
    file's rate or channels change, which loses their buffers and counters.
    """
    floats, mean = "aformat=sample_fmts=fltp", "0.5*c0+0.5*c1"
    sample_format = "flt" if way.floats else "s16"
    mono = f"aformat=sample_fmts={sample_format}:channel_layouts=mono:sample_rates={SAMPLE_RATE_HZ}"
    if way.only is not None:
        # A channel that the frame does not have is silent: a file's channels may change.
        alone = f"{floats},pan=mono|c0=c{way.only},aresample,{mono}"
        return alone if way.each_frame else f"{alone},{_IN_LONG_PACKETS}"
    if way.each_frame or way.channels not in {1, 2}:
        both = f"{floats},asplit[a][b];[a]{_mean(way)},{mono}[c];[b]{_other_mix()},aresample,{mono}[d]"
        return f"{both};[c][d]amerge=inputs=2" + ("" if way.each_frame else f",{_IN_LONG_PACKETS}")
    if way.channels == 1:
        return f"{floats},aresample,{mono},{_IN_LONG_PACKETS}"
    if way.mean_alone:
        return f"{floats},pan=mono|c0={mean},aresample,{mono},{_IN_LONG_PACKETS}"
    both = f"aformat=sample_fmts={sample_format}:sample_rates={SAMPLE_RATE_HZ}"
    return f"{floats},pan=stereo|c0={mean}|c1=c0,aresample,{both},{_IN_LONG_PACKETS}"


def _mean(way: Way) -> str:
    """Ffmpeg's down-mix, scaled so that it cannot clip; the plain mean where it does not know the channels' places."""
    if way.channels is not None:
        return "aresample=rematrix_maxval=1"
    return "pan=mono|c0<" + "+".join(f"c{number}" for number in range(CHANNELS_MAX)) + ",aresample"


def _other_mix() -> str:
    """Weights all different, and such that no pattern of opposite signs sums to nothing (found by search).

    Channels that the file does not have count as silent, so that it suits files whose channels change.
    """
    weights = (((27 * number + 48) % 65 / 32 - 1) / 2 for number in range(CHANNELS_MAX))
    return "pan=mono|c0=" + "+".join(f"{weight:.4f}*c{number}" for number, weight in enumerate(weights))


# ffmpeg hands every frame from thread to thread, and its codecs' are short: a second at a time takes a third less of
# its time, and with a pipe that is not flushed after each, a third of ours.
_IN_LONG_PACKETS = "asetnsamples=n=16384:p=0"
