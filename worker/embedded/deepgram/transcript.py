"""Words in the shape of Deepgram's answer."""

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from schemas.speech import Word

SENTENCE_END = (".", "!", "?")
SENTENCES_OF_A_PARAGRAPH = 5


def listen_response(
    words: Sequence[Word],
    *,
    query: Mapping[str, str],
    request_id: str,
    created: datetime,
    duration_seconds: float,
    body: bytes,
) -> dict[str, Any]:
    """Return the response of `/v1/listen`; with punctuation and paragraphs if the query asks for them."""
    smart = query.get("smart_format") == "true"
    alternative = _alternative(words, punctuated=smart or query.get("punctuate") == "true")
    if smart or query.get("paragraphs") == "true":
        alternative["paragraphs"] = _paragraphs(words)
    model = query.get("model", "base-general")
    model_id = str(uuid.uuid5(uuid.NAMESPACE_DNS, model))
    return {
        "metadata": {
            "transaction_key": "deprecated",
            "request_id": request_id,
            "sha256": hashlib.sha256(body).hexdigest(),
            "created": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": duration_seconds,
            "channels": 1,
            "models": [model_id],
            "model_info": {model_id: {"name": model, "version": "stand-in", "arch": model}},
        },
        "results": {"channels": [{"alternatives": [alternative]}]},
    }


def _alternative(words: Sequence[Word], *, punctuated: bool) -> dict[str, Any]:
    shown = [_word(word, punctuated=punctuated) for word in words]
    return {
        "transcript": " ".join(word["punctuated_word" if punctuated else "word"] for word in shown),
        "confidence": sum(word.confidence for word in words) / len(words) if words else 0.0,
        "words": shown,
    }


def _word(word: Word, *, punctuated: bool) -> dict[str, Any]:
    raw = word.text.lower().strip(".,;:!?")
    plain = {"word": raw, "start": word.start_seconds, "end": word.end_seconds, "confidence": word.confidence}
    return plain | ({"punctuated_word": word.text} if punctuated else {})


def _paragraphs(words: Sequence[Word]) -> dict[str, Any]:
    sentences, size = list(_sentences(words)), SENTENCES_OF_A_PARAGRAPH
    paragraphs = [_paragraph(sentences[start : start + size]) for start in range(0, len(sentences), size)]
    texts = [" ".join(sentence["text"] for sentence in paragraph["sentences"]) for paragraph in paragraphs]
    return {"transcript": "".join(f"\n{text}" for text in texts), "paragraphs": paragraphs}


def _paragraph(sentences: Sequence[Sequence[Word]]) -> dict[str, Any]:
    shown = [
        {
            "text": " ".join(word.text for word in sentence),
            "start": sentence[0].start_seconds,
            "end": sentence[-1].end_seconds,
        }
        for sentence in sentences
    ]
    return {
        "sentences": shown,
        "num_words": sum(map(len, sentences)),
        "start": shown[0]["start"],
        "end": shown[-1]["end"],
    }


def _sentences(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    sentence: list[Word] = []
    for word in words:
        sentence.append(word)
        if word.text.endswith(SENTENCE_END):
            yield sentence
            sentence = []
    if sentence:
        yield sentence
