"""Fields of the completed event about a job's keyterms."""

import asyncio
from collections.abc import Sequence
from typing import TypedDict

from schemas.speech import Word
from worker.core.jobs.transcription import Transcribed
from worker.core.transcript.keyterms import keyterms_in, with_sound
from worker.ports import WindowRecogniser


class KeytermFields(TypedDict):
    """Keyterms that the transcript has, and those that had no effect."""

    keyterms_found: tuple[str, ...]
    keyterms_unspeakable: tuple[str, ...]


async def keyterm_fields(
    keyterms: tuple[str, ...], transcribed: Transcribed, recogniser: WindowRecogniser
) -> KeytermFields:
    """Look a job's keyterms up in its transcript.

    A term without a letter or digit is unspeakable for every engine; one that the model cannot spell is so where
    Parakeet did a chunk.
    """
    if not keyterms:
        return KeytermFields(keyterms_found=(), keyterms_unspeakable=())
    audible = with_sound(keyterms)
    by_parakeet = any(chunk.engine == "parakeet" for chunk in transcribed.chunks)
    unspelt = recogniser.unspeakable(audible) if by_parakeet else ()
    found = await asyncio.to_thread(_found, keyterms, transcribed.channels or (transcribed.words,))
    return KeytermFields(
        keyterms_found=tuple(term for term in keyterms if term in found),
        keyterms_unspeakable=tuple(term for term in keyterms if term not in audible or term in unspelt),
    )


def _found(keyterms: tuple[str, ...], channels: Sequence[Sequence[Word]]) -> frozenset[str]:
    """Return the terms in the words of any channel: merged words of two speakers may interrupt each other."""
    return frozenset(term for words in channels for term in keyterms_in([word.text for word in words], keyterms))
