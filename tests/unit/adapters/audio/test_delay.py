"""The delay of encoders that their formats do not state: cut off where it is silence, and only there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, babble, lag_samples
from worker.adapters.audio import FfmpegDecoder
from worker.adapters.audio.delay import Trimmer
from worker.ports import SAMPLE_RATE_HZ, Pcm

HEADERLESS = ("-write_xing", "0")
STARTS = [
    ("s.mp3", ("-ar", "44100", *HEADERLESS)),
    ("s8.mp3", ("-ar", "8000", "-b:a", "32k", *HEADERLESS)),
    ("s.mp2", ("-c:a", "mp2", "-ar", "48000")),
    ("s.aac", ("-c:a", "aac", "-ar", "44100")),
    ("s.ts", ("-c:a", "aac", "-ar", "48000")),
    ("s.ac3", ("-c:a", "ac3", "-ar", "48000")),
]


@pytest.mark.parametrize(("name", "options"), STARTS, ids=[case[0] for case in STARTS])
async def test_a_recording_that_begins_softly_is_in_time_without_a_header(
    media: MediaKit, decoder: FfmpegDecoder, name: str, options: tuple[str, ...]
) -> None:
    talk = babble(3.0)
    talk[: SAMPLE_RATE_HZ // 5] = 0
    path = media.encode(name, talk, *options)

    decoded = await decode_all(decoder, path)

    assert abs(lag_samples(decoded.samples, talk)) <= 2


async def test_a_stretch_cut_out_of_a_file_keeps_its_first_samples(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    content = media.encode("cut.aac", talk, "-c:a", "aac", "-ar", "44100").read_bytes()
    at = content.index(b"\xff\xf1", len(content) // 2)
    path = media.write("out-of-the-middle.aac", content[at:])
    frames = content[at:].count(b"\xff\xf1\x50")

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size >= frames * 1024 * SAMPLE_RATE_HZ // 44_100 - 16


@given(
    count=st.integers(0, 3000),
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=5),
    quiet=st.booleans(),
)
def test_the_cut_does_not_depend_on_how_the_samples_arrive(count: int, lengths: list[int], quiet: bool) -> None:
    samples = np.full(sum(lengths), 10 if quiet else 10_000, np.int16)
    trimmer = Trimmer(count)

    kept = [each for piece in np.split(samples, np.cumsum(lengths)[:-1]) for each in trimmer.push(piece)]
    kept += list(trimmer.finish())

    cut = count if quiet and samples.size > count else 0
    assert sum(len(piece) for piece in kept) == samples.size - cut
