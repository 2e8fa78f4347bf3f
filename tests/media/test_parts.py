"""Parts: whatever the file and however many there are, samples and verdict are those of the serial decode."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.audio.counted import UNCONFINED, CountedFfmpeg
from tests.support.audio.decoding import Decoded, decode_all
from tests.support.audio.media import MediaKit, babble, riff_wav
from worker.adapters.audio import FfmpegDecoder, Kernel, Limits
from worker.adapters.audio.parts import SEAM_SECONDS, Stretch, in_parts, stretches
from worker.adapters.audio.timeline import Doubt
from worker.errors import AudioUndecodable, EngineFailure
from worker.ports import SAMPLE_RATE_HZ, Pcm

SECONDS = 23.7
PART_SECONDS = 5
LIMITS = Limits(max_seconds=60)
DIVIDED = [
    ("p.wav", ()),
    ("p-cd.wav", ("-ar", "44100", "-ac", "2")),
    ("p-odd.wav", ("-ar", "37800", "-c:a", "pcm_f32le")),
    ("p.flac", ()),
    ("p-cd.flac", ("-ar", "44100", "-ac", "2")),
    ("p-cbr.mp3", ("-ar", "44100", "-ac", "2", "-b:a", "128k")),
    ("p-vbr.mp3", ("-ar", "44100", "-q:a", "4")),
    ("p-abr.mp3", ("-ar", "32000", "-abr", "1", "-b:a", "64k")),
    ("p-dense.mp3", ("-ar", "48000", "-ac", "2", "-b:a", "320k")),
]
SERIAL = [
    ("p-pipeline.mp3", ("-ar", "8000", "-b:a", "32k")),
    ("p-headerless.mp3", ("-ar", "44100", "-b:a", "64k", "-write_xing", "0")),
    ("p.m4a", ("-c:a", "aac")),
    ("p.opus", ("-c:a", "libopus")),
]


@pytest.fixture(scope="session")
def long_talk() -> Pcm:
    return babble(SECONDS, seed=2)


def decoder_in(parts: int, ffmpeg: Path, kernel: Kernel | None = None) -> FfmpegDecoder:
    return FfmpegDecoder(
        ffmpeg=ffmpeg, limits=LIMITS, parts=parts, part_seconds=PART_SECONDS, block_seconds=0.7, kernel=kernel
    )


async def both_ways(media: MediaKit, path: Path, parts: int = 3) -> tuple[Decoded, Decoded]:
    serial = FfmpegDecoder(ffmpeg=media.ffmpeg, limits=LIMITS, block_seconds=0.7)
    return await decode_all(serial, path), await decode_all(decoder_in(parts, media.ffmpeg), path)


@pytest.fixture
def counted(media: MediaKit, tmp_path: Path) -> CountedFfmpeg:
    return CountedFfmpeg(folder=tmp_path, ffmpeg=media.ffmpeg, words=(" -ss ", "seek_point="))


def require_equal(serial: Decoded, parted: Decoded) -> None:
    assert np.array_equal(parted.samples, serial.samples)
    assert parted.truncated == serial.truncated


@pytest.mark.parametrize(("name", "options"), DIVIDED, ids=[case[0] for case in DIVIDED])
@pytest.mark.parametrize("parts", [2, 3, 8])
async def test_parts_join_to_the_serial_decode_sample_for_sample(
    media: MediaKit, long_talk: Pcm, name: str, options: tuple[str, ...], parts: int
) -> None:
    path = media.encode(name, long_talk, *options)

    with capture_logs() as logged:
        serial, parted = await both_ways(media, path, parts)

    require_equal(serial, parted)
    assert serial.samples.size == long_talk.size
    assert logged == []


@pytest.mark.parametrize(("name", "options"), DIVIDED, ids=[case[0] for case in DIVIDED])
async def test_a_long_file_of_a_kind_that_allows_it_is_decoded_in_parts(
    media: MediaKit, counted: CountedFfmpeg, long_talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    path = media.encode(name, long_talk, *options)

    await decode_all(decoder_in(3, counted.path, UNCONFINED), path)

    assert counted.starts == int(SECONDS / PART_SECONDS) - 1


@pytest.mark.parametrize(("name", "options"), SERIAL, ids=[case[0] for case in SERIAL])
async def test_a_file_whose_parts_could_differ_or_would_not_pay_is_decoded_by_one_process(
    media: MediaKit, counted: CountedFfmpeg, long_talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    path = media.encode(name, long_talk, *options)

    await decode_all(decoder_in(3, counted.path, UNCONFINED), path)

    assert counted.starts == 0


@pytest.mark.parametrize("name", ["p-cd.wav", "p.flac", "p-cbr.mp3", "p-vbr.mp3"])
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0.02, 0.99),
    taken=st.integers(0, 3000),
    put=st.integers(0, 3000),
    cut=st.booleans(),
    seed=st.integers(0, 9),
)
async def test_damage_anywhere_changes_parts_and_serial_decode_alike(
    media: MediaKit, long_talk: Pcm, name: str, place: float, taken: int, put: int, cut: bool, seed: int
) -> None:
    content = media.encode(name, long_talk, *dict(DIVIDED)[name]).read_bytes()
    at = int(len(content) * place)
    rest = b"" if cut else np.random.default_rng(seed).bytes(put) + content[at + taken :]
    path = media.write(f"hurt-{name}", content[:at] + rest)
    try:
        await decode_all(decoder_in(1, media.ffmpeg), path)
    except AudioUndecodable:  # not one frame is left
        with pytest.raises(AudioUndecodable):
            await decode_all(decoder_in(3, media.ffmpeg), path)
        return

    serial, parted = await both_ways(media, path)

    require_equal(serial, parted)


async def test_a_seam_in_silence_proves_nothing_so_the_rest_is_serial(media: MediaKit) -> None:
    talk = babble(SECONDS)
    talk[4 * SAMPLE_RATE_HZ : 7 * SAMPLE_RATE_HZ] = 0
    path = media.encode("p-still.mp3", talk, "-ar", "44100", "-b:a", "64k")

    with capture_logs() as logged:
        serial, parted = await both_ways(media, path)

    require_equal(serial, parted)
    assert logged == [{"event": "audio.undivided", "from_second": PART_SECONDS, "log_level": "info"}]


async def test_leaving_early_leaves_no_process(media: MediaKit, long_talk: Pcm) -> None:
    before = set(psutil.Process().children())
    path = media.encode("p.wav", long_talk)

    async with decoder_in(3, media.ffmpeg).decode(path) as stream:
        await anext(aiter(stream))

    assert set(psutil.Process().children()) <= before


async def test_a_wav_that_is_longer_than_its_header_states_ends_where_the_serial_decode_ends(
    media: MediaKit, long_talk: Pcm
) -> None:
    path = media.write("p-lies.wav", riff_wav(long_talk.tobytes(), size=2 * 12 * SAMPLE_RATE_HZ))

    serial, parted = await both_ways(media, path)

    require_equal(serial, parted)


# the arithmetic, without ffmpeg


class Tape:
    """A decode of known samples that counts how far it runs ahead, and spoils the given parts."""

    def __init__(self, samples: Pcm, *, spoilt: int | None = None, shifted: int | None = None) -> None:
        self.samples, self.spoilt, self.shifted = samples, spoilt, shifted
        self.begun: list[int] = []

    async def decode(self, stretch: Stretch, most_samples: int) -> Pcm:
        self.begun.append(stretch.begin_second)
        first = stretch.begin_second * SAMPLE_RATE_HZ
        last = None if stretch.end_second is None else stretch.end_second * SAMPLE_RATE_HZ
        number = len(self.begun) - 1
        heard = np.roll(self.samples[first:last], int(number == self.shifted))
        assert len(heard) <= most_samples
        if number == self.spoilt:
            raise Doubt
        return heard

    def blocks(self, ahead: int = 3) -> AsyncGenerator[Pcm]:
        seconds = len(self.samples) / SAMPLE_RATE_HZ
        return in_parts(seconds, self.decode, ahead=ahead, block_samples=11_000, part_seconds=PART_SECONDS)

    async def samples_before_a_doubt(self) -> int:
        count = 0
        try:
            async for block in self.blocks():
                count += block.size
        except Doubt:
            return count
        pytest.fail("no part was doubtful")


@given(seconds=st.floats(2 * PART_SECONDS, 40), part_seconds=st.integers(2 * SEAM_SECONDS, 12))
def test_stretches_tile_the_file(seconds: float, part_seconds: int) -> None:
    found = stretches(seconds, part_seconds)

    ends = [stretch.end_second for stretch in found]
    assert [stretch.begin_second for stretch in found] == [0, *ends[:-1]]
    assert ends[-1] is None
    assert found[-1].begin_second == 0 or part_seconds <= seconds - found[-1].begin_second < 2 * part_seconds


@settings(max_examples=20)
@given(samples=st.integers(10 * SAMPLE_RATE_HZ, 26 * SAMPLE_RATE_HZ), ahead=st.integers(1, 9))
async def test_blocks_are_the_file_in_order(samples: int, ahead: int) -> None:
    tape = Tape(babble(26)[:samples])

    heard = np.concatenate([block async for block in tape.blocks(ahead)])

    assert np.array_equal(heard, tape.samples)


async def test_no_more_parts_than_agreed_are_decoded_before_the_reader_wants_them() -> None:
    tape = Tape(babble(40))
    blocks = tape.blocks(ahead=2)

    await anext(blocks)
    await asyncio.sleep(0)
    begun = len(tape.begun)
    await blocks.aclose()

    assert begun == 2


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_blocks_end_before_a_part_that_ffmpeg_complained_of(number: int) -> None:
    count = await Tape(babble(21), spoilt=number).samples_before_a_doubt()

    assert count == number * PART_SECONDS * SAMPLE_RATE_HZ


@pytest.mark.parametrize("number", [1, 3])
async def test_blocks_end_before_a_part_that_is_one_sample_off(number: int) -> None:
    count = await Tape(babble(21), shifted=number).samples_before_a_doubt()

    assert count == number * PART_SECONDS * SAMPLE_RATE_HZ


async def test_an_error_of_the_machine_in_a_part_is_the_readers() -> None:
    async def killed(_stretch: Stretch, _most_samples: int) -> Pcm:
        raise EngineFailure("ffmpeg", "it was killed")

    with pytest.raises(EngineFailure):
        await anext(in_parts(21, killed, ahead=3, block_samples=11_000, part_seconds=PART_SECONDS))
