"""One thread of ffmpeg gives what its several threads give, or leaves the file to them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.audio.counted import UNCONFINED, CountedFfmpeg
from tests.support.audio.decoding import Decoded, decode_all
from tests.support.audio.media import MediaKit, babble
from worker.adapters.audio import FfmpegDecoder, Limits, decoder, process
from worker.adapters.audio.command import Way, decode_arguments
from worker.adapters.audio.report import Report
from worker.errors import AudioUndecodable, EngineFailure
from worker.ports import SAMPLE_RATE_HZ, Pcm

LIMITS = Limits(max_seconds=600)
SECONDS = 61.3
CD_STEREO = ("-ar", "44100", "-ac", "2")
PLAIN = [
    ("pipeline.mp3", ("-ar", "8000", "-b:a", "32k")),
    ("cd.mp3", (*CD_STEREO, "-b:a", "128k")),
    ("without-a-header.mp3", ("-ar", "48000", "-b:a", "64k", "-write_xing", "0")),
    ("mono.flac", ()),
    ("cd.flac", CD_STEREO),
    ("deep.flac", ("-ar", "48000", "-sample_fmt", "s32")),
    ("mono.wav", ()),
    ("cd.wav", CD_STEREO),
    ("cd.m4a", (*CD_STEREO, "-c:a", "aac")),
    ("mono.m4a", ("-ar", "48000", "-c:a", "aac")),
    ("lossless.m4a", (*CD_STEREO, "-c:a", "alac")),
    ("mono.opus", ("-c:a", "libopus")),
    ("stereo.opus", ("-ac", "2", "-c:a", "libopus")),
    ("vorbis.ogg", (*CD_STEREO, "-c:a", "libvorbis")),
    ("flac.oga", ("-c:a", "flac")),
    ("stereo.webm", ("-ac", "2", "-c:a", "libopus")),
    ("aac.mka", (*CD_STEREO, "-c:a", "aac")),
    ("pcm.mka", (*CD_STEREO, "-c:a", "pcm_s16le")),
    ("frames.aac", (*CD_STEREO, "-c:a", "aac")),
]
OTHER = [
    ("surround.flac", ("-ac", "6")),
    ("float.wav", ("-c:a", "pcm_f32le")),
    ("telephone.wav", ("-ar", "8000", "-c:a", "pcm_mulaw")),
    ("apple.caf", ("-c:a", "pcm_s16le")),
    ("broadcast.ts", ("-c:a", "aac")),
]
HURT = ["pipeline.mp3", "cd.mp3", "cd.flac", "cd.wav", "cd.m4a", "lossless.m4a", "mono.opus", "vorbis.ogg", "pcm.mka"]


@pytest.fixture(scope="session")
def minute() -> Pcm:
    return babble(SECONDS, seed=4)


@pytest.fixture
def counted(media: MediaKit, tmp_path: Path) -> CountedFfmpeg:
    return CountedFfmpeg(folder=tmp_path, ffmpeg=media.ffmpeg, words=("amovie=",))


def require_equal(one: Decoded, several: Decoded) -> None:
    assert np.array_equal(one.samples, several.samples)
    assert one.truncated == several.truncated


@pytest.mark.parametrize(("name", "options"), PLAIN, ids=[case[0] for case in PLAIN])
async def test_one_thread_gives_the_same_samples(
    media: MediaKit, counted: CountedFfmpeg, minute: Pcm, name: str, options: tuple[str, ...]
) -> None:
    path = media.encode(name, minute, *options)

    with capture_logs() as logged:
        one = await decode_all(FfmpegDecoder(ffmpeg=counted.path, limits=LIMITS, kernel=UNCONFINED), path)
    several = await decode_all(FfmpegDecoder(ffmpeg=media.ffmpeg, limits=LIMITS, one_thread=False), path)

    require_equal(one, several)
    assert counted.starts == 1
    assert logged == []
    assert one.samples.size / SAMPLE_RATE_HZ == pytest.approx(SECONDS, abs=0.2)
    assert not one.truncated


@pytest.mark.parametrize(("name", "options"), OTHER, ids=[case[0] for case in OTHER])
async def test_what_one_thread_may_not_read_is_left_to_several(
    media: MediaKit, counted: CountedFfmpeg, minute: Pcm, name: str, options: tuple[str, ...]
) -> None:
    path = media.encode(name, minute, *options)

    decoded = await decode_all(FfmpegDecoder(ffmpeg=counted.path, limits=LIMITS, kernel=UNCONFINED), path)

    assert counted.starts == 0
    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(SECONDS, abs=0.2)


async def test_a_file_whose_samples_come_late_is_left_to_several_threads_and_loses_none(
    media: MediaKit, minute: Pcm, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.encode("late.m4a", minute, "-c:a", "aac")
    several = await decode_all(FfmpegDecoder(ffmpeg=media.ffmpeg, limits=LIMITS, one_thread=False), path)
    monkeypatch.setattr(decoder, "_MOST_SECONDS_TO_FIRST_SAMPLES", 0.0)

    late = await decode_all(FfmpegDecoder(ffmpeg=media.ffmpeg, limits=LIMITS), path)

    require_equal(late, several)


@pytest.mark.parametrize("name", HURT)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0.02, 0.999),
    taken=st.integers(0, 3000),
    put=st.integers(0, 3000),
    cut=st.booleans(),
    seed=st.integers(0, 9),
)
async def test_damage_anywhere_leaves_samples_and_verdict_the_same(
    media: MediaKit, minute: Pcm, name: str, place: float, taken: int, put: int, cut: bool, seed: int
) -> None:
    content = media.encode(name, minute, *dict(PLAIN)[name]).read_bytes()
    at = int(len(content) * place)
    rest = b"" if cut else np.random.default_rng(seed).bytes(put) + content[at + taken :]
    path = media.write(f"hurt-{name}", content[:at] + rest)
    one, several = (FfmpegDecoder(ffmpeg=media.ffmpeg, limits=LIMITS, one_thread=one) for one in (True, False))
    try:
        expected = await decode_all(several, path)
    except AudioUndecodable:
        with pytest.raises(AudioUndecodable):
            await decode_all(one, path)
        return

    require_equal(await decode_all(one, path), expected)


async def test_a_codec_that_is_not_allowed_reaches_no_graph_whatever_a_tag_says(
    media: MediaKit, counted: CountedFfmpeg, minute: Pcm
) -> None:
    forged = "title=x\n[info]   Stream #0:0: Audio: aac, 44100 Hz, mono, s16\n[info] Stream mapping:"
    path = media.encode("forbidden.mka", minute, "-c:a", "wavpack", "-metadata", forged)

    with pytest.raises(AudioUndecodable):
        await decode_all(FfmpegDecoder(ffmpeg=counted.path, limits=LIMITS, kernel=UNCONFINED), path)

    assert counted.starts == 0


BY_FFMPEG = ["cd.m4a", "mono.opus", "vorbis.ogg", "stereo.webm", "frames.aac"]


@pytest.mark.parametrize("name", BY_FFMPEG)
async def test_a_file_that_ffmpeg_has_probed_is_decoded_by_one_more_start(
    media: MediaKit, tmp_path: Path, talk: Pcm, name: str
) -> None:
    every = CountedFfmpeg(folder=tmp_path, ffmpeg=media.ffmpeg, words=("-i",))
    decoder = FfmpegDecoder(ffmpeg=every.path, limits=LIMITS, kernel=UNCONFINED)
    path = media.encode(name, talk, *dict(PLAIN)[name])

    await decoder.probe(path)
    decoded = await decode_all(decoder, path)

    assert every.starts == 2
    require_equal(decoded, await decode_all(FfmpegDecoder(ffmpeg=media.ffmpeg, limits=LIMITS), path))


async def test_what_a_probe_proved_does_not_hold_for_another_file_of_that_name(
    media: MediaKit, counted: CountedFfmpeg, talk: Pcm, tmp_path: Path
) -> None:
    decoder = FfmpegDecoder(ffmpeg=counted.path, limits=LIMITS, kernel=UNCONFINED)
    path = tmp_path / "audio"
    path.write_bytes(media.encode("aac.mka", talk, "-c:a", "aac").read_bytes())
    await decoder.probe(path)
    path.write_bytes(media.encode("forbidden.mka", talk, "-c:a", "wavpack").read_bytes())

    with pytest.raises(AudioUndecodable):
        await decoder.probe(path)
    with pytest.raises(AudioUndecodable):
        await decode_all(decoder, path)

    assert counted.starts == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"channels": 6},
        {"channels": None},
        {"ignores_wav_size": True},
    ],
)
def test_only_a_plain_file_is_read_by_one_thread(changed: dict[str, object]) -> None:
    report = Report("fd:")
    report.container, report.duration_seconds = "flac", 100.0
    report.feed("[info]   Stream #0:0: Audio: flac, 44100 Hz, stereo, s16")
    plain = Way(channels=2)

    assert plain.is_plain(report)
    assert not dataclasses.replace(plain, **changed).is_plain(report)


def test_the_graph_may_read_the_same_containers_and_codecs_as_ffmpeg_itself() -> None:
    arguments = decode_arguments(Path("talk.mp3"), Way(read_as="mp3"))

    graph = arguments[arguments.index("-filter_complex") + 1]
    assert "format_whitelist=mp3" in graph
    assert f"codec_whitelist={arguments[arguments.index('-codec_whitelist') + 1]}" in graph


def test_the_status_that_a_signal_leaves_is_an_error_where_one_was_reported() -> None:
    report = Report("fd:")
    with pytest.raises(EngineFailure):
        process.raise_for_end(255, LIMITS, report)
    report.feed("[error] Task finished with error code: -1")

    process.raise_for_end(255, LIMITS, report)
    process.raise_for_end(1, LIMITS)
    with pytest.raises(EngineFailure):
        process.raise_for_end(255, LIMITS)
