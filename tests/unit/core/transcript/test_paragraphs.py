from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.speech import Word
from worker.core.transcript.artefacts import Paragraph, ends_sentence, paragraphs_of


def said(text: str, *, start: float = 0, step: float = 0.5) -> list[Word]:
    """Words of 0.3 s each, one every `step` seconds."""
    return [Word(word, start + i * step, start + i * step + 0.3, 0.9) for i, word in enumerate(text.split())]


def texts(paragraphs: tuple[Paragraph, ...]) -> list[list[str]]:
    return [[sentence.text for sentence in paragraph.sentences] for paragraph in paragraphs]


def test_sentences_end_at_their_marks() -> None:
    words = said("Who is there? It is me! Come in.")

    assert texts(paragraphs_of(words)) == [["Who is there?", "It is me!", "Come in."]]


@pytest.mark.parametrize(
    ("text", "following"),
    [
        *[("3.5", "percent"), ("Mr.", "Smith"), ("e.g.", "this"), ("Dr.", "Who"), ("J.", "Smith")],
        *[("p.m.", "today"), ("U.S.", "army"), ("well,", "yes"), ("No.", "5")],
    ],
)
def test_no_sentence_ends_inside_an_abbreviation_or_number(text: str, following: str) -> None:
    assert not ends_sentence(text, following)


@pytest.mark.parametrize(
    ("text", "following"),
    [
        *[("end.", "Next"), ("end.", "next"), ('"end."', "Next"), ("3.5.", "Next"), ("p.m.", "Then")],
        *[("I.", "Next"), ("really?!", "no"), ("well…", "No"), ("5.", ""), ("No.", "I")],
    ],
)
def test_a_sentence_ends_at_its_closing_mark(text: str, following: str) -> None:
    assert ends_sentence(text, following)


def test_a_pause_of_800_ms_starts_a_paragraph() -> None:
    words = [*said("Before it."), Word("Just", 1.599, 1.7, 1), Word("after", 2.5, 2.6, 1)]

    assert texts(paragraphs_of(words)) == [["Before it.", "Just"], ["after"]]


def test_a_paragraph_has_at_most_five_sentences() -> None:
    words = said("A one. B two. C three. D four. E five. F six.")

    assert [len(paragraph.sentences) for paragraph in paragraphs_of(words)] == [5, 1]


def test_a_paragraph_of_several_sentences_keeps_within_30_seconds() -> None:
    words = said(" ".join(["word"] * 39 + ["end."]) + " " + " ".join(["word"] * 39 + ["end."]))

    assert [len(paragraph.words) for paragraph in paragraphs_of(words)] == [40, 40]


def test_a_sentence_of_more_than_a_minute_is_split_at_its_widest_gap() -> None:
    words = [*said("word " * 90), *said("word " * 60, start=45.4)]

    first, second = paragraphs_of(words)

    assert len(first.words) == 90
    assert len(second.words) == 60
    assert second.start_seconds == 45.4


def test_no_words_make_no_paragraph() -> None:
    assert paragraphs_of([]) == ()


@st.composite
def timelines(draw: st.DrawFn) -> list[Word]:
    """Words as `merge` returns them: in strict order, in whole milliseconds."""
    clock, words = 0, []
    for _ in range(draw(st.integers(0, 40))):
        start = clock + draw(st.sampled_from([1, 100, 799, 800, 5000]))
        end = start + draw(st.integers(1, 9000))
        text = draw(st.sampled_from(["a", "Yes.", "no", "Mr.", "NA", "what?", "3.5", "so,", "e.g."]))
        words.append(Word(text, start / 1000, end / 1000, 0.5))
        clock = end
    return words


@given(timelines())
@settings(max_examples=50)
def test_every_word_is_in_one_paragraph_of_at_most_a_minute_without_a_pause(words: list[Word]) -> None:
    paragraphs = paragraphs_of(words)

    assert [w for one in paragraphs for sentence in one.sentences for w in sentence.words] == words
    for paragraph in paragraphs:
        inside = [word for sentence in paragraph.sentences for word in sentence.words]
        assert paragraph.text.strip()
        assert paragraph.end_seconds - paragraph.start_seconds <= 60
        assert all(round(b.start_seconds * 1000) - round(a.end_seconds * 1000) < 800 for a, b in pairwise(inside))
