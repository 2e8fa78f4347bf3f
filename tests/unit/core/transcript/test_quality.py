from itertools import pairwise

import numpy as np
import pytest

from schemas.speech import WindowTranscript, Word
from worker.core.transcript.planning import Chunk, ChunkCutter
from worker.core.transcript.quality import Gate, failed_gates, other_cuts
from worker.core.transcript.sound import talking_seconds
from worker.ports import Pcm

SECOND = 16_000


def talk(seconds: float, *, seed: int = 0) -> Pcm:
    """Four syllables a second: 0.17 s of a voice whose pitch glides, then 0.08 s of next to nothing."""
    random = np.random.default_rng(seed)
    syllables = []
    for _ in range(round(seconds * 4)):
        pitch = np.geomspace(*random.uniform(90, 220) * random.uniform(0.8, 1.25, 2), 2720)
        phase = np.cumsum(2 * np.pi * pitch / SECOND)
        voice = sum(np.sin(k * phase) / k for k in range(1, 12))
        syllables += [voice * np.hanning(2720) * 3000, random.standard_normal(1280) * 20]
    return np.concatenate(syllables).astype(np.int16)


def tune(seconds: float) -> Pcm:
    """Two instruments holding notes of half a second."""
    random = np.random.default_rng(3)
    notes = [
        sum(np.sin(2 * np.pi * base * 2 ** (step / 12) * np.arange(8000) / SECOND) for base in (110, 165))
        for step in random.integers(0, 12, round(seconds * 2))
    ]
    return (np.concatenate(notes) * np.tile(np.linspace(1, 0.3, 8000), len(notes)) * 3000).astype(np.int16)


def noise(seconds: float) -> Pcm:
    return (np.random.default_rng(4).standard_normal(int(seconds * SECOND)) * 1500).astype(np.int16)


def chunk_of(audio: Pcm) -> Chunk:
    cutter = ChunkCutter(60)
    assert cutter.push(audio) == ()
    (chunk,) = cutter.finish()
    return chunk


def gates(audio: Pcm, *words: Word) -> tuple[Gate, ...]:
    chunk = chunk_of(audio)
    (span,) = chunk.windows
    return failed_gates(chunk, WindowTranscript(span, words))


def said(text: str, *, start: float = 0.0, step: float = 0.35, confidence: float = 0.95) -> list[Word]:
    return [Word(w, start + i * step, start + i * step + 0.3, confidence) for i, w in enumerate(text.split())]


STORY = "we will go to the market on Friday morning and then call Anna at the station about her old red letter box"


def test_a_good_window_passes() -> None:
    assert gates(talk(8), *said(STORY)) == ()


def test_talk_without_a_word_fails() -> None:
    assert gates(talk(8)) == (Gate.NO_TEXT,)


@pytest.mark.parametrize("audio", [tune(20), noise(20), talk(1)], ids=["music", "noise", "one second"])
def test_music_noise_and_a_single_sound_may_be_without_words(audio: Pcm) -> None:
    assert gates(audio) == ()


def test_talk_between_two_words_without_words_fails() -> None:
    words = [*said("we will go", start=0), *said("to the market today", start=12)]

    assert gates(talk(14), *words) == (Gate.GAP,)


def test_talk_after_the_last_word_fails() -> None:
    assert gates(talk(16), *said(STORY[:60])) == (Gate.GAP,)


def test_silence_or_music_between_two_words_is_no_gap() -> None:
    audio = np.concatenate([talk(4), tune(6), talk(4)])

    assert gates(audio, *said("one two three four five six", start=0), *said("seven eight nine ten", start=10.2)) == ()


def test_more_words_than_can_be_spoken_fail() -> None:
    assert gates(talk(3), *said(f"{STORY} {STORY}", step=0.07)) == (Gate.WORD_RATE,)


def test_a_word_now_and_then_for_steady_talk_fails() -> None:
    words = [word for i, text in enumerate(["well", "yes", "then", "so"]) for word in said(text, start=1 + 3.9 * i)]

    assert gates(talk(16), *words) == (Gate.WORD_RATE,)


def test_a_word_now_and_then_over_music_passes() -> None:
    words = [word for i, text in enumerate(["well", "yes", "then", "so"]) for word in said(text, start=1 + 3.9 * i)]

    assert gates(tune(16), *words) == ()


@pytest.mark.parametrize("phrase", ["the", "thank you", "going to the market", "a b c d e f g h"])
def test_a_phrase_over_and_over_fails(phrase: str) -> None:
    size = len(phrase.split())
    words = said(" ".join([phrase.capitalize()] + [phrase + ","] * (40 // size)), step=0.3)

    assert gates(talk(13), *words) == (Gate.REPETITION,)


@pytest.mark.parametrize("keyterm", ["Arlo", "Arlo Finch", "The Arlo Finch show"])
def test_a_keyterm_repeated_on_silence_fails(keyterm: str) -> None:
    audio = np.concatenate([talk(4), np.zeros(6 * SECOND, np.int16), talk(4)])
    loop = said(" ".join([keyterm] * 3), start=4.4, step=0.4)

    assert gates(audio, *said(STORY[:40]), *loop, *said(STORY[:40], start=10.2)) == (Gate.REPETITION,)


def test_a_keyterm_repeated_where_it_is_spoken_passes() -> None:
    audio = np.concatenate([talk(8), np.zeros(4 * SECOND, np.int16)])
    words = said("Arlo Finch Arlo Finch Arlo Finch Arlo Finch and then we will go to the market", step=0.45)

    assert gates(audio, *words, *said("Arlo Finch Arlo", start=8.2)) == ()


@pytest.mark.parametrize("text", ["no no no no no wait", "let's go let's go let's go let's go let's go now", STORY])
def test_what_people_do_repeat_passes(text: str) -> None:
    assert gates(talk(len(text.split()) * 0.35 + 0.5), *said(text)) == ()


def test_words_the_engine_does_not_believe_fail() -> None:
    assert gates(talk(8), *said(STORY, confidence=0.4)) == (Gate.LOW_CONFIDENCE,)


def test_a_few_doubtful_words_pass() -> None:
    assert gates(talk(1.5), *said("uh what was", confidence=0.3)) == ()


def test_good_windows_of_any_words_pass() -> None:
    chunk = chunk_of(talk(20))
    (span,) = chunk.windows
    random = np.random.default_rng(5)
    vocabulary = sorted(set(STORY.split()))

    fired = [
        failed_gates(chunk, WindowTranscript(span, tuple(said(" ".join(random.choice(vocabulary, 57)), confidence=c))))
        for c in random.uniform(0.6, 1, 200)
    ]

    assert not any(fired)


def test_other_cuts_lie_elsewhere_and_hold_all_that_the_first_held() -> None:
    chunk = chunk_of(np.concatenate([np.concatenate([talk(5.5, seed=i), np.zeros(8000, np.int16)]) for i in range(9)]))

    others = other_cuts(chunk)

    assert {span.end_sample for span in others[:-1]} != {span.end_sample for span in chunk.windows[:-1]}
    assert max(span.end_sample - span.start_sample for span in others) <= 20 * SECOND
    assert (others[0].start_sample, others[-1].end_sample) == (chunk.start_sample, chunk.end_sample)
    assert all(left.end_sample == right.start_sample for left, right in pairwise(others))


def test_other_cuts_of_a_chunk_in_mid_speech_overlap_its_neighbours_as_before() -> None:
    cutter = ChunkCutter(40)
    steady = (noise(90) * np.clip(np.sin(2 * np.pi * 4.1 * np.arange(90 * SECOND) / SECOND), 0.02, 1)).astype(np.int16)

    chunk = cutter.push(steady)[1]

    others = other_cuts(chunk)
    assert others[0].overlaps_previous
    assert others[0].start_sample == chunk.windows[0].start_sample == chunk.start_sample - SECOND
    assert others[-1].end_sample == chunk.windows[-1].end_sample == chunk.end_sample + SECOND


@pytest.mark.parametrize("audio", [talk(1)[:500], np.zeros(0, np.int16), np.zeros(SECOND, np.int16)])
def test_a_few_samples_contain_no_speech(audio: Pcm) -> None:
    assert talking_seconds(audio) == 0
