"""Every format: how many samples come out, and how late against the truth."""

import numpy as np
import pytest

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, lag_samples, riff_wav
from worker.adapters.audio import FfmpegDecoder
from worker.ports import SAMPLE_RATE_HZ, Pcm

# name, options, most samples that may follow the truth (padding of the last frame), lag; a sample is 1/16000 s
FORMATS = [
    ("a.wav", (), 0, 0),
    ("cd.wav", ("-ar", "44100"), 0, 0),
    ("studio.wav", ("-ar", "48000", "-c:a", "pcm_s24le"), 0, 0),
    ("phone.wav", ("-ar", "8000", "-c:a", "pcm_u8"), 0, 0),
    ("float.wav", ("-ar", "44100", "-c:a", "pcm_f32le"), 0, 0),
    ("double.wav", ("-c:a", "pcm_f64le"), 0, 0),
    ("surround.wav", ("-ac", "6"), 0, 0),
    ("a.aiff", ("-ar", "44100"), 0, 0),
    ("a.flac", ("-ar", "48000"), 0, 0),
    ("pipeline.mp3", ("-ar", "8000", "-b:a", "32k"), 0, 0),
    ("cd.mp3", ("-ar", "44100", "-b:a", "128k"), 0, 0),
    ("stereo.mp3", ("-ar", "48000", "-ac", "2", "-b:a", "128k"), 0, 0),
    ("a.opus", ("-c:a", "libopus"), 0, 0),
    ("a.ogg", ("-c:a", "libvorbis", "-ar", "44100"), 0, 0),
    ("a.m4a", ("-c:a", "aac", "-ar", "44100"), 372, 0),
    ("faststart.mp4", ("-c:a", "aac", "-ar", "48000", "-movflags", "+faststart"), 372, 0),
    ("fragmented.mp4", ("-c:a", "aac", "-ar", "44100", "-movflags", "frag_keyframe+empty_moov"), 800, 372),
    ("a.webm", ("-c:a", "libopus"), 0, 0),
    ("a.mkv", ("-c:a", "aac", "-ar", "44100"), 372, 0),
    ("a.aac", ("-c:a", "aac", "-ar", "44100"), 800, 0),
    ("headerless.mp3", ("-ar", "44100", "-write_xing", "0"), 1300, 402),
    ("headerless8.mp3", ("-ar", "8000", "-b:a", "32k", "-write_xing", "0"), 4000, 2210),
    ("a.mp2", ("-c:a", "mp2", "-ar", "48000"), 1300, 0),
    ("lame.mp2", ("-c:a", "libtwolame", "-ar", "44100"), 1300, 0),
    ("a.ac3", ("-c:a", "ac3", "-ar", "48000"), 1200, 0),
    ("a.ts", ("-c:a", "aac", "-ar", "44100"), 1200, 0),
    ("mp2.ts", ("-c:a", "mp2", "-ar", "48000"), 1300, 0),
    ("ac3.ts", ("-c:a", "ac3", "-ar", "48000"), 1200, 0),
    ("opus.ts", ("-c:a", "libopus"), 500, 104),
    ("a.flv", ("-c:a", "aac", "-ar", "44100"), 1200, 0),
    ("mp3.flv", ("-c:a", "libmp3lame", "-ar", "44100"), 1500, 402),
    ("a.avi", ("-c:a", "libmp3lame", "-ar", "44100"), 1700, 402),
    ("pcm.avi", ("-c:a", "pcm_s16le"), 0, 0),
    ("a.caf", ("-ar", "44100"), 0, 0),
    ("a.w64", ("-ar", "48000", "-c:a", "pcm_s24le"), 0, 0),
    ("a.au", ("-ar", "44100"), 0, 0),
    ("mulaw.au", ("-ar", "8000", "-c:a", "pcm_mulaw"), 0, 0),
    ("a.amr", ("-ar", "8000", "-c:a", "libopencore_amrnb"), 700, 80),
    ("a.3gp", ("-ar", "8000", "-c:a", "libopencore_amrnb"), 700, -20),
    ("a.wma", ("-c:a", "wmav2", "-ar", "44100"), 1500, 0),
    ("a32.wma", ("-c:a", "wmav2", "-ar", "32000"), 1500, 0),
    ("a22.wma", ("-c:a", "wmav2", "-ar", "22050", "-b:a", "64k"), 1500, 0),
    ("a8.wma", ("-c:a", "wmav2", "-ar", "8000", "-b:a", "32k"), 1500, 0),
    ("v1.wma", ("-c:a", "wmav1", "-ar", "44100"), 1500, 0),
    ("v1-32.wma", ("-c:a", "wmav1", "-ar", "32000"), 1500, 0),
    ("mp3-in.wav", ("-c:a", "libmp3lame", "-ar", "44100"), 1500, 402),
    ("a.eac3", ("-c:a", "eac3", "-ar", "48000"), 1200, 0),
]


@pytest.mark.parametrize(("name", "options", "extra", "lag"), FORMATS, ids=[case[0] for case in FORMATS])
async def test_samples_come_out_exact_and_in_time(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...], extra: int, lag: int
) -> None:
    path = media.encode(name, talk, *options)

    decoded = await decode_all(decoder, path)

    encoder_lost = 480 if name.endswith(("mp2", "mp2.ts")) else 0  # its delay, at the other end
    assert not decoded.truncated
    assert -encoder_lost <= decoded.samples.size - talk.size <= extra
    assert abs(lag_samples(decoded.samples, talk) - lag) <= 1


LOUD = ("-af", "volume=24dB")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, options) for name, options, _, _ in FORMATS if not name.startswith(("float", "double"))),
        ("loud.wav", LOUD),
        ("loud.mp3", (*LOUD, "-ar", "44100")),
        ("24-bit.wav", ("-c:a", "pcm_s24le")),
        ("32-bit.wav", (*LOUD, "-c:a", "pcm_s32le")),
    ],
)
async def test_ffmpeg_rounds_to_16_bits_as_we_do(
    media: MediaKit,
    decoder: FfmpegDecoder,
    talk: Pcm,
    name: str,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = media.encode(f"rounded-{name}", talk, *options)

    rounded_by_ffmpeg = await decode_all(decoder, path)
    monkeypatch.setattr("worker.adapters.audio.command.are_floats", lambda _: True)
    rounded_by_us = await decode_all(decoder, path)

    assert np.array_equal(rounded_by_ffmpeg.samples, rounded_by_us.samples)


async def test_16_bit_samples_at_16_khz_come_through_bit_for_bit(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    path = media.encode("same.flac", talk)

    decoded = await decode_all(decoder, path)

    assert np.array_equal(decoded.samples, talk)


async def test_the_index_of_an_mp4_may_be_at_its_end(media: MediaKit, decoder: FfmpegDecoder, talk: Pcm) -> None:
    path = media.encode("indexlast.m4a", talk, "-c:a", "aac")

    decoded = await decode_all(decoder, path)

    content = path.read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    assert lag_samples(decoded.samples, talk) == 0


@pytest.mark.parametrize("codecs", [("v.mp4", "libx264", "aac"), ("v.webm", "libvpx", "libopus")])
async def test_audio_that_starts_after_the_video_is_timed_from_the_start_of_the_file(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, codecs: tuple[str, str, str]
) -> None:
    name, video, audio = codecs
    picture = ("-f", "lavfi", "-i", "testsrc=duration=4:size=64x48:rate=10")
    late = ("-af", "asetpts=PTS+1/TB")
    path = media.encode(name, talk, *late, "-c:v", video, "-c:a", audio, before=picture)

    decoded = await decode_all(decoder, path)

    late_seconds = lag_samples(decoded.samples, talk) / SAMPLE_RATE_HZ
    assert late_seconds == pytest.approx(1.0, abs=0.01)
    assert not decoded.samples[: SAMPLE_RATE_HZ * 9 // 10].any()
    assert not decoded.truncated


async def test_a_gap_in_the_audio_is_silence_so_that_times_stay_true(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    gap = "asetpts='if(gte(T,1.5),PTS+2/TB,PTS)'"
    path = media.encode("gap.mkv", talk, "-af", gap, "-c:a", "flac")

    decoded = await decode_all(decoder, path)

    silent = np.flatnonzero(np.convolve(np.abs(decoded.samples.astype(int)), np.ones(1600), "valid") == 0)
    later = decoded.samples[silent[-1] + 1600 :]
    assert lag_samples(later, talk[-later.size :]) == 0
    assert decoded.samples.size == pytest.approx(5 * SAMPLE_RATE_HZ, abs=16)
    assert not decoded.truncated


@pytest.mark.parametrize("name", ["art.mp3", "art.m4a"])
async def test_album_art_is_no_problem(media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str) -> None:
    cover = ("-f", "lavfi", "-i", "color=red:size=64x64:duration=1:rate=1")
    maps = ("-map", "1:a", "-map", "0:v", "-c:v", "mjpeg", "-frames:v", "1", "-disposition:v", "attached_pic")
    path = media.encode(name, talk, *maps, before=cover)

    decoded = await decode_all(decoder, path)

    assert lag_samples(decoded.samples, talk) == 0
    assert not decoded.truncated


async def test_the_first_of_several_audio_tracks_is_taken(media: MediaKit, decoder: FfmpegDecoder, talk: Pcm) -> None:
    other = ("-f", "lavfi", "-i", "sine=frequency=440:duration=3")
    path = media.encode("two.mkv", talk, "-map", "1:a", "-map", "0:a", "-c:a", "flac", before=other)

    decoded = await decode_all(decoder, path)

    assert np.array_equal(decoded.samples, talk)


async def test_a_down_mix_of_full_scale_channels_does_not_clip(media: MediaKit, decoder: FfmpegDecoder) -> None:
    loud = np.full(16_000, 32_000, np.int16)
    path = media.write("loud-stereo.wav", riff_wav(np.repeat(loud, 2).tobytes(), channels=2))

    decoded = await decode_all(decoder, path)

    assert np.abs(decoded.samples.astype(int) - 32_000).max() <= 1


async def test_a_tenth_of_a_second_is_enough(media: MediaKit, decoder: FfmpegDecoder, talk: Pcm) -> None:
    path = media.encode("tenth.mp3", talk[:1600], "-ar", "8000", "-b:a", "32k")

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size == 1600


async def test_silence_stays_silence(media: MediaKit, decoder: FfmpegDecoder) -> None:
    path = media.encode("silence.mp3", np.zeros(32_000, np.int16), "-ar", "8000", "-b:a", "32k")

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size == 32_000
    assert not decoded.samples.any()


PROBES = [
    ("pipeline.mp3", ("-ar", "8000", "-b:a", "32k"), "mp3", 8_000, 1),
    ("a.opus", ("-c:a", "libopus"), "opus", 48_000, 1),
    ("surround.wav", ("-ac", "6"), "pcm_s16le", 16_000, 6),
    ("stereo.mp3", ("-ar", "48000", "-ac", "2", "-b:a", "128k"), "mp3", 48_000, 2),
]


@pytest.mark.parametrize(("name", "options", "codec", "rate", "channels"), PROBES, ids=[case[0] for case in PROBES])
async def test_a_probe_returns_the_facts_of_the_headers(
    media: MediaKit,
    decoder: FfmpegDecoder,
    talk: Pcm,
    name: str,
    options: tuple[str, ...],
    codec: str,
    rate: int,
    channels: int,
) -> None:
    path = media.encode(name, talk, *options)

    facts = await decoder.probe(path)

    assert (facts.codec, facts.sample_rate_hz, facts.channels) == (codec, rate, channels)
    assert facts.duration_seconds == pytest.approx(3.0, abs=0.3)
