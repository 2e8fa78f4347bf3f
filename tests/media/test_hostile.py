"""A file may name nothing else to open: each of these points at a canary, and none is touched."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, riff_wav
from tests.support.audio.quicktime import with_external_samples
from tests.support.confinement.open_watch import OpenWatch
from worker.adapters.audio import FfmpegDecoder
from worker.errors import AudioUndecodable
from worker.ports import Pcm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the canary is watched by inotify")

SCRIPTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\nduration 3\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT3S"><Period><AdaptationSet mimeType="audio/wav"><Representation id="1" '
    'bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
}
NAMES = ("job", "job.mp3", "job.m3u8", "job.mpd", "job.ffconcat")


@pytest.fixture
def canary(media: MediaKit, talk: Pcm) -> Path:
    return media.encode("canary.wav", talk)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


async def _refused(decoder: FfmpegDecoder, path: Path) -> str:
    with pytest.raises(AudioUndecodable) as raised:
        await decode_all(decoder, path)
    return str(raised.value).removeprefix("the audio cannot be decoded: ")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", NAMES)
async def test_a_script_that_points_at_a_file_is_refused_and_the_file_not_opened(
    decoder: FfmpegDecoder, tmp_path: Path, canary: Path, script: str, name: str
) -> None:
    path = tmp_path / name
    path.write_text(SCRIPTS[script].format(target=canary))

    with OpenWatch(canary) as watch:
        reason = await _refused(decoder, path)

        assert not watch.opened()
    assert str(tmp_path) not in reason


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_script_that_points_at_a_url_is_refused_and_the_url_is_not_called(
    decoder: FfmpegDecoder, tmp_path: Path, listener: socket.socket, script: str
) -> None:
    path = tmp_path / "job.m3u8"
    path.write_text(SCRIPTS[script].format(target=f"http://127.0.0.1:{listener.getsockname()[1]}/a.wav"))

    await _refused(decoder, path)

    with pytest.raises(BlockingIOError):
        listener.accept()


async def test_samples_in_another_file_are_not_read(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, canary: Path
) -> None:
    movie = media.encode("refers.mov", talk, "-c:a", "pcm_s16le").read_bytes()
    path = media.write("external.mov", with_external_samples(movie, canary))

    with OpenWatch(canary) as watch:
        await _refused(decoder, path)

        assert not watch.opened()


async def test_the_watch_notices_what_ffmpeg_does_when_nothing_holds_it_back(
    media: MediaKit, talk: Pcm, tmp_path: Path, canary: Path
) -> None:
    script = tmp_path / "job.ffconcat"
    script.write_text(SCRIPTS["concat"].format(target=canary))
    movie = media.encode("refers.mov", talk, "-c:a", "pcm_s16le").read_bytes()
    external = media.write("external.mov", with_external_samples(movie, canary))

    with OpenWatch(canary) as watch:
        media.run("-safe", "0", "-i", str(script), "-f", "null", "-")
        by_script = watch.opened()
        media.run("-enable_drefs", "1", "-use_absolute_path", "1", "-i", str(external), "-f", "null", "-")
        by_reference = watch.opened()

    assert by_script
    assert by_reference


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.mp3", b"dear transcriber, this is not audio at all\n" * 50),
        ("text", b"dear transcriber, this is not audio at all\n" * 50),
        ("subtitles.mp3", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n"),
        ("page.mp3", b"<!doctype html><html><body>404</body></html>"),
        ("archive.mp3", b"PK\x03\x04" + bytes(3000)),
        ("zeros.mp3", bytes(100_000)),
    ],
)
async def test_what_is_not_media_is_refused(media: MediaKit, decoder: FfmpegDecoder, name: str, content: bytes) -> None:
    reason = await _refused(decoder, media.write(name, content))

    assert reason.isprintable()
    assert str(media.directory) not in reason


async def test_a_picture_named_mp3_is_refused_by_what_it_is(media: MediaKit, decoder: FfmpegDecoder) -> None:
    picture = media.directory / "picture.png"
    media.run("-f", "lavfi", "-i", "color=red:size=64x64", "-frames:v", "1", str(picture))

    reason = await _refused(decoder, media.write("picture.mp3", picture.read_bytes()))

    assert reason.startswith("a PNG picture is not a container that is read (WAV, FLAC, MP3")


async def test_a_video_without_sound_is_refused(media: MediaKit, decoder: FfmpegDecoder) -> None:
    video = media.directory / "mute.mp4"
    media.run("-f", "lavfi", "-i", "testsrc=duration=1:size=64x48:rate=5", "-c:v", "libx264", str(video))

    assert await _refused(decoder, video) == "it has no audio track"


async def test_a_codec_that_is_not_on_the_list_is_refused_by_name(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    path = media.encode("adpcm.wav", talk, "-c:a", "adpcm_ima_wav")

    assert (await _refused(decoder, path)).startswith("its codec adpcm_ima_wav is not one that is read: convert it")


@pytest.mark.parametrize(
    ("name", "options", "codec"),
    [
        ("dts.mkv", ("-c:a", "dca", "-strict", "-2", "-ar", "48000"), "dts"),
        ("truehd.mkv", ("-c:a", "truehd", "-strict", "-2", "-ar", "48000"), "truehd"),
        ("wavpack.mkv", ("-c:a", "wavpack"), "wavpack"),
        ("tta.mkv", ("-c:a", "tta"), "tta"),
        ("adpcm.wav", ("-c:a", "adpcm_ms"), "adpcm_ms"),
        ("adpcm.mov", ("-c:a", "adpcm_ima_qt"), "adpcm_ima_qt"),
        ("g726.wav", ("-c:a", "g726", "-ar", "8000"), "adpcm_g726"),
    ],
)
async def test_a_codec_is_named_as_people_know_it_whatever_its_decoder_is_called(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...], codec: str
) -> None:
    reason = await _refused(decoder, media.encode(name, talk, *options))

    assert reason.startswith(f"its codec {codec} is not one that is read: convert it, for example with `ffmpeg -i FILE")


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("zeros", [0, 20_000])
async def test_dts_that_a_wav_states_to_be_plain_samples_is_refused_and_not_decoded_as_noise(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, rate: int, zeros: int
) -> None:
    options = ("-ar", str(rate), "-ac", "2", "-c:a", "dca", "-strict", "-2")
    frames = media.encode("raw.dts", talk, *options).read_bytes()
    path = media.write("compact-disc.wav", riff_wav(bytes(zeros) + frames, rate=rate, channels=2))

    assert (await _refused(decoder, path)).startswith("its codec dts is not one that is read")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x1f\x8b\x08" + bytes(100), "gzip data"),
        (b"PK\x03\x04" + bytes(3000), "a ZIP archive"),
        (b"%PDF-1.7\n" + bytes(3000), "a PDF document"),
        (b"wvpk" + bytes(3000), "WavPack"),
        (b"MThd\0\0\0\x06\0\1\0\1\0\x60MTrk" + bytes(400), "MIDI"),
        (b"#EXTM3U\n#EXTINF:3,\na.ts\n", "an HLS playlist"),
    ],
)
async def test_a_file_that_is_none_of_the_containers_is_named_where_it_is_known(
    media: MediaKit, decoder: FfmpegDecoder, content: bytes, kind: str
) -> None:
    reason = await _refused(decoder, media.write("upload.mp3", content))

    assert kind in reason


async def test_a_name_that_looks_like_an_option_or_a_protocol_is_only_a_name(
    decoder: FfmpegDecoder, tmp_path: Path, canary: Path, talk: Pcm
) -> None:
    path = tmp_path / "-i concat:%03d|'x y'?\n.wav"
    path.hardlink_to(canary)

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size == talk.size


async def test_metadata_cannot_speak_for_ffmpeg(media: MediaKit, decoder: FfmpegDecoder, talk: Pcm) -> None:
    lies = "x\n[error] fatal damage\n  Duration: 99:00:00.00, start: 0\x1b[31m"
    path = media.encode("lies.flac", talk, "-metadata", f"title={lies}")

    facts = await decoder.probe(path)
    decoded = await decode_all(decoder, path)

    assert facts.duration_seconds == pytest.approx(3.0)
    assert not decoded.truncated
