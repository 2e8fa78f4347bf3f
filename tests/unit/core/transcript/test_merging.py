from dataclasses import replace
from itertools import groupby, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.speech import WindowSpan, WindowTranscript, Word
from worker.core.transcript.merging import EngineRun, EngineSpan, WordTimeline, merge, merge_channels

SECOND = 16_000


def window(start: float, end: float, *words: Word, overlaps: bool = False) -> WindowTranscript:
    return WindowTranscript(WindowSpan(int(start * SECOND), int(end * SECOND), overlaps), words)


def said(text: str, *, start: float, step: float = 0.4) -> list[Word]:
    return [Word(word, start + i * step, start + i * step + 0.3, 0.9) for i, word in enumerate(text.split())]


def texts(words: tuple[Word, ...]) -> list[str]:
    return [word.text for word in words]


def test_times_are_counted_from_the_start_of_the_file() -> None:
    spoken = window(100, 120, Word("Hello", 0.5, 0.9, 0.8))

    (word,) = merge([spoken])

    assert word == Word("Hello", 100.5, 100.9, 0.8)


def test_offsets_are_exact_after_twelve_hours() -> None:
    far = WindowTranscript(WindowSpan(12 * 3600 * SECOND + 8, 12 * 3600 * SECOND + SECOND), (Word("on", 0.1, 0.2, 1),))

    (word,) = merge([far])

    assert (word.start_seconds, word.end_seconds) == (43200.1, 43200.2)


def test_punctuation_alone_joins_the_word_before() -> None:
    spoken = window(
        0, 5, Word("Yes", 0.1, 0.3, 0.9), Word("...", 0.5, 0.6, 0.2), Word("50", 1, 1.5, 1), Word("%", 2, 3, 1)
    )

    assert texts(merge([spoken])) == ["Yes...", "50%"]


def test_punctuation_before_any_word_and_empty_words_are_dropped() -> None:
    spoken = window(
        0, 5, Word("-", 0, 0.1, 1), Word("  ", 0.1, 0.2, 1), Word("\x00\ud800", 0.2, 0.3, 1), Word("So", 1, 2, 1)
    )

    assert texts(merge([spoken])) == ["So"]


def test_an_overlap_that_both_windows_recognised_alike_appears_once() -> None:
    earlier = window(0, 30, *said("one two three four five six", start=27.6))
    later = window(28, 58, *said("two, three Four five six seven", start=0.05), overlaps=True)

    merged = merge([earlier, later])

    assert texts(merged) == ["one", "two", "three", "four", "five", "six", "seven"]


def test_a_word_broken_at_the_edge_of_either_window_is_taken_from_the_other() -> None:
    earlier = window(0, 30, *said("we take the long road", start=28), Word("ho", 29.9, 30, 0.3))
    later = window(28, 58, Word("cake", 0, 0.1, 0.3), *said("the long road home again", start=0.85), overlaps=True)

    merged = merge([earlier, later])

    assert texts(merged) == ["we", "take", "the", "long", "road", "home", "again"]


def test_repeated_words_in_an_overlap_are_counted_right() -> None:
    earlier = window(0, 30, *said("no no no no", start=28.2))
    later = window(28, 58, *said("no no no no yes", start=0.25), overlaps=True)

    assert texts(merge([earlier, later])) == ["no", "no", "no", "no", "yes"]


def test_an_overlap_recognised_differently_is_cut_in_the_middle() -> None:
    earlier = window(0, 30, *said("alpha beta gamma delta", start=28.0))
    later = window(28, 58, *said("epsilon zeta eta theta iota", start=0.2), overlaps=True)

    assert texts(merge([earlier, later])) == ["alpha", "beta", "gamma", "eta", "theta", "iota"]


def test_words_that_only_the_later_window_contains_are_not_lost_at_the_seam() -> None:
    earlier = window(0, 30, Word("before", 27, 27.4, 0.9))
    later = window(28, 58, *said("only I saw this", start=0.1), overlaps=True)

    assert texts(merge([earlier, later])) == ["before", "only", "I", "saw", "this"]


def test_windows_that_only_touch_lose_no_equal_words() -> None:
    earlier = window(0, 30, Word("very", 29.8, 30, 0.9))
    later = window(30, 60, Word("very", 0, 0.2, 0.9), Word("good", 0.4, 0.6, 0.9))

    assert texts(merge([earlier, later])) == ["very", "very", "good"]


def test_words_on_one_frame_are_set_20_ms_apart() -> None:
    spoken = window(0, 5, Word("a", 1, 1.08, 1), Word("b", 1, 1.08, 1), Word("c", 1, 1.08, 1))

    assert [(word.start_seconds, word.end_seconds) for word in merge([spoken])] == [
        (1.0, 1.02),
        (1.02, 1.04),
        (1.04, 1.08),
    ]


def test_words_crowded_at_the_end_of_a_window_stay_inside_it() -> None:
    spoken = window(0, 1, *(Word("la", 1, 1, 1) for _ in range(30)))

    merged = merge([spoken])

    assert merged[-1].end_seconds <= 1


def test_the_end_of_a_word_does_not_stretch_over_a_pause() -> None:
    spoken = window(0, 30, Word("well", 1, 9, 1), Word("then", 9.5, 9.9, 1))

    assert merge([spoken])[0].end_seconds == 2.4


def test_a_long_number_may_take_its_time() -> None:
    spoken = window(0, 30, Word("1,234,567", 1, 5, 1))

    assert merge([spoken])[0].end_seconds == 5


@pytest.mark.parametrize("text", ["x" * 1000, "1" * 200])
def test_no_word_is_longer_than_a_paragraph_may_be(text: str) -> None:
    (word,) = merge([window(0, 600, Word(text, 1, 600, 1))])

    assert (word.start_seconds, word.end_seconds) == (1, 61)


def test_a_confidence_that_is_no_number_counts_as_none() -> None:
    spoken = window(0, 5, Word("a", 1, 2, float("nan")), Word("b", 2, 3, 7.0), Word("c", 3, 4, -1.0))

    assert [word.confidence for word in merge([spoken])] == [0.0, 1.0, 0.0]


anything = st.floats(allow_nan=True, allow_infinity=True)
plausible = st.floats(-1, 32)
word_texts = st.text(max_size=8) | st.sampled_from(["the", "The", "no", "...", "3.5", "?", "", " ", "don't"])
words = st.builds(Word, word_texts, plausible | anything, plausible | anything, st.floats(0, 1) | anything)


@st.composite
def transcripts(draw: st.DrawFn) -> list[WindowTranscript]:
    """Windows in order of the file, some overlapping by up to 2 s, with words that obey nothing."""
    end, drawn = 0, []
    for _ in range(draw(st.integers(0, 4))):
        start = max(0, end + draw(st.integers(-2 * SECOND, 5 * SECOND)))
        end = max(end, start + draw(st.integers(SECOND, 30 * SECOND)))
        span = WindowSpan(start, end, overlaps_previous=False)
        drawn.append(WindowTranscript(span, tuple(draw(st.lists(words, max_size=12)))))
    return drawn


@given(transcripts())
@settings(max_examples=80)
def test_the_timeline_is_in_strict_order_for_any_engine_output(windows: list[WindowTranscript]) -> None:
    merged = merge(windows)

    for word, following in pairwise(merged):
        assert word.start_seconds < following.start_seconds
        assert word.end_seconds <= following.start_seconds
    for word in merged:
        assert word.end_seconds > word.start_seconds >= 0
        assert (round(word.start_seconds, 3), round(word.end_seconds, 3)) == (word.start_seconds, word.end_seconds)
        assert any(char.isalnum() for char in word.text)
        assert word.text.encode().decode().split() == word.text.split(" ")
        assert 0 <= word.confidence <= 1


@given(transcripts(), st.integers(0, 4))
@settings(max_examples=60)
def test_windows_added_one_by_one_make_the_same_timeline(windows: list[WindowTranscript], first: int) -> None:
    ordered = sorted(windows, key=lambda one: (one.span.start_sample, one.span.end_sample))
    timeline = WordTimeline()

    timeline.add(ordered[:first])
    timeline.add(reversed(ordered[first:]))

    assert timeline.words() == merge(windows)


@given(transcripts())
@settings(max_examples=60)
def test_every_word_is_inside_the_transcribed_audio(windows: list[WindowTranscript]) -> None:
    merged = merge(windows)

    for word in merged:
        assert any(
            one.span.start_sample // 16 <= round(word.start_seconds * 1000)
            and round(word.end_seconds * 1000) * 16 <= one.span.end_sample
            for one in windows
        )


@given(transcripts())
@settings(max_examples=60)
def test_windows_without_overlap_keep_every_spoken_word(windows: list[WindowTranscript]) -> None:
    apart, end = [], 0
    for one in windows:
        shift = max(0, end - one.span.start_sample)
        span = WindowSpan(one.span.start_sample + shift, one.span.end_sample + shift)
        apart.append(replace(one, span=span))
        end = span.end_sample

    merged = merge(apart)

    spoken = [word for one in apart for word in one.words if any(char.isalnum() for char in word.text)]
    assert len(merged) == len(spoken)


@st.composite
def seams(draw: st.DrawFn) -> tuple[list[str], list[WindowTranscript]]:
    """One stream of words in two overlapping windows, with times that differ by up to a frame or two."""
    drawn = draw(st.lists(st.sampled_from(["the", "no", "a", "yes", "go", "house"]), min_size=10, max_size=40))
    # Equal words closer than the tolerance of times cannot be distinguished.
    spoken = [word for word, _ in groupby(drawn)]
    starts, clock = [], 24.0
    for _ in spoken:
        starts.append(clock)
        clock += draw(st.floats(0.22, 0.6))
    jitter = draw(st.lists(st.floats(-0.08, 0.08), min_size=len(spoken), max_size=len(spoken)))
    earlier = [Word(w, s, s + 0.2, 1) for w, s in zip(spoken, starts, strict=True) if s + 0.2 <= 30]
    later = [
        Word(w, max(0.0, s + j - 28), max(0.0, s + j - 28) + 0.2, 1)
        for w, s, j in zip(spoken, starts, jitter, strict=True)
        if s >= 28
    ]
    return spoken, [window(0, 30, *earlier), window(28, 58, *later, overlaps=True)]


@given(seams())
@settings(max_examples=60)
def test_no_word_is_doubled_or_lost_at_a_seam_that_both_windows_cover(
    case: tuple[list[str], list[WindowTranscript]],
) -> None:
    spoken, windows = case

    assert texts(merge(windows)) == spoken


def test_words_of_channels_are_merged_by_their_start_and_end_before_the_next_one() -> None:
    left = (Word("Are", 1.0, 1.5, 0.9), Word("you?", 1.6, 2.4, 0.8))
    right = (Word("Yes.", 2.0, 2.3, 0.7),)

    merged = merge_channels([left, right])

    assert merged == (Word("Are", 1.0, 1.5, 0.9), Word("you?", 1.6, 2.0, 0.8), Word("Yes.", 2.0, 2.3, 0.7))


def test_words_that_start_together_come_in_the_order_of_their_channels() -> None:
    channels = [(Word(name, 3.0, 3.4, 1.0),) for name in ("one", "two", "three")]

    merged = merge_channels(channels)

    assert texts(merged) == ["one", "two", "three"]
    assert [word.start_seconds for word in merged] == [3.0, 3.02, 3.04]


@given(st.lists(transcripts(), min_size=1, max_size=4))
@settings(max_examples=60)
def test_merged_channels_keep_every_word_and_the_order_of_a_timeline(channels: list[list[WindowTranscript]]) -> None:
    apart = [merge(windows) for windows in channels]

    merged = merge_channels(apart)

    assert sorted(texts(merged)) == sorted(word.text for channel in apart for word in channel)
    assert all(a.start_seconds < b.start_seconds and a.end_seconds <= b.start_seconds for a, b in pairwise(merged))
    assert all(word.start_seconds < word.end_seconds for word in merged)


def test_a_timeline_has_the_engine_of_each_word() -> None:
    words = tuple(Word(text, at, at + 0.3, 0.9) for at, text in enumerate("abcde"))
    timeline = WordTimeline()

    timeline.add([WindowTranscript(WindowSpan(0, 80_000), words)], "parakeet", [EngineSpan(30_000, 52_000, "deepgram")])
    timeline.add([WindowTranscript(WindowSpan(80_000, 96_000), words[:1])], "deepgram")

    assert timeline.engines() == (
        EngineRun("parakeet", 2),
        EngineRun("deepgram", 2),
        EngineRun("parakeet", 1),
        EngineRun("deepgram", 1),
    )
