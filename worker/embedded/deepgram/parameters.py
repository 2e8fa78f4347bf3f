"""The query of `/v1/listen`, as Deepgram's public API description has it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """The whole value matches `pattern`; `many`: it may come several times."""

    pattern: str
    many: bool = False


_FLAG = Parameter("true|false")
_NUMBER = Parameter(r"\d+(\.\d+)?")
_TEXT = Parameter(".+")
_TEXTS = Parameter(".+", many=True)

PARAMETERS: Mapping[str, Parameter] = {
    "callback": _TEXT,
    "callback_method": Parameter("POST|PUT"),
    "custom_intent": _TEXTS,
    "custom_intent_mode": Parameter("extended|strict"),
    "custom_topic": _TEXTS,
    "custom_topic_mode": Parameter("extended|strict"),
    "detect_entities": _FLAG,
    "detect_language": _TEXTS,
    "diarize": _FLAG,
    "diarize_model": Parameter("latest|v1|v2"),
    "dictation": _FLAG,
    "encoding": Parameter("linear16|flac|mulaw|amr-nb|amr-wb|opus|speex|g729"),
    "extra": _TEXTS,
    "filler_words": _FLAG,
    "intents": _FLAG,
    "keyterm": _TEXTS,
    "keywords": _TEXTS,
    "language": _TEXT,
    "measurements": _FLAG,
    "mip_opt_out": _FLAG,
    "model": _TEXT,
    "multichannel": _FLAG,
    "numerals": _FLAG,
    "paragraphs": _FLAG,
    "profanity_filter": _FLAG,
    "punctuate": _FLAG,
    "redact": _TEXTS,
    "replace": _TEXTS,
    "search": _TEXTS,
    "sentiment": _FLAG,
    "smart_format": _FLAG,
    "summarize": Parameter("true|false|v2"),
    "tag": _TEXTS,
    "topics": _FLAG,
    "utt_split": _NUMBER,
    "utterances": _FLAG,
    "version": _TEXT,
}


def violations(query: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Everything wrong with the query. Stricter than the service, which may overlook a name that it does not know."""
    return (*_each(query), *_repeated(query), *_together(dict(query)))


def _each(query: Sequence[tuple[str, str]]) -> Iterable[str]:
    for name, value in query:
        if name not in PARAMETERS:
            yield f"unknown parameter: {name}"
        elif not re.fullmatch(PARAMETERS[name].pattern, value):
            yield f"{name} may not be {value!r}"


def _repeated(query: Sequence[tuple[str, str]]) -> Iterable[str]:
    names = [name for name, _ in query if name in PARAMETERS and not PARAMETERS[name].many]
    return (f"{name} occurs more than once" for name in sorted({name for name in names if names.count(name) > 1}))


def _together(query: Mapping[str, str]) -> Iterable[str]:
    is_nova_3 = query.get("model", "").startswith("nova-3")
    if "keywords" in query and is_nova_3:
        yield "keywords are not supported for nova-3: use keyterm"
    if "keyterm" in query and not is_nova_3:
        yield "keyterm is supported for nova-3 only"
