import io
import re
from itertools import pairwise

import pysubs2
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.speech import Word
from worker.core.transcript.artefacts import captions_of, srt, vtt


def said(text: str, *, start: float = 0, step: float = 0.5) -> list[Word]:
    return [Word(word, start + i * step, start + i * step + 0.4, 0.9) for i, word in enumerate(text.split())]


def test_captions_break_at_sentences_pauses_and_when_full() -> None:
    words = [*said("One sentence. And another that goes on and on until it has filled"), *said("after", start=20)]

    captions = captions_of(words)

    assert [caption.lines for caption in captions] == [
        ("One sentence.",),
        ("And another that goes on and on until it", "has filled"),
        ("after",),
    ]


def test_a_caption_stays_no_longer_than_seven_seconds_and_at_least_one_where_there_is_room() -> None:
    words = [
        Word("slow", 0, 9, 1),
        Word("brief", 20, 20.1, 1),
        Word("next.", 20.95, 21, 1),
        Word("Last", 21.2, 21.3, 1),
    ]

    assert [(one.start_ms, one.end_ms) for one in captions_of(words)] == [
        (0, 7000), (20000, 20950), (20950, 21200), (21200, 22200),
    ]  # fmt: skip


def test_srt_is_read_back() -> None:
    data = srt(said("Hello --> there. {i}Bye\\now"))

    (first, second) = pysubs2.SSAFile.from_string(data.decode(), "srt")

    assert data.startswith(b"1\n00:00:00,000 --> 00:00:01,400\nHello -> there.\n\n2\n")
    assert first.plaintext == "Hello -> there."
    assert b"{i}Bye\\\xe2\x81\xa0now" in data
    assert second.start == 1500


def test_vtt_escapes_what_would_be_markup() -> None:
    data = vtt(said("a <b> R&D --> c"))

    (caption,) = webvtt.from_buffer(io.StringIO(data.decode()))

    assert b"a &lt;b&gt; R&amp;D --&gt; c" in data
    assert caption.start == "00:00:00.000"
    assert caption.end == "00:00:02.400"


def test_pieces_of_a_long_word_of_a_few_milliseconds_are_in_a_caption_that_is_shown() -> None:
    captions = captions_of([Word("x" * 200, 1.0, 1.001, 0.5), Word("y.", 1.001, 1.2, 0.5)])

    assert all(caption.end_ms > caption.start_ms for caption in captions)
    assert "".join(line for caption in captions for line in caption.lines).count("x") == 200


def test_no_words_make_an_empty_file() -> None:
    assert srt([]) == b""
    assert vtt([]).strip() == b"WEBVTT"


@st.composite
def timelines(draw: st.DrawFn) -> list[Word]:
    clock, words = 0, []
    text = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=60)
    for _ in range(draw(st.integers(0, 25))):
        start = clock + draw(st.sampled_from([0, 100, 799, 800]))
        end = start + draw(st.integers(20, 9000))
        words.append(Word(draw(text | st.sampled_from(["Yes.", "no", "word"])), start / 1000, end / 1000, 0.5))
        clock = end
    return words


@given(timelines())
@settings(max_examples=30)
def test_captions_keep_their_limits_and_every_letter(words: list[Word]) -> None:
    captions = captions_of(words)

    for caption in captions:
        assert 1 <= len(caption.lines) <= 2
        assert all(0 < len(line) <= 42 for line in caption.lines)
        assert 0 < caption.end_ms - caption.start_ms <= 7000
    for caption, following in pairwise(captions):
        assert caption.end_ms <= following.start_ms
    shown = "".join(line for caption in captions for line in caption.lines)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", "".join(word.text for word in words))


@given(timelines())
@settings(max_examples=15)
def test_caption_parsers_read_as_many_captions_as_there_are(words: list[Word]) -> None:
    count = len(captions_of(words))

    assert len(webvtt.from_buffer(io.StringIO(vtt(words).decode()))) == count
    assert len(pysubs2.SSAFile.from_string(srt(words).decode(), "srt")) == count
