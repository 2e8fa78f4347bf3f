"""Channels that cancel each other, so that their mean is silence; and channels that are decoded alone."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, babble, riff_wav
from tests.support.audio.pieces import JOINTS, Joint, Piece, likeness
from worker.adapters.audio import FfmpegDecoder, Limits
from worker.adapters.audio.mixes import Chooser
from worker.errors import AudioUndecodable
from worker.ports import SAMPLE_RATE_HZ, Pcm

CANCELLING = [
    (1, -1),
    (1, -0.95),
    (-0.97, 1),
    (1, -1, 0, 0),
    (0, 0, 1, -1),
    (1, 1, -1, -1),
    (1, -1, 1, -1),
    (0.5, -1, 0.5),
    (1, -1, 1, 0, 0, -1),
    (1, 1, -1, -1, 0, 0, 1, -1),
    (1, -1) * 8,
    (1, -1) * 16,
    (1,) * 16 + (-1,) * 16,
    (0,) * 5 + (1,) + (0,) * 20 + (-1,) + (0,) * 5,
]


def wav_of(samples: Pcm, gains: Sequence[float]) -> bytes:
    channels = np.outer(samples.astype(float), gains).round().astype("<i2")
    return riff_wav(channels.tobytes(), channels=len(gains))


@pytest.mark.parametrize("gains", CANCELLING, ids=lambda gains: f"{len(gains)}-{gains[:4]}".replace(" ", ""))
async def test_speech_in_opposite_phase_is_decoded(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, gains: tuple[float, ...]
) -> None:
    path = media.write(f"cancel-{hash(gains)}.wav", wav_of(talk, gains))

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size == talk.size
    assert likeness(decoded.samples, talk, 0.0) > 0.98
    assert np.abs(decoded.samples.astype(int)).max() > 100


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.mp3", ("-b:a", "128k", "-joint_stereo", "0")),
        ("x.flac", ()),
        ("x.opus", ("-c:a", "libopus")),
        ("x.m4a", ("-c:a", "aac")),
        ("x.mkv", ("-c:a", "ac3", "-ar", "48000")),
        ("x.ts", ("-c:a", "mp2", "-ar", "48000")),
    ],
)
async def test_one_swapped_wire_is_no_silence_in_any_codec(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    path = media.encode(name, talk, "-af", "pan=stereo|c0=c0|c1=-1*c0", *options)

    decoded = await decode_all(decoder, path)

    assert float(np.std(decoded.samples.astype(float))) > 0.3 * float(np.std(talk.astype(float)))


async def test_only_the_stretch_that_cancels_is_replaced(media: MediaKit, decoder: FfmpegDecoder) -> None:
    talk = babble(8.0)
    sign = np.ones(talk.size)
    sign[3 * SAMPLE_RATE_HZ : 5 * SAMPLE_RATE_HZ] = -1
    both = np.stack([talk, talk * sign], axis=1).astype("<i2")
    path = media.write("partly.wav", riff_wav(both.tobytes(), channels=2))

    decoded = await decode_all(decoder, path)

    assert np.array_equal(decoded.samples, talk)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(
    ("gains", "cancels"), [((1, 0.5), False), ((1, 0), False), ((1, -0.9), True), ((-0.96, 1), True)]
)
async def test_a_wav_is_read_once_for_its_mean_and_again_where_its_channels_cancel(
    media: MediaKit, rate: int, gains: tuple[float, float], cancels: bool
) -> None:
    talk = babble(13.1, seed=6)
    second = np.where(np.arange(talk.size) // (5 * SAMPLE_RATE_HZ) == 1, gains[1], 0.7)
    both = np.stack([talk * gains[0], talk * second], axis=1).astype("<i2")
    source = media.write("both.wav", riff_wav(both.tobytes(), channels=2))
    path = media.encode(f"mean-{rate}-{hash(gains)}.wav", talk, "-i", str(source), "-map", "1:a", "-ar", str(rate))
    decoders = [
        FfmpegDecoder(
            ffmpeg=media.ffmpeg, limits=Limits(max_seconds=60), one_thread=one_thread, parts=parts, part_seconds=2
        )
        for one_thread, parts in ((True, 1), (False, 1), (True, 3))
    ]

    with capture_logs() as logged:
        one = await decode_all(decoders[0], path)
    several, parts = [(await decode_all(decoder, path)).samples for decoder in decoders[1:]]

    assert np.array_equal(one.samples, several)
    assert np.array_equal(one.samples, parts)
    assert [entry["event"] for entry in logged] == ["audio.several_threads"] * (cancels and rate % 4 == 0)


@pytest.mark.parametrize("count", [65, 255, 32_767])
async def test_more_channels_than_can_be_mixed_are_refused(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, count: int
) -> None:
    path = media.write("many.wav", wav_of(talk[:100], (1.0,) * count))

    with pytest.raises(AudioUndecodable, match="channels"):
        await decode_all(decoder, path)


@pytest.mark.parametrize("layout", ["5.1", "7.1", "quad", "3.0"])
async def test_ordinary_surround_keeps_its_down_mix(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, layout: str
) -> None:
    path = media.encode(f"surround-{layout}.wav", talk, "-af", f"aformat=channel_layouts={layout}")

    decoded = await decode_all(decoder, path)

    assert likeness(decoded.samples, talk, 0.0) > 0.999


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.floats(-1, 1), right=st.floats(-1, 1))
async def test_stereo_that_does_not_cancel_is_its_mean(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, left: float, right: float
) -> None:
    path = media.write("stereo.wav", wav_of(talk, (left, right)))
    mean = (left + right) / 2

    decoded = await decode_all(decoder, path)

    if abs(mean) > 0.2 * max(abs(left), abs(right)):
        assert np.abs(decoded.samples - talk * mean).max() <= 1.5


@given(lengths=st.lists(st.integers(1, 40_000), min_size=1, max_size=6))
def test_the_choice_does_not_depend_on_how_the_samples_arrive(lengths: list[int]) -> None:
    rng = np.random.default_rng(sum(lengths))
    both = rng.integers(-9000, 9000, (sum(lengths), 2)).astype(np.int16)
    both[:, 0] //= 1 + (np.arange(len(both)) // 9000 % 2 * 400).astype(np.int16)

    at_once = _chosen([both])
    in_pieces = _chosen(np.split(both, np.cumsum(lengths)[:-1]))

    assert np.array_equal(at_once, in_pieces)


def _chosen(pieces: Sequence[Pcm]) -> Pcm:
    chooser = Chooser()
    take: Callable[[Pcm], list[Pcm]] = lambda piece: list(chooser.push(piece))  # noqa: E731
    return np.concatenate([each for piece in pieces for each in take(piece)] + list(chooser.finish()))


BOTH_WAYS = ("-filter_complex", "[0:a]asplit[a][b];[b]areverse[c];[a][c]amerge=inputs=2")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.wav", ()),
        ("x.mp3", ("-b:a", "128k", "-ar", "44100", "-joint_stereo", "0")),
        ("x.flac", ()),
        ("x.opus", ("-c:a", "libopus", "-b:a", "128k")),
        ("x.m4a", ("-c:a", "aac", "-b:a", "128k")),
        ("x.mkv", ("-c:a", "ac3", "-ar", "48000")),
        ("x.ts", ("-c:a", "mp2", "-ar", "48000", "-b:a", "256k")),
    ],
)
@pytest.mark.parametrize("one_thread", [True, False])
async def test_a_channel_alone_is_that_channel_in_any_codec(
    media: MediaKit, talk: Pcm, name: str, options: tuple[str, ...], one_thread: bool
) -> None:
    path = media.encode(name, talk, *BOTH_WAYS, *options)
    decoder = FfmpegDecoder(ffmpeg=media.ffmpeg, limits=Limits(max_seconds=60), one_thread=one_thread)

    mix = await decode_all(decoder, path)
    forwards, backwards = [(await decode_all(decoder, path, channel=number)).samples for number in (0, 1)]

    assert forwards.size == backwards.size == mix.samples.size
    assert likeness(forwards, talk, 0.0) > 0.95
    assert likeness(backwards, talk[::-1], 0.0) > 0.95


@pytest.mark.parametrize("joint", [joint for joint in JOINTS if 2 in joint.channels and 1 in joint.channels], ids=str)
async def test_where_a_file_turns_mono_its_second_channel_is_silent_and_its_first_goes_on(
    media: MediaKit, decoder: FfmpegDecoder, joint: Joint
) -> None:
    rate = joint.rates[-1]
    path = joint.write(media, [Piece(seconds=4, rate=rate, channels=count, seed=70 + count) for count in (2, 1)])

    mix = await decode_all(decoder, path)
    first, second = [(await decode_all(decoder, path, channel=number)).samples for number in (0, 1)]

    assert first.size == second.size == mix.samples.size
    assert likeness(first, mix.samples, 0.0) > 0.97
    assert np.abs(second[: 3 * SAMPLE_RATE_HZ].astype(int)).max() > 1000
    assert np.abs(second[5 * SAMPLE_RATE_HZ : 7 * SAMPLE_RATE_HZ].astype(int)).max() < 50


async def test_a_channel_alone_in_parts_joins_to_its_serial_decode(media: MediaKit) -> None:
    path = media.encode("long.flac", babble(60.0, seed=5), *BOTH_WAYS)
    limits = Limits(max_seconds=600)

    for number in (0, 1):
        serial = await decode_all(FfmpegDecoder(ffmpeg=media.ffmpeg, limits=limits), path, channel=number)
        parted = await decode_all(
            FfmpegDecoder(ffmpeg=media.ffmpeg, limits=limits, parts=3, part_seconds=10), path, channel=number
        )
        assert np.array_equal(serial.samples, parted.samples)


async def test_channels_of_opposite_phase_are_each_decoded_as_they_are(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    path = media.write("opposite.wav", wav_of(talk, (1, -1)))

    left, right = [(await decode_all(decoder, path, channel=number)).samples for number in (0, 1)]

    assert np.array_equal(left, talk)
    assert np.array_equal(right, -talk)
