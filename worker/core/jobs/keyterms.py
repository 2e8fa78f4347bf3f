"""Fields of the completed event about a job's keyterms."""

import asyncio
from typing import TypedDict

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
    found = await asyncio.to_thread(keyterms_in, [word.text for word in transcribed.words], keyterms)
    return KeytermFields(
        keyterms_found=found,
        keyterms_unspeakable=tuple(term for term in keyterms if term not in audible or term in unspelt),
    )
