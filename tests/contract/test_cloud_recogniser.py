"""Contract of every `CloudRecogniser`, on the twin and on Deepgram's adapter with the development server."""

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from tests.support.services.deepgram import chatter, deepgram
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import words_in
from worker.embedded.deepgram import Reply, Slow
from worker.errors import DeepgramDown
from worker.ports import SAMPLE_RATE_HZ, CloudRecogniser


@pytest.fixture(params=["memory", "deepgram"])
async def recogniser(request: pytest.FixtureRequest) -> AsyncIterator[CloudRecogniser]:
    if request.param == "memory":
        yield MemoryCloudRecogniser(model_name="nova-3")
        return
    async with deepgram() as pair:
        yield pair.recogniser


@pytest.fixture(params=["memory", "deepgram"])
async def failing(request: pytest.FixtureRequest) -> AsyncIterator[tuple[CloudRecogniser, Callable[[], object]]]:
    """A service that refuses its account, and what mends it."""
    if request.param == "memory":
        twin = MemoryCloudRecogniser()
        twin.go_down("status 401")
        yield twin, twin.mend
        return
    refused = {0: Reply(status=401, body=b"no such key")}
    async with deepgram(refused.get) as pair:
        yield pair.recogniser, lambda: None


@pytest.fixture(params=["memory", "deepgram"])
async def slow(request: pytest.FixtureRequest) -> AsyncIterator[tuple[CloudRecogniser, asyncio.Event]]:
    """A service that takes a moment, and when it has been sent the whole chunk."""
    is_sent = asyncio.Event()

    async def take_a_moment(*_: object) -> None:
        is_sent.set()
        await asyncio.sleep(0.1)

    if request.param == "memory":
        yield MemoryCloudRecogniser(script=take_a_moment, cancelled_seconds=3.0), is_sent
        return
    async with deepgram({0: Slow(seconds=0.1)}.get) as pair:
        pair.server._service._clock.sleep = take_a_moment  # type: ignore[method-assign]
        yield pair.recogniser, is_sent


async def test_a_whole_chunk_has_words_with_times_on_its_own_clock(recogniser: CloudRecogniser) -> None:
    samples = chatter(90)

    heard = await recogniser.recognise(samples, language="en", job_id="job")

    assert len(heard.words) > 50
    assert all(0 <= word.start_seconds <= word.end_seconds <= 90 for word in heard.words)
    assert heard.words[-1].end_seconds > 85
    assert all(0 <= word.confidence <= 1 and word.text.strip() == word.text for word in heard.words)


async def test_words_keep_their_case_and_punctuation(recogniser: CloudRecogniser) -> None:
    samples = chatter(20)

    heard = await recogniser.recognise(samples, language="en", job_id="job")

    assert list(heard.words) == list(words_in(samples))
    assert heard.words[0].text.istitle()
    assert heard.words[-1].text.endswith(".")


async def test_the_bill_is_the_length_of_the_audio(recogniser: CloudRecogniser) -> None:
    heard = await recogniser.recognise(chatter(12.3456), language="en", job_id="job")

    assert heard.billed_seconds == pytest.approx(12.3456, abs=1 / SAMPLE_RATE_HZ)
    assert heard.wasted_requests == 0


async def test_silence_has_no_words_and_costs_as_much_as_speech(recogniser: CloudRecogniser) -> None:
    silence = np.zeros(5 * SAMPLE_RATE_HZ, dtype=np.int16)

    heard = await recogniser.recognise(silence, language="en", job_id="job")

    assert heard.words == ()
    assert heard.billed_seconds == 5


async def test_every_paid_request_has_a_name_of_its_own(recogniser: CloudRecogniser) -> None:
    samples = chatter(2)

    heard = [await recogniser.recognise(samples, language="en", job_id="job") for _ in range(3)]

    assert len({recognition.request_id for recognition in heard}) == 3
    assert all(recognition.words == heard[0].words for recognition in heard)


async def test_chunks_side_by_side_do_not_mix(recogniser: CloudRecogniser) -> None:
    chunks = [chatter(3, seed) for seed in range(12)]

    heard = await asyncio.gather(
        *(recogniser.recognise(chunk, language="en", job_id=f"job-{number}") for number, chunk in enumerate(chunks))
    )

    assert [recognition.words for recognition in heard] == [tuple(words_in(chunk)) for chunk in chunks]


async def test_requests_do_not_wait_while_the_service_is_up(recogniser: CloudRecogniser) -> None:
    await recogniser.recognise(chatter(1), language="en", job_id="job")

    await asyncio.wait_for(recogniser.turn(), 5)

    assert recogniser.down_because == ""


async def test_a_service_that_is_down_says_so_refuses_and_lets_its_waiters_go_when_it_is_back(
    failing: tuple[CloudRecogniser, Callable[[], object]],
) -> None:
    recogniser, mend = failing
    with pytest.raises(DeepgramDown):
        await recogniser.recognise(chatter(1), language="en", job_id="job")
    reason = recogniser.down_because
    waiting = asyncio.create_task(recogniser.turn())

    mend()
    await asyncio.wait_for(waiting, 5)
    heard = await recogniser.recognise(chatter(1), language="en", job_id="job")

    assert "401" in reason
    assert heard.request_id
    assert recogniser.down_because == ""


async def test_a_caller_that_is_cancelled_still_gets_the_answer_to_what_was_sent(
    slow: tuple[CloudRecogniser, asyncio.Event],
) -> None:
    recogniser, is_sent = slow
    request = asyncio.create_task(recogniser.recognise(chatter(1), language="en", job_id="job"))
    await asyncio.wait_for(is_sent.wait(), 5)

    request.cancel()
    heard = await request

    assert heard.interrupted
    assert heard.request_id


async def test_the_model_is_known_before_the_first_request(recogniser: CloudRecogniser) -> None:
    assert recogniser.model_name == "nova-3"
