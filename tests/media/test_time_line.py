"""The time line of a file is kept: nothing is dropped, repeated or shifted, whatever changes inside."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, babble
from tests.support.audio.pieces import JOINTS, Joint, Piece, lateness, likeness, starts
from worker.adapters.audio import FfmpegDecoder, Limits
from worker.errors import AudioTooLong
from worker.ports import SAMPLE_RATE_HZ, Pcm

DELAY_SECONDS = 0.15
"""Tolerance for encoder delays that the format does not state; MP3 at 8 kHz has the longest."""
SECONDS = 2.5


def random_pieces(joint: Joint, count: int, seed: int) -> list[Piece]:
    """No two neighbours are alike where the joint allows it."""
    rng = random.Random(seed)
    formats: list[tuple[int, int]] = []
    while len(formats) < count:
        found = (rng.choice(joint.rates), rng.choice(joint.channels))
        if not formats or found != formats[-1]:
            formats.append(found)
    return [
        Piece(seconds=SECONDS, rate=rate, channels=channels, seed=10 * seed + number)
        for number, (rate, channels) in enumerate(formats)
    ]


@pytest.mark.parametrize("joint", JOINTS, ids=str)
@pytest.mark.parametrize(("count", "seed"), [(2, 1), (2, 2), (4, 3)])
async def test_a_change_of_rate_or_channels_inside_a_file_loses_nothing(
    media: MediaKit, decoder: FfmpegDecoder, joint: Joint, count: int, seed: int
) -> None:
    pieces = random_pieces(joint, count, seed)
    path = joint.write(media, pieces)

    decoded = await decode_all(decoder, path)

    late = [lateness(decoded.samples, piece.samples, at) for piece, at in zip(pieces, starts(pieces), strict=True)]
    assert all(-0.01 < each < DELAY_SECONDS * (number + 1) for number, each in enumerate(late)), late
    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(count * SECONDS, abs=DELAY_SECONDS * count)
    assert not decoded.truncated


async def test_the_samples_before_a_change_are_those_of_the_piece_alone(
    media: MediaKit, decoder: FfmpegDecoder
) -> None:
    pieces = [Piece(seconds=5, rate=44_100, channels=number % 2 + 1, seed=number) for number in range(3)]
    joint = JOINTS[2]
    alone = await decode_all(decoder, joint.write(media, pieces[:1]))

    joined = await decode_all(decoder, joint.write(media, pieces))

    surely = 4 * SAMPLE_RATE_HZ
    assert np.array_equal(joined.samples[:surely], alone.samples[:surely])


async def test_a_file_that_changes_a_thousand_times_is_decoded_whole(media: MediaKit) -> None:
    one, two = (Piece(seconds=0.1, rate=44_100, channels=channels, seed=channels) for channels in (1, 2))
    joint = JOINTS[2]
    both = joint.write(media, [one, two]).read_bytes()
    path = media.write("thousand.aac", both * 500)
    each = (await decode_all(FfmpegDecoder(ffmpeg=media.ffmpeg, limits=Limits(max_seconds=600)), path)).samples.size

    seconds = 500 * 2 * 0.1 * SAMPLE_RATE_HZ
    assert each >= seconds  # each piece ends with the padding of its last frame


async def test_an_ogg_chain_of_many_links_is_decoded_whole(media: MediaKit, decoder: FfmpegDecoder) -> None:
    pieces = [Piece(seconds=0.5, rate=48_000, channels=number % 2 + 1, seed=number) for number in range(20)]

    decoded = await decode_all(decoder, JOINTS[5].write(media, pieces))

    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(10.0, abs=0.1)
    assert not decoded.truncated


# --- gaps -------------------------------------------------------------------------------------------------------------

WITH_GAPS = [
    ("gap.mkv", ("-c:a", "flac")),
    ("gap-ac3.mkv", ("-c:a", "ac3", "-ar", "48000")),
    ("gap.webm", ("-c:a", "libopus")),
    ("gap-vorbis.webm", ("-c:a", "libvorbis")),
    ("gap.mp4", ("-c:a", "aac")),
    ("gap.m4a", ("-c:a", "alac")),
    ("gap.opus", ("-c:a", "libopus")),
    ("gap.ogg", ("-c:a", "libvorbis")),
    ("gap.ts", ("-c:a", "aac")),
    ("gap-mp2.ts", ("-c:a", "mp2")),
    ("gap.flv", ("-c:a", "aac", "-ar", "44100")),
    ("gap.wma", ("-c:a", "wmav2")),
]


QUIET_PEAK = 50


def with_gap(seconds: float) -> tuple[str, ...]:
    return ("-af", f"asetpts='if(gte(T,1.5),PTS+{seconds}/TB,PTS)'")


@pytest.mark.parametrize("seconds", [0.4, 15.0])
@pytest.mark.parametrize(("name", "options"), WITH_GAPS, ids=[case[0] for case in WITH_GAPS])
async def test_a_gap_of_any_length_is_silence_in_every_container_that_can_state_it(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...], seconds: float
) -> None:
    path = media.encode(name, talk, *with_gap(seconds), *options)

    decoded = await decode_all(decoder, path)

    last = talk[2 * SAMPLE_RATE_HZ :]
    assert lateness(decoded.samples, last, 2.0 + seconds) == pytest.approx(0, abs=0.08)
    assert likeness(decoded.samples, talk[:SAMPLE_RATE_HZ], lateness(decoded.samples, talk[:SAMPLE_RATE_HZ], 0)) > 0.9
    inside = slice(round(1.8 * SAMPLE_RATE_HZ), round((0.3 + seconds) * SAMPLE_RATE_HZ))  # a page of Ogg is 1 s
    assert np.abs(decoded.samples[inside]).max(initial=0) < QUIET_PEAK
    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(3.0 + seconds, abs=0.1)
    assert not decoded.truncated


@pytest.mark.parametrize("name", ["gap.mkv", "gap.mp4", "gap.opus"])
async def test_a_gap_of_hours_takes_no_memory(media: MediaKit, talk: Pcm, name: str) -> None:
    path = media.encode(name, talk, *with_gap(2 * 3600), *dict(WITH_GAPS)[name])
    decoder = FfmpegDecoder(ffmpeg=media.ffmpeg, limits=Limits(max_seconds=3 * 3600, memory_bytes=200 << 20))
    last = np.zeros(0, np.int16)
    count = 0

    async with decoder.decode(path) as stream:
        async for block in stream:
            count += block.size
            last = np.concatenate([last, block])[-10 * SAMPLE_RATE_HZ :]

    assert count / SAMPLE_RATE_HZ == pytest.approx(3 + 2 * 3600, abs=0.2)
    assert lateness(last, talk[2 * SAMPLE_RATE_HZ :], 9 - (count / SAMPLE_RATE_HZ - 7203)) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("name", "hours"),
    [("gap.mkv", 13), ("gap.mkv", 100), ("gap.mkv", 400), ("gap.opus", 13), ("gap.opus", 100), ("gap.mp4", 13)],
)
async def test_a_gap_beyond_the_longest_audio_is_too_long_before_it_is_filled(
    media: MediaKit, talk: Pcm, name: str, hours: int
) -> None:
    path = media.encode(name, talk, *with_gap(hours * 3600), *dict(WITH_GAPS)[name])
    decoder = FfmpegDecoder(ffmpeg=media.ffmpeg, limits=Limits(max_seconds=12 * 3600))

    with pytest.raises(AudioTooLong) as raised:
        await decode_all(decoder, path)

    assert raised.value.seconds > hours * 3600 - 1


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    joint=st.sampled_from([joint for joint in JOINTS if joint.copied_to is None and joint.suffix != ".ts"]),
    count=st.integers(2, 4),
    seed=st.integers(0, 1000),
)
async def test_random_pieces_joined_come_out_in_order_and_in_time(
    media: MediaKit, decoder: FfmpegDecoder, joint: Joint, count: int, seed: int
) -> None:
    pieces = random_pieces(joint, count, seed)

    decoded = await decode_all(decoder, joint.write(media, pieces))

    for number, (piece, at) in enumerate(zip(pieces, starts(pieces), strict=True)):
        late = lateness(decoded.samples, piece.samples, at)
        assert -0.01 < late < DELAY_SECONDS * (number + 1)
        assert likeness(decoded.samples, piece.samples, at + late) > 0.6


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(WITH_GAPS),
    seconds=st.floats(0.2, 45),
    channels=st.sampled_from([1, 2]),
    seed=st.integers(0, 100),
)
async def test_a_random_gap_is_where_it_was_put(
    media: MediaKit,
    decoder: FfmpegDecoder,
    kind: tuple[str, tuple[str, ...]],
    seconds: float,
    channels: int,
    seed: int,
) -> None:
    name, options = kind
    talk = babble(3.0, seed)
    path = media.encode(name, talk, *with_gap(round(seconds, 3)), "-ac", str(channels), *options)

    decoded = await decode_all(decoder, path)

    last = talk[2 * SAMPLE_RATE_HZ :]
    assert lateness(decoded.samples, last, 2.0 + seconds) == pytest.approx(0, abs=0.1)
    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(3.0 + seconds, abs=0.12)


@pytest.mark.parametrize("codec", ["aac", "mp2", "ac3"])
@pytest.mark.parametrize("gap", [0.0, 0.7, 12.5])
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    formats=st.lists(
        st.tuples(st.sampled_from([32_000, 44_100, 48_000]), st.sampled_from([1, 2])), min_size=2, max_size=3
    ),
    seed=st.integers(0, 50),
)
async def test_pieces_of_other_formats_with_gaps_between_them_keep_their_places(
    media: MediaKit,
    decoder: FfmpegDecoder,
    codec: str,
    gap: float,
    formats: list[tuple[int, int]],
    seed: int,
) -> None:
    pieces = [
        Piece(seconds=SECONDS, rate=rate, channels=channels, seed=10 * seed + number)
        for number, (rate, channels) in enumerate(formats)
    ]
    begins = starts(pieces, gap)
    encoded = [
        media.encode("p.ts", piece.samples, *piece.options, "-c:a", codec, "-output_ts_offset", str(at)).read_bytes()
        for piece, at in zip(pieces, begins, strict=True)
    ]
    path = media.write(f"gaps-{codec}.ts", b"".join(encoded))

    decoded = await decode_all(decoder, path)

    late = [lateness(decoded.samples, piece.samples, at) for piece, at in zip(pieces, begins, strict=True)]
    assert all(abs(each) < DELAY_SECONDS for each in late), late


# --- starts -----------------------------------------------------------------------------------------------------------

PICTURE = ("-f", "lavfi", "-i", "testsrc=duration=9:size=64x48:rate=10")
LATE = [
    ("late.mp4", ("-c:v", "libx264", "-c:a", "aac")),
    ("late.mov", ("-c:v", "libx264", "-c:a", "pcm_s16le")),
    ("late.mkv", ("-c:v", "libx264", "-c:a", "aac")),
    ("late-b.mkv", ("-c:v", "libx264", "-bf", "3", "-c:a", "libopus")),
    ("late.webm", ("-c:v", "libvpx", "-c:a", "libopus")),
    ("late.ts", ("-c:v", "mpeg2video", "-c:a", "mp2")),
    ("late-264.ts", ("-c:v", "libx264", "-c:a", "aac")),
    ("late.flv", ("-c:v", "flv1", "-c:a", "aac", "-ar", "44100")),
]


@pytest.mark.parametrize("seconds", [0.25, 5.0])
@pytest.mark.parametrize(("name", "options"), LATE, ids=[case[0] for case in LATE])
async def test_audio_that_starts_after_the_picture_is_timed_from_the_first_picture(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...], seconds: float
) -> None:
    late = ("-af", f"asetpts=PTS+{seconds}/TB")
    path = media.encode(name, talk, *late, *options, before=PICTURE)

    decoded = await decode_all(decoder, path)

    assert lateness(decoded.samples, talk, seconds) == pytest.approx(0, abs=0.08)
    assert not decoded.samples[: round((seconds - 0.1) * SAMPLE_RATE_HZ)].any()


@pytest.mark.parametrize("offset", [0, 7, 3600, 95_000])
@pytest.mark.parametrize("name", ["start.ts", "start.mkv"])
async def test_a_clock_that_does_not_start_at_zero_means_nothing(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, offset: int
) -> None:
    path = media.encode(name, talk, "-c:a", "aac", "-output_ts_offset", str(offset))

    decoded = await decode_all(decoder, path)

    assert lateness(decoded.samples, talk, 0.0) == pytest.approx(0, abs=0.1)
    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(3.0, abs=0.1)


async def test_an_mpeg_ts_whose_clock_wraps_goes_on(media: MediaKit, decoder: FfmpegDecoder) -> None:
    talk = babble(20.0, seed=4)
    wraps_at = 2**33 / 90_000
    path = media.encode("wraps.ts", talk, "-c:a", "aac", "-output_ts_offset", f"{wraps_at - 10:.3f}")

    decoded = await decode_all(decoder, path)

    assert lateness(decoded.samples, talk[-5 * SAMPLE_RATE_HZ :], 15.0) == pytest.approx(0, abs=0.1)
    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(20.0, abs=0.1)


@pytest.mark.parametrize("jump", [-500, 500, 7_200, 80_000])
async def test_recordings_of_broadcasts_joined_with_other_clocks_follow_each_other(
    media: MediaKit, decoder: FfmpegDecoder, jump: int
) -> None:
    first, second = babble(3.0, seed=5), babble(3.0, seed=6)
    begin = 10_000
    encoded = [
        media.encode("clock.ts", samples, "-c:a", "aac", "-output_ts_offset", str(offset)).read_bytes()
        for samples, offset in ((first, begin), (second, begin + jump))
    ]
    path = media.write(f"clocks{jump}.ts", b"".join(encoded))
    kept = jump if 0 < jump <= 3600 else 3.0  # up to an hour may be missing

    if kept > 60:
        with pytest.raises(AudioTooLong):
            await decode_all(decoder, path)
        return
    decoded = await decode_all(decoder, path)

    assert lateness(decoded.samples, second, kept) == pytest.approx(0, abs=0.15)
