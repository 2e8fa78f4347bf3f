"""What ffmpeg says on stderr, reduced to facts and complaints.

ffmpeg's text is the only way to learn these things without ffprobe; lines come as `-loglevel level+info` writes them.
A file's metadata is part of that text, so a hostile file can forge a line: it then lies about its own length or damage,
and nothing else follows from these facts. Memory is bounded whatever ffmpeg says.
"""

import re

CLAIM_SLACK_SECONDS = 0.5
"""Headers count an MP3's encoder delay and padding (0.29 s at 8 kHz) and round to their own frames."""

_LINE = re.compile(
    r"(?:\[(?P<context>[^]@]*)(?: @ 0x[0-9a-f]+)?] )*\[(?P<level>info|warning|error|fatal|panic)] (?P<text>.*)"
)
_INPUT = re.compile(r"Input #0, ([^, ]+)")
_DURATION = re.compile(r"  Duration: (\d+):(\d\d):(\d\d\.\d+), ")
_AUDIO = re.compile(r"  Stream #0:\d+.*?: Audio: (\w+)(?:[^,]*, (\d+) Hz)?")
_MAPPED = "Stream mapping:"
_FRAME = re.compile(r"n: *0 .* channels:(\d+) .*rate:(\d+) ")
_REFUSED_CODEC = re.compile(r"Codec \((\w+)\) not on whitelist")
_ONE_TRACK = frozenset({"aiff", "flac", "mp3", "wav"})
_ESTIMATES = ("Estimating duration from bitrate", "using bitrate for duration")
_KEPT_COMPLAINTS = 4
_REASON_CHARACTERS = 300
_READ = "WAV, FLAC, MP3, AAC, MP4/M4A, Ogg, WebM/Matroska, AIFF"


class Report:
    """Feed it stderr line by line; `source` is how the command named the file, and never appears in `reason`."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._estimated = self._unlimited = False
        self._complaints: list[str] = []
        self._refused_codecs: set[str] = set()
        self._refusal: str | None = None
        self.container: str | None = None
        self.duration_seconds: float | None = None
        self.codec: str | None = None
        """Of the first audio track, as `stated_rate_hz`."""
        self.stated_rate_hz: int | None = None
        self.headers_read = False
        self.channels: int | None = None
        self.sample_rate_hz: int | None = None
        self.damaged = False

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
                self._complain(said["text"], said["context"] or "")

    @property
    def claimed_seconds(self) -> float | None:
        """The length the headers state; None where there is none or ffmpeg had to guess it."""
        return None if self._estimated else self.duration_seconds

    def falls_short(self, decoded_seconds: float) -> bool:
        """Less came out than the headers state. Says nothing where other tracks may be the longer ones."""
        claimed = self.claimed_seconds
        if claimed is None or self.container not in _ONE_TRACK:
            return False
        return decoded_seconds < claimed - CLAIM_SLACK_SECONDS

    @property
    def reason(self) -> str:
        """Why nothing came out, for people: printable, bounded, without this machine's paths."""
        if self._refusal:
            return self._refusal
        if self.codec in self._refused_codecs:
            return f"its codec {self.codec} is not one that is read"
        said = "; ".join(dict.fromkeys(self._complaints)) or "it holds no audio samples"
        said = said.replace(self._source, "the audio")
        return "".join(filter(str.isprintable, said))[:_REASON_CHARACTERS]

    def _learn(self, text: str) -> None:
        if found := _INPUT.match(text):
            self.container = found[1]
        elif found := _DURATION.match(text):
            self.duration_seconds = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
        elif (found := _AUDIO.match(text)) and self.codec is None:
            self.codec, self.stated_rate_hz = found[1], int(found[2] or 0) or None
        elif text == _MAPPED:
            self.headers_read = True
        elif found := _FRAME.match(text):
            self.channels, self.sample_rate_hz = int(found[1]), int(found[2])

    def _weigh(self, text: str) -> None:
        if any(words in text for words in _ESTIMATES):
            self._estimated = True
        elif text.startswith("Ignoring maximum wav data size"):
            self._unlimited = True  # written to a pipe: its length was unknown, so its end is no early one
        elif "corrupt input packet" in text and not self._unlimited:
            self.damaged = True

    def _complain(self, text: str, context: str) -> None:
        if found := _REFUSED_CODEC.match(text):
            self._refused_codecs.add(found[1])  # video and album art too, so it is no damage
        elif text.startswith("Format not on whitelist"):
            self._refusal = f"{context or 'this'} is not a container that is read ({_READ})"
        elif "matches no streams" in text:
            self._refusal = "it has no audio track"
        else:
            self.damaged = True
            if len(self._complaints) < _KEPT_COMPLAINTS:  # the first ones name the cause
                self._complaints.append(text[:_REASON_CHARACTERS])
