"""Contract of every `WindowRecogniser`, on the twin and on Parakeet with the tiny model."""

import asyncio

import numpy as np
import pytest

from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.ports import SAMPLE_RATE_HZ, Pcm, WindowRecogniser

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(params=["memory", pytest.param("parakeet", marks=[pytest.mark.model, pytest.mark.timeout(300)])])
def recogniser(request: pytest.FixtureRequest) -> WindowRecogniser:
    if request.param == "memory":
        return MemoryRecogniser()
    engine: WindowRecogniser = request.getfixturevalue("parakeet")
    return engine


async def test_speech_has_words_with_times_inside_the_window(
    recogniser: WindowRecogniser, speech_windows: tuple[Pcm, ...]
) -> None:
    samples = speech_windows[0]

    words = (await recogniser.recognise(samples, "job")).words

    assert len(words) > 20
    assert all(0 <= word.start_seconds <= word.end_seconds <= len(samples) / SAMPLE_RATE_HZ for word in words)
    assert all(0 <= word.confidence <= 1 for word in words)
    assert all(word.text and word.text.strip() == word.text for word in words)


async def test_a_windows_words_do_not_depend_on_the_company_it_keeps(
    recogniser: WindowRecogniser, speech_windows: tuple[Pcm, ...]
) -> None:
    alone = [(await recogniser.recognise(samples, "alone")).words for samples in speech_windows]

    together = await asyncio.gather(
        *(recogniser.recognise(samples, f"job-{number % 3}") for number, samples in enumerate(speech_windows))
    )

    assert [recognition.words for recognition in together] == alone


@pytest.mark.parametrize("samples", [1, 160, 1_600, 5 * SAMPLE_RATE_HZ, 40 * SAMPLE_RATE_HZ])
async def test_silence_of_any_length_has_no_words(recogniser: WindowRecogniser, samples: int) -> None:
    recognition = await recogniser.recognise(np.zeros(samples, dtype=np.int16), "job")

    assert recognition.words == ()


async def test_no_samples_are_no_words(recogniser: WindowRecogniser) -> None:
    assert (await recogniser.recognise(np.zeros(0, dtype=np.int16), "job")).words == ()


async def test_a_window_costs_engine_time(recogniser: WindowRecogniser, speech_windows: tuple[Pcm, ...]) -> None:
    assert (await recogniser.recognise(speech_windows[0], "job")).engine_seconds > 0


async def test_a_window_above_forty_seconds_is_the_callers_mistake(recogniser: WindowRecogniser) -> None:
    with pytest.raises(ValueError, match="longer than 40 s"):
        await recogniser.recognise(np.zeros(40 * SAMPLE_RATE_HZ + 1, dtype=np.int16), "job")


async def test_a_cancelled_window_does_not_disturb_the_others(
    recogniser: WindowRecogniser, speech_windows: tuple[Pcm, ...]
) -> None:
    calls = [asyncio.create_task(recogniser.recognise(samples, "job")) for samples in speech_windows]
    await asyncio.sleep(0)

    calls[3].cancel()

    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[3], asyncio.CancelledError)
    assert [isinstance(answer, BaseException) for answer in answers].count(True) == 1


async def test_the_facts_are_complete(recogniser: WindowRecogniser) -> None:
    facts = recogniser.facts

    assert facts.model_name
    assert facts.model_fingerprint
    assert facts.device_name
    assert facts.languages
    assert all(language == language.lower() for language in facts.languages)


async def test_keyterms_of_other_windows_change_no_word(
    recogniser: WindowRecogniser, speech_windows: tuple[Pcm, ...]
) -> None:
    plain = [(await recogniser.recognise(samples, "job")).words for samples in speech_windows[:2]]

    answers = await asyncio.gather(
        recogniser.recognise(speech_windows[0], "job", team_id="team"),
        recogniser.recognise(speech_windows[0], "terms", keyterms=("Harbor Nine", "Zebra")),
        recogniser.recognise(speech_windows[1], "empty", keyterms=()),
    )

    assert [answers[0].words, answers[2].words] == plain


async def test_keyterms_that_no_piece_spells_are_named(recogniser: WindowRecogniser) -> None:
    assert recogniser.unspeakable(("Harbor", "Ωμέγα", "the end", "東京")) == ("Ωμέγα", "東京")
