"""Parser of ffmpeg's stderr: facts about the file, and complaints.

Without ffprobe this text is the only source of these facts; lines have the format of `-loglevel level+info`. A file's
metadata is part of the text, so a hostile file can forge a line. It can then misstate only its own length or damage:
nothing else depends on these facts. Memory is bounded for any output.
"""

import re
from dataclasses import dataclass
from pathlib import Path

CLAIM_SLACK_SECONDS = 0.5
"""Headers count an MP3's encoder delay and padding (0.29 s at 8 kHz) and round to their own frames."""
_ROUNDED_SECONDS = 0.011
"""ffmpeg reports lengths in hundredths of a second; the shortest frames of FLAC in use are longer."""

_LINE = re.compile(
    r"(?:\[(?P<context>[^]@]*)(?: @ 0x[0-9a-f]+)?] )*\[(?P<level>info|warning|error|fatal|panic)] (?P<text>.*)"
)
_INPUT = re.compile(r"Input #0, ([^, ]+)")
_DURATION = re.compile(r"  Duration: (?:N/A|(\d+):(\d\d):(\d\d\.\d+))(?:, start: (-?\d+\.\d+))?, ")
_AUDIO = re.compile(r"  Stream #0:\d+.*?: Audio: (\w+)(?: \((\w+)\))?(?:[^,]*, (\d+) Hz, ([^,]+))?")
_VIDEO = re.compile(r"  Stream #0:\d+.*?: Video: ")
_START = re.compile(r", start (-?\d+\.\d+)")
_MAPPED = "Stream mapping:"
_FRAME = re.compile(r"n: *0 .* channels:(\d+) .*rate:(\d+) ")
_REFUSED_CODEC = re.compile(r"Codec \((\w+)\) not on whitelist")
_ONE_TRACK = frozenset({"aiff", "flac", "mp3", "wav", "w64", "caf", "au"})
_STATE_THE_END = frozenset({"matroska", "ogg", "flv", "asf"})
_ESTIMATES = ("Estimating duration from bitrate", "using bitrate for duration")
_CHANGE = "Reconfiguring filter graph"
_CHANGE_REFUSED = ("Channel change is not supported", "Not yet implemented in FFmpeg", "failed to create or replace")
"""A line about a chained Ogg file, whose links `ogg.py` then finds."""
_LOST_SYNC = ("Header missing", "Error submitting packet to decoder: Invalid data")
"""Line about an MPEG audio stream: a tag, padding, or damage; `mpeg_audio.py` decides which."""
_PART_OF_A_SAMPLE = ("Invalid PCM packet", "Decoding error: Invalid data")
"""Lines about plain samples of which the last is not whole."""
_SYNC_LOST_IN: dict[str | None, tuple[str, ...]] = {
    "ogg": ("Error during demuxing: Invalid data",),
    "flac": ("invalid sync code", "invalid frame header", "decode_frame() failed", "Decoding error: Invalid data"),
}
"""Lines about an Ogg or FLAC file: tags or zeros behind its end, or damage; `ogg.py` or the length decides which."""
_KEPT_COMPLAINTS = 4
_KEPT_TRACKS = 100
_REASON_CHARACTERS = 300
_READ = "WAV, FLAC, MP3, MP2, AAC, AC-3, MP4/M4A, Ogg, WebM/Matroska, AIFF, MPEG-TS, FLV, AVI, CAF, W64, AU, AMR, WMA"
_CURE = "convert it, for example with `ffmpeg -i FILE -ac 1 -ar 16000 FILE.flac`"
_LAYOUTS = {"mono": 1, "stereo": 2}
_KINDS = (
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ", "xz data"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"#EXTM3U", "an HLS playlist, which names audio and holds none"),
    (b"ffconcat", "a concat script, which names audio and holds none"),
    (b"<?xml", "an XML document"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"wvpk", "WavPack"),
    (b"MAC ", "Monkey's Audio"),
    (b"MThd", "MIDI, which holds notes and no sound"),
    (b"\x00\x00\x01\xba", "an MPEG program stream"),
    (b"DSD ", "DSD"),
    (b".RMF", "RealMedia"),
    (b"TTA1", "True Audio"),
    (b"{", "JSON"),
)
"""Kinds of files that people upload by mistake, by their first bytes; for messages only."""
_HEAD_BYTES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """An audio track as the headers describe it."""

    codec: str
    decoder: str
    """ffmpeg's name of what decodes it where that differs, else the codec's profile or the codec."""
    rate_hz: int | None
    layout: str
    start_seconds: float | None
    """None where it starts with the file, or the headers do not say."""
    is_default: bool

    @property
    def channels(self) -> int:
        """The number of channels; 0 for a layout that has a name of its own, such as `5.1(side)`."""
        count, _, unit = self.layout.partition(" ")
        return int(count) if unit.startswith("channel") and count.isdecimal() else _LAYOUTS.get(self.layout, 0)

    @property
    def is_named(self) -> bool:
        """False where the header counts channels and does not say where each belongs."""
        return "channel" not in self.layout


class Report:
    """Feed it stderr line by line.

    `source` is how the command named the file, and never appears in `reason`; `kind` is what its first bytes say that
    it is, for a file that ffmpeg may not open; `track` is the number of the audio track that is decoded. Without
    `states_length` the length that ffmpeg reads in the headers is no statement.
    """

    def __init__(self, source: str, *, track: int = 0, kind: str | None = None, states_length: bool = True) -> None:
        self._source, self._track = source, track
        self._kind = kind
        self._estimated = not states_length
        self._complaints: list[str] = []
        self._refused_codecs: set[str] = set()
        self._refusal: str | None = None
        self.start_seconds: float | None = None
        """The start of the file on its own clock: the earliest of the tracks that ffmpeg knows."""
        self.container: str | None = None
        self.duration_seconds: float | None = None
        self.tracks: list[Track] = []
        self.has_video = False
        """Or pictures, such as album art."""
        self.headers_read = False
        self.channels: int | None = None
        self.sample_rate_hz: int | None = None
        self.damaged = False
        """Audio is missing or spoilt."""
        self.lost_sync = False
        """An MPEG audio, FLAC or Ogg stream was interrupted by bytes that are no frames or pages."""
        self.corrupt_packets = False
        """The container says that a packet is not all there."""
        self.changes = False
        """The track's rate, channels or sample format has changed inside the file."""
        self.change_refused = False
        """The file goes on with other channels or another codec, and ffmpeg does not."""

    def feed(self, line: str) -> None:
        """Take in one line, without its newline."""
        if (said := _LINE.match(line)) is None:
            return
        match said["level"]:
            case "info":
                self._learn(said["text"])
            case "warning":
                self._weigh(said["text"])
            case _:
                self._complain(said["text"])

    @property
    def has_complaints(self) -> bool:
        """There was a complaint of any kind, be it damage or not."""
        return self.damaged or self.lost_sync or self.corrupt_packets or self.change_refused

    @property
    def track(self) -> Track | None:
        """The track that is decoded; None where there is none, or before the headers."""
        return self.tracks[self._track] if self._track < len(self.tracks) else None

    @property
    def codec(self) -> str | None:
        """The codec of that track."""
        return self.track.codec if self.track else None

    @property
    def best_track(self) -> int:
        """The number of the first audio track that the file marks as the default, else of the first."""
        return next((number for number, track in enumerate(self.tracks) if track.is_default), 0)

    @property
    def claimed_seconds(self) -> float | None:
        """The length the headers state; None where there is none or ffmpeg had to guess it.

        In MPEG-TS it is the difference of two clocks that may have nothing to do with each other; in some containers
        it can be the time of the end, on a clock that may start anywhere.
        """
        if self._estimated or self.duration_seconds is None or self.container == "mpegts":
            return None
        begin = self.start_seconds or 0.0
        is_end = self.container in _STATE_THE_END and self.duration_seconds > begin > 0
        return self.duration_seconds - begin if is_end else self.duration_seconds

    def falls_short(self, decoded_seconds: float) -> bool:
        """Less came out than the headers state. Says nothing where other tracks may be the longer ones.

        A FLAC file that lost sync has lost a frame unless all its samples came out.
        """
        claimed = self.claimed_seconds
        if self.container == "flac" and self.lost_sync:
            return claimed is None or decoded_seconds < claimed - _ROUNDED_SECONDS
        if claimed is None or self.container not in _ONE_TRACK:
            return False
        return decoded_seconds < claimed - CLAIM_SLACK_SECONDS

    @property
    def reason(self) -> str:
        """Why nothing came out, for people: printable, bounded, without this machine's paths."""
        if self._refusal:
            return self._refusal
        if self.container is None and self._kind is not None:
            return self._no_container
        if self.track and self._refused_codecs & {self.track.codec, self.track.decoder}:
            return f"its codec {self.track.codec} is not one that is read: {_CURE}"
        said = "; ".join(dict.fromkeys(self._complaints)) or "it holds no audio samples"
        said = said.replace(self._source, "the audio")
        return "".join(filter(str.isprintable, said))[:_REASON_CHARACTERS]

    @property
    def _no_container(self) -> str:
        return f"{self._kind or 'this'} is not a container that is read ({_READ}): {_CURE}"

    def _learn(self, text: str) -> None:
        if found := _INPUT.match(text):
            self.container = found[1]
        elif found := _DURATION.match(text):
            if found[1]:
                self.duration_seconds = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
            self.start_seconds = float(found[4]) if found[4] else None
        elif (found := _AUDIO.match(text)) and not self.headers_read and len(self.tracks) < _KEPT_TRACKS:
            self.tracks.append(_track(text, found))
        elif _VIDEO.match(text) and not self.headers_read:
            self.has_video = True
        elif text == _MAPPED:
            self.headers_read = True
        elif text.startswith(_CHANGE):
            self.changes = True
        elif found := _FRAME.match(text):
            self.channels, self.sample_rate_hz = int(found[1]), int(found[2])

    def _weigh(self, text: str) -> None:
        if any(words in text for words in _ESTIMATES):
            self._estimated = True
        elif "corrupt input packet" in text:
            self.corrupt_packets = True

    def _complain(self, text: str) -> None:
        if found := _REFUSED_CODEC.match(text):
            self._refused_codecs.add(found[1])  # video and album art too, so it is no damage
        elif text.startswith("Format not on whitelist"):
            self._refusal = self._no_container
        elif "matches no streams" in text:
            self._refusal = "it has no audio track"
        elif any(words in text for words in _CHANGE_REFUSED):
            self.change_refused = True
        elif any(words in text for words in (*_LOST_SYNC, *_SYNC_LOST_IN.get(self.container, ()))):
            self.lost_sync = True
        elif not ((self.codec or "").startswith("pcm_") and any(words in text for words in _PART_OF_A_SAMPLE)):
            self.damaged = True
        if len(self._complaints) < _KEPT_COMPLAINTS:  # the first ones name the cause
            self._complaints.append(text[:_REASON_CHARACTERS])


def _track(text: str, found: re.Match[str]) -> Track:
    start = _START.search(text)
    return Track(
        codec=found[1],
        decoder=found[2] or found[1],
        rate_hz=int(found[3] or 0) or None,
        layout=(found[4] or "").strip(),
        start_seconds=float(start[1]) if start else None,
        is_default=text.rstrip().endswith("(default)") or "(default) (" in text,
    )


def kind_of(path: Path) -> str | None:
    """Return what the file is, where its first bytes are among those known."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for magic, kind in _KINDS if head.startswith(magic.lower())), None)
