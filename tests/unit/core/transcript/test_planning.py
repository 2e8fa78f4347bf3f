from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.speech import WindowSpan
from worker.core.transcript.planning import Chunk, ChunkCutter
from worker.ports import Pcm

SECOND = 16_000


def babble(seconds: float, *, seed: int = 0, level: float = 3000) -> Pcm:
    """Noise in syllables of 0.15 s, about 4 a second, with gaps too short for a pause."""
    noise = np.random.default_rng(seed).standard_normal(int(seconds * SECOND))
    clock = np.arange(len(noise)) / SECOND
    return (noise * level * np.clip(np.sin(2 * np.pi * 4.1 * clock), 0.02, 1)).astype(np.int16)


def hush(seconds: float, *, level: float = 0, seed: int = 1) -> Pcm:
    return (np.random.default_rng(seed).standard_normal(int(seconds * SECOND)) * level).astype(np.int16)


def phrases(*speech_and_pause: tuple[float, float], noise: float = 0) -> Pcm:
    parts = [part for speech, pause in speech_and_pause for part in (babble(speech), hush(pause))]
    audio = np.concatenate(parts)
    return audio + hush(len(audio) / SECOND, level=noise)


def plan(audio: Pcm, *, chunk_seconds: float = 600, block: int = 1_000_000) -> list[Chunk]:
    cutter = ChunkCutter(chunk_seconds)
    chunks = [chunk for i in range(0, len(audio), block) for chunk in cutter.push(audio[i : i + block])]
    return [*chunks, *cutter.finish()]


def windows(audio: Pcm, **how: float) -> list[WindowSpan]:
    return [span for chunk in plan(audio, **how) for span in chunk.windows]  # type: ignore[arg-type]


def lengths(spans: list[WindowSpan]) -> list[float]:
    return [(span.end_sample - span.start_sample) / SECOND for span in spans]


def heard(audio: Pcm, spans: list[WindowSpan]) -> np.ndarray:
    inside = np.zeros(len(audio), np.bool_)
    for span in spans:
        inside[span.start_sample : span.end_sample] = True
    return inside


def test_short_speech_is_one_window() -> None:
    assert windows(babble(8)) == [WindowSpan(0, 8 * SECOND)]


def test_speech_is_cut_in_its_pauses() -> None:
    audio = phrases((24, 0.5), (25, 0.5), (23, 0.5))

    spans = windows(audio)

    assert [span.end_sample / SECOND for span in spans] == pytest.approx([24.25, 49.75, 73.5], abs=0.3)
    assert not any(span.overlaps_previous for span in spans)


def test_a_longer_pause_is_preferred_to_a_shorter_one() -> None:
    audio = phrases((20, 0.25), (4, 0.9), (3, 0.25), (22, 0))

    assert windows(audio)[0].end_sample / SECOND == pytest.approx(24.7, abs=0.45)


def test_a_rest_at_the_end_is_balanced_with_the_window_before() -> None:
    audio = phrases(*[(2.7, 0.4)] * 10)

    spans = windows(audio)

    assert min(lengths(spans)) > 10


def test_speech_without_a_pause_is_cut_with_two_seconds_of_overlap() -> None:
    spans = windows(babble(70))

    assert len(spans) == 3
    assert [span.overlaps_previous for span in spans] == [False, True, True]
    assert [left.end_sample - right.start_sample for left, right in pairwise(spans)] == [2 * SECOND] * 2
    assert max(lengths(spans)) <= 30


@pytest.mark.parametrize("noise", [0, 3, 100, 400])
def test_long_silence_is_in_no_window(noise: float) -> None:
    audio = phrases((10, 20), (12, 40), (8, 15), noise=noise)

    spans = windows(audio)

    assert [round(span.start_sample / SECOND) for span in spans] == [0, 30, 82]
    assert lengths(spans) == pytest.approx([10.4, 12.8, 8.8], abs=0.2)


def test_a_short_pause_between_two_scraps_does_not_part_them() -> None:
    audio = phrases((3, 2.5), (4, 20), (5, 0))

    assert lengths(windows(audio)) == pytest.approx([9.9, 5.4], abs=0.2)


def test_one_short_word_between_long_silences_is_a_window() -> None:
    audio = phrases((10, 30), (0.3, 30), (10, 0))

    spans = windows(audio)

    assert len(spans) == 3
    assert spans[1].start_sample < 40 * SECOND < 40.3 * SECOND < spans[1].end_sample


@pytest.mark.parametrize("decibels", [30, 40, 45])
def test_speech_far_below_the_loudest_survives(decibels: float) -> None:
    quiet = babble(6, level=10_000 / 10 ** (decibels / 20))
    audio = np.concatenate([babble(20, level=10_000), hush(5, level=3), quiet, hush(5, level=3)])

    spans = windows(audio)

    assert heard(audio, spans)[25 * SECOND : 31 * SECOND].all()


def test_speech_no_louder_than_the_noise_survives() -> None:
    speech = np.concatenate([hush(20), babble(10, level=250), hush(20)])
    audio = speech + hush(50, level=200)

    assert heard(audio, windows(audio))[20 * SECOND : 30 * SECOND].all()


def test_music_is_kept_and_cut_at_its_dips() -> None:
    clock = np.arange(120 * SECOND) / SECOND
    music = (4000 * np.sin(2 * np.pi * 220 * clock) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.4 * clock))).astype(np.int16)

    spans = windows(music)

    assert heard(music, spans).all()
    assert max(lengths(spans)) <= 30


@pytest.mark.parametrize("audio", [hush(0), hush(0.1), hush(0.01), hush(0.7), hush(45), hush(130), hush(45, level=5)])
def test_there_is_no_window_in_silence(audio: Pcm) -> None:
    assert windows(audio, chunk_seconds=60) == []


def test_empty_audio_has_no_chunk() -> None:
    assert plan(hush(0)) == []


def test_a_tenth_of_a_second_of_sound_is_a_window() -> None:
    assert windows(babble(0.1)) == [WindowSpan(0, SECOND // 10)]


def test_a_chunk_ends_at_a_pause_and_the_rest_goes_on() -> None:
    audio = phrases(*[(5.5, 0.6)] * 30)

    chunks = plan(audio, chunk_seconds=60)

    for chunk in chunks[:-1]:
        assert 30 <= (chunk.end_sample - chunk.start_sample) / SECOND <= 60
        assert not audio[chunk.end_sample - 1000 : chunk.end_sample + 1000].any()


def test_a_chunk_that_finds_no_pause_overlaps_the_next() -> None:
    chunks = plan(babble(150), chunk_seconds=60)

    for chunk, following in pairwise(chunks):
        first = following.windows[0]
        assert first.overlaps_previous
        assert chunk.windows[-1].end_sample - first.start_sample == 2 * SECOND


def test_a_chunk_hands_out_the_samples_of_its_windows() -> None:
    audio = babble(150)

    for chunk in plan(audio, chunk_seconds=60):
        for span in chunk.windows:
            assert np.array_equal(chunk.samples_of(span), audio[span.start_sample : span.end_sample])
            assert np.shares_memory(chunk.samples_of(span), chunk.samples)


def test_a_partial_last_frame_is_part_of_a_window() -> None:
    audio = babble(7.333)

    assert windows(audio)[-1].end_sample == len(audio)


def test_a_chunk_says_where_there_is_sound() -> None:
    (chunk,) = plan(phrases((3, 4), (2, 0)))

    assert chunk.active.shape == (450,)
    assert not chunk.active[170:340].any()
    assert chunk.active[360:440].mean() > 0.5


def test_chunks_below_six_seconds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        ChunkCutter(5.9)


@st.composite
def recordings(draw: st.DrawFn) -> Pcm:
    parts = []
    for _ in range(draw(st.integers(1, 6))):
        level = draw(st.sampled_from([0, 2, 50, 3000]))
        seconds = draw(st.floats(0.03, 20))  # a frame at least: see below
        parts.append(draw(st.sampled_from([babble, hush]))(seconds, level=level, seed=draw(st.integers(0, 9))))
    return np.concatenate(parts)


def identity(chunks: list[Chunk]) -> list[tuple[object, ...]]:
    return [(one.index, one.start_sample, one.end_sample, one.windows, one.samples.tobytes()) for one in chunks]


@given(recordings(), st.lists(st.integers(1, 400_000), min_size=1, max_size=5))
@settings(max_examples=25)
def test_the_plan_does_not_depend_on_how_the_audio_is_split(audio: Pcm, sizes: list[int]) -> None:
    cutter = ChunkCutter(20)
    chunks, position, turn = [], 0, 0
    while position < len(audio):
        size = sizes[turn % len(sizes)]
        chunks += cutter.push(audio[position : position + size])
        position, turn = position + size, turn + 1
    chunks += cutter.finish()

    assert cutter.total_samples == len(audio)
    assert identity(chunks) == identity(plan(audio, chunk_seconds=20, block=len(audio)))


@given(recordings(), st.sampled_from([6.0, 20.0, 33.3, 60.0]))
@settings(max_examples=25)
def test_chunks_tile_the_file_and_windows_keep_their_limits(audio: Pcm, chunk_seconds: float) -> None:
    chunks = plan(audio, chunk_seconds=chunk_seconds)

    assert [one.start_sample for one in chunks] == [0, *(one.end_sample for one in chunks[:-1])]
    assert chunks[-1].end_sample == len(audio)
    assert [one.index for one in chunks] == list(range(len(chunks)))
    spans = [span for one in chunks for span in one.windows]
    for span in spans:
        assert 0 <= span.start_sample < span.end_sample <= len(audio)
        assert span.end_sample - span.start_sample <= 30 * SECOND
    for left, right in pairwise(spans):
        assert left.start_sample < right.start_sample
        assert left.end_sample < right.end_sample
        assert right.overlaps_previous == (right.start_sample < left.end_sample)
        assert left.end_sample - right.start_sample <= 2 * SECOND


def test_audio_shorter_than_a_frame_is_no_speech() -> None:
    chunks = plan(np.full(319, 3000, np.int16), chunk_seconds=20)

    assert [(one.start_sample, one.end_sample, one.windows) for one in chunks] == [(0, 319, ())]


@given(recordings())
@settings(max_examples=25)
def test_nothing_loud_is_left_out(audio: Pcm) -> None:
    spans = windows(audio, chunk_seconds=20)

    assert np.abs(audio[~heard(audio, spans)]).max(initial=0) < 500
