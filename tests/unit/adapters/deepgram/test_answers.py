import copy
import math
from typing import Any

import pytest
from deepgram.core.unchecked_base_model import construct_type
from deepgram.listen.v1.media.types import MediaTranscribeResponse

from schemas.speech import Word
from worker.adapters.deepgram.answers import read_answer
from worker.adapters.deepgram.retries import TryFailed
from worker.errors import DeepgramUnavailable

GOOD: dict[str, Any] = {
    "metadata": {"request_id": "c6a8-11", "created": "2026-11-22T10:00:00Z", "duration": 3.25, "channels": 1},
    "results": {
        "channels": [
            {
                "alternatives": [
                    {
                        "transcript": "In $5.50, uh",
                        "confidence": 0.9,
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


def of_the_sdk(answer: Any) -> Any:
    return construct_type(type_=MediaTranscribeResponse, object_=answer)  # type: ignore[arg-type]


def changed(path: str, value: Any) -> Any:
    answer: Any = copy.deepcopy(GOOD)
    *steps, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    part = answer
    for step in steps:
        part = part[step]
    part[last] = value
    return answer


def test_words_are_as_written_with_the_times_given() -> None:
    heard = read_answer(of_the_sdk(GOOD), sent_seconds=3.25)

    assert heard.words == (
        Word(text="In", start_seconds=0.1, end_seconds=0.2, confidence=0.9),
        Word(text="$5.50,", start_seconds=0.2, end_seconds=1.0, confidence=0.8),
        Word(text="uh", start_seconds=2.0, end_seconds=2.0, confidence=0.0),
    )
    assert (heard.request_id, heard.billed_seconds) == ("c6a8-11", 3.25)


ALTERNATIVE = "results.channels.0.alternatives.0"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        "words",
        None,
        {"request_id": "accepted-for-a-callback"},
        changed("results", None),
        changed("results", [1]),
        changed("results.channels", []),
        changed("results.channels", {"0": 1}),
        changed("results.channels.0.alternatives", []),
        changed("results.channels.0.alternatives", "none"),
        changed(f"{ALTERNATIVE}.words", None),
        changed(f"{ALTERNATIVE}.words", []),
        changed(f"{ALTERNATIVE}.words", "In $5.50"),
        changed(f"{ALTERNATIVE}.words.1", None),
        changed(f"{ALTERNATIVE}.words.1", {"word": "alone"}),
        changed(f"{ALTERNATIVE}.words.1.start", -0.5),
        changed(f"{ALTERNATIVE}.words.1.start", math.nan),
        changed(f"{ALTERNATIVE}.words.1.end", math.inf),
        changed(f"{ALTERNATIVE}.words.1.confidence", 7),
        changed(f"{ALTERNATIVE}.transcript", None),
        changed("metadata", None),
        changed("metadata.request_id", ""),
        changed("metadata.duration", "long"),
        changed("metadata.duration", 2.0),
    ],
    ids=lambda answer: str(answer)[-60:],
)
def test_whatever_else_came_is_no_transcript_and_was_paid(answer: Any) -> None:
    with pytest.raises(TryFailed) as caught:
        read_answer(of_the_sdk(answer), sent_seconds=3.25)

    assert isinstance(caught.value.error, DeepgramUnavailable)
    assert caught.value.was_wasted
    assert caught.value.is_worth_repeating


def test_no_speech_is_an_answer() -> None:
    answer = changed(ALTERNATIVE, {"transcript": "", "confidence": 0.0, "words": []})

    assert read_answer(of_the_sdk(answer), sent_seconds=3.0).words == ()


def test_the_reason_names_the_place_and_quotes_nobody() -> None:
    answer = changed(f"{ALTERNATIVE}.words.1", {"word": "private", "start": "private"})

    with pytest.raises(TryFailed) as caught:
        read_answer(of_the_sdk(answer), sent_seconds=3.25)

    assert "results.channels.0.alternatives.0.words.1" in str(caught.value)
    assert "private" not in str(caught.value)
