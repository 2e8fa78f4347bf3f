"""Limits of an acceptable answer; whatever is accepted can be stored and rendered."""

import copy
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import Artefact
from schemas.speech import WindowSpan, WindowTranscript, Word
from schemas.state import Checkpoint
from worker.adapters.deepgram.answers import TryFailed, answer_limit_bytes, read_answer
from worker.core.transcript.artefacts import ArtefactInfo, render_artefacts
from worker.core.transcript.merging import merge
from worker.errors import DeepgramUnusable
from worker.ports import SAMPLE_RATE_HZ, CloudRecognition

GOOD: dict[str, Any] = {
    "metadata": {"request_id": "c6a8-11", "created": "2026-11-22T10:00:00Z", "duration": 3.25, "channels": 1},
    "results": {
        "channels": [
            {
                "alternatives": [
                    {
                        "transcript": "In $5.50, uh",
                        "confidence": 0.7,
                        "words": [
                            {"word": "in", "start": 0.1, "end": 0.2, "confidence": 0.9, "punctuated_word": "In"},
                            {"word": "5.50", "start": 0.2, "end": 1, "confidence": 0.8, "punctuated_word": "$5.50,"},
                            {"word": "uh", "start": 2.0, "end": 1.9, "confidence": 0, "punctuated_word": ""},
                        ],
                    }
                ]
            }
        ]
    },
}
ALTERNATIVE = "results.channels.0.alternatives.0"
SECOND = f"{ALTERNATIVE}.words.1"
SENT_SECONDS = 3.25


def read(answer: Any) -> CloudRecognition:
    return read_answer(json.dumps(answer).encode(), SENT_SECONDS)


def changed(*changes: tuple[str, Any]) -> Any:
    answer: Any = copy.deepcopy(GOOD)
    for path, value in changes:
        *steps, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
        part = answer
        for step in steps:
            part = part[step]
        part[last] = value
    return answer


def test_words_are_as_written_with_the_times_given() -> None:
    heard = read(GOOD)

    assert heard.words == (
        Word(text="In", start_seconds=0.1, end_seconds=0.2, confidence=0.9),
        Word(text="$5.50,", start_seconds=0.2, end_seconds=1.0, confidence=0.8),
        Word(text="uh", start_seconds=2.0, end_seconds=2.0, confidence=0.0),
    )
    assert (heard.request_id, heard.billed_seconds) == ("c6a8-11", 3.25)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        "words",
        None,
        {"request_id": "accepted-for-a-callback"},
        changed(("results", None)),
        changed(("results", [1])),
        changed(("results.channels", [])),
        changed(("results.channels", {"0": 1})),
        changed(("results.channels.0.alternatives", None)),
        changed(("results.channels.0.alternatives", [])),
        changed(("results.channels.0.alternatives", "none")),
        changed((f"{ALTERNATIVE}.words", None)),
        changed((f"{ALTERNATIVE}.words", [])),
        changed((f"{ALTERNATIVE}.words", "In $5.50")),
        changed((f"{ALTERNATIVE}.words", [{"start": 1.0, "end": 2.0}])),
        changed((f"{ALTERNATIVE}.words", [{"word": "a"}] * 100)),
        changed((SECOND, "word")),
        changed((f"{SECOND}.punctuated_word", ["$5.50"])),
        changed((f"{ALTERNATIVE}.words", [{"word": " ", "punctuated_word": "\n"}])),
        changed(("metadata", None)),
        changed(("metadata.request_id", "")),
        changed(("metadata.request_id", "\ud800\n")),
        changed(("metadata.duration", "long")),
        changed(("metadata.duration", math.nan)),
        changed(("metadata.duration", -1.0)),
        changed(("metadata.duration", 2.0)),
    ],
    ids=lambda answer: str(answer)[-60:].encode("ascii", "replace").decode(),
)
def test_whatever_else_came_is_no_transcript_and_was_paid(answer: Any) -> None:
    with pytest.raises(TryFailed) as caught:
        read(answer)

    assert isinstance(caught.value.error, DeepgramUnusable)
    assert caught.value.was_wasted
    assert caught.value.is_worth_repeating


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        json.dumps(GOOD).encode()[:-1],
        b"[" * 100_000,
        b'{"metadata": {"duration": ' + b"1" * 5_000 + b"}}",
    ],
    ids=lambda body: str(body[:20]),
)
def test_what_cannot_be_read_is_no_transcript(body: bytes) -> None:
    with pytest.raises(TryFailed, match="no transcript"):
        read_answer(body, SENT_SECONDS)


@pytest.mark.parametrize(
    "silence",
    [
        {"transcript": "", "confidence": 0.0, "words": []},
        {"transcript": "", "words": None},
        {"transcript": None, "confidence": None, "words": None},
        {"transcript": " \n"},
        {},
    ],
)
def test_an_answer_without_words_and_without_a_transcript_is_silence(silence: Any) -> None:
    assert read(changed((ALTERNATIVE, silence))).words == ()


@pytest.mark.parametrize("left_out", [None, math.nan, math.inf, 10**400])
@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("confidence", Word("$5.50,", 0.2, 1.0, 0.7)),
        ("start", Word("$5.50,", 0.2, 1.0, 0.8)),
        ("end", Word("$5.50,", 0.2, 0.2, 0.8)),
    ],
)
def test_a_number_that_is_missing_or_is_none_has_a_default(left_out: Any, field: str, word: Word) -> None:
    assert read(changed((f"{SECOND}.{field}", left_out))).words[1] == word


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("start", -0.5, Word("$5.50,", 0.0, 1.0, 0.8)),
        ("start", 1e300, Word("$5.50,", 3.25, 3.25, 0.8)),
        ("end", 99, Word("$5.50,", 0.2, 3.25, 0.8)),
        ("end", -(10**17), Word("$5.50,", 0.2, 0.2, 0.8)),
        ("confidence", 1.0000001, Word("$5.50,", 0.2, 1.0, 1.0)),
        ("confidence", -3, Word("$5.50,", 0.2, 1.0, 0.0)),
    ],
)
def test_a_number_out_of_its_range_is_moved_into_it(field: str, value: Any, word: Word) -> None:
    assert read(changed((f"{SECOND}.{field}", value))).words[1] == word


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("caf\u00e9", "caf\u00e9"),
        ("\ud83d\ude00", "\U0001f600"),
        ("a\ud800", "a\ufffd"),
        ("\udfffb", "\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("nul\x00", "nul\x00"),
    ],
)
def test_text_that_utf8_cannot_hold_is_mended(text: str, kept: str) -> None:
    assert read(changed((f"{SECOND}.punctuated_word", text))).words[1].text == kept


def test_a_null_among_the_words_is_left_out() -> None:
    assert [word.text for word in read(changed((SECOND, None))).words] == ["In", "uh"]


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("start", "soon", Word("$5.50,", 0.2, 1.0, 0.8)),
        ("start", "0.5", Word("$5.50,", 0.5, 1.0, 0.8)),
        ("end", [1], Word("$5.50,", 0.2, 0.2, 0.8)),
        ("confidence", {"word": 0.5}, Word("$5.50,", 0.2, 1.0, 0.7)),
        ("punctuated_word", 5.5, Word("5.5", 0.2, 1.0, 0.8)),
        ("punctuated_word", " ", Word("5.50", 0.2, 1.0, 0.8)),
        ("punctuated_word", "\n$5.50, ", Word("$5.50,", 0.2, 1.0, 0.8)),
    ],
)
def test_a_value_of_another_type_or_of_spaces_costs_no_second_request(field: str, value: Any, word: Word) -> None:
    assert read(changed((f"{SECOND}.{field}", value))).words[1] == word


def test_a_confidence_that_is_missing_everywhere_is_zero() -> None:
    answer = changed((f"{ALTERNATIVE}.confidence", "high"), (f"{SECOND}.confidence", None))

    assert read(answer).words[1].confidence == 0.0


def test_a_request_id_may_be_a_number() -> None:
    assert read(changed(("metadata.request_id", 17))).request_id == "17"


def test_bytes_that_are_no_utf8_are_mended() -> None:
    body = json.dumps(changed((f"{SECOND}.punctuated_word", "XX"))).encode().replace(b"XX", b"a\xff")

    assert read_answer(body, SENT_SECONDS).words[1].text == "a\ufffd"


def test_a_word_as_long_as_a_book_is_cut() -> None:
    assert len(read(changed((f"{SECOND}.punctuated_word", "x" * 100_000))).words[1].text) == 1_000


def test_a_request_id_is_cut_and_holds_nothing_that_a_terminal_acts_on() -> None:
    answer = changed(("metadata.request_id", "\x1b[2Jab\u202e c" + "x" * 500))

    request_id = read(answer).request_id

    assert request_id.startswith("[2Jabc")
    assert len(request_id) == 128


@pytest.mark.parametrize("duration", [3.25, 4.0, 1e300, 10**17])
def test_no_more_seconds_are_billed_than_were_sent(duration: float) -> None:
    assert read(changed(("metadata.duration", duration))).billed_seconds == 3.25


def test_a_little_less_than_was_sent_is_billed_as_it_is() -> None:
    assert read(changed(("metadata.duration", 2.5))).billed_seconds == 2.5


def test_the_reason_names_the_field_and_quotes_no_content() -> None:
    with pytest.raises(TryFailed) as caught:
        read(changed((SECOND, {"word": ["private"], "start": "private"})))

    assert "results.channels.0.alternatives.0.words.1" in str(caught.value)
    assert "private" not in str(caught.value)


def test_the_limit_of_an_answer_is_ten_times_what_fast_speech_comes_to() -> None:
    seconds, words_per_second = 600, 4
    word = {"word": "syllable", "start": 599.123, "end": 599.456, "confidence": 0.98765, "punctuated_word": "Syllable,"}

    fast_speech = len(json.dumps([word] * seconds * words_per_second)) + 2 * seconds * words_per_second * 10

    assert 5 < answer_limit_bytes(seconds) / fast_speech < 15


numbers = st.none() | st.floats() | st.integers() | st.just(10**400)
texts = st.none() | st.text(st.characters(exclude_categories=()), max_size=12)
words = st.fixed_dictionaries(
    {}, optional={"word": texts, "punctuated_word": texts, "start": numbers, "end": numbers, "confidence": numbers}
)


@given(st.lists(words, max_size=60), numbers, texts)
def test_whatever_is_accepted_can_be_kept_and_rendered(words: Any, confidence: Any, request_id: Any) -> None:
    alternative = {"words": words, "confidence": confidence}
    metadata = {"request_id": f"r{request_id}", "duration": 4.0}
    answer = {"metadata": metadata, "results": {"channels": [{"alternatives": [alternative]}]}}

    heard = read(answer)

    window = WindowTranscript(WindowSpan(0, int(SENT_SECONDS * SAMPLE_RATE_HZ)), heard.words)
    checkpoint = Checkpoint(
        index=0,
        start_sample=0,
        end_sample=window.span.end_sample,
        engine="deepgram",
        windows=(window,),
        engine_seconds=0.0,
        audio_seconds=SENT_SECONDS,
        deepgram_request_id=heard.request_id,
        deepgram_billed_seconds=heard.billed_seconds,
    )
    assert Checkpoint.model_validate_json(checkpoint.model_dump_json().encode()) == checkpoint
    info = ArtefactInfo(
        request_id="r",
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        audio_sha256="0",
        duration_seconds=SENT_SECONDS,
        model_name="m",
        model_version="1",
        extra_outputs=frozenset({Artefact.SRT, Artefact.VTT}),
    )
    files, _ = render_artefacts(merge([window]), info)
    assert all(data.decode() is not None for data in files.values())
