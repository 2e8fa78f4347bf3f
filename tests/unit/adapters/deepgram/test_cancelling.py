"""A caller that is cancelled: what is paid for may still be answered, nothing further is sent."""

import asyncio
from typing import Any

import pytest

from tests.support.services.deepgram import Pair, chatter, deepgram
from tests.support.wait import eventually
from worker.adapters.deepgram import RequestTimeouts
from worker.embedded.deepgram import Reply, Reset, Slow
from worker.ports import CloudRecognition

TIMEOUTS = RequestTimeouts(cancelled_seconds=3.0)


async def hear(pair: Pair) -> CloudRecognition:
    return await pair.recogniser.recognise(chatter(2), language="en", job_id="job")


async def sent(pair: Pair, count: int = 1) -> asyncio.Task[CloudRecognition]:
    """A request whose whole body the service has."""
    task = asyncio.create_task(hear(pair))

    async def is_out() -> bool:
        return len(pair.server.receipts) == count and pair.server.receipts[-1].whole_body

    await eventually(is_out)
    return task


async def test_a_request_that_was_sent_whole_gets_its_answer() -> None:
    async with deepgram({0: Slow(seconds=0.3)}.get, timeouts=TIMEOUTS) as pair:
        request = await sent(pair)

        request.cancel()
        heard = await request

    assert heard.interrupted
    assert heard.words
    assert pair.statuses == [200]


async def test_an_answer_without_cancellation_is_not_marked_interrupted() -> None:
    async with deepgram() as pair:
        assert not (await hear(pair)).interrupted


async def test_an_answer_that_comes_too_late_is_not_awaited() -> None:
    async with deepgram({0: Slow(seconds=60)}.get, timeouts=RequestTimeouts(cancelled_seconds=0.1)) as pair:
        request = await sent(pair)

        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    assert pair.statuses == [None]


async def test_a_second_cancellation_is_immediate() -> None:
    async with deepgram({0: Slow(seconds=60)}.get, timeouts=RequestTimeouts(cancelled_seconds=60)) as pair:
        request = await sent(pair)
        request.cancel()
        await asyncio.wait({request}, timeout=0.1)
        assert not request.done()

        request.cancel()
        await asyncio.wait({request}, timeout=5)

    assert request.cancelled()


@pytest.mark.parametrize(
    "fault", [Reply(status=503, body=b""), Reply(status=200, body=b"{}"), Reset(after_upload=True)], ids=str
)
async def test_nothing_is_sent_again_after_a_failure(fault: Any) -> None:
    release = asyncio.Event()

    async with deepgram(lambda _: fault, timeouts=TIMEOUTS) as pair:
        serve = pair.server._service._reply

        async def held(*arguments: Any) -> Any:
            await release.wait()
            return await serve(*arguments)

        pair.server._service._reply = held  # type: ignore[method-assign]
        request = await sent(pair)

        request.cancel()
        await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await request

    assert len(pair.server.receipts) == 1


async def test_a_wait_between_two_tries_ends_at_once() -> None:
    async with deepgram(lambda _: Reply(status=503, body=b""), timeouts=TIMEOUTS) as pair:
        waits = asyncio.Event()

        async def wait_for_ever(_seconds: float) -> None:
            waits.set()
            await asyncio.Event().wait()

        pair.clock.sleep = wait_for_ever  # type: ignore[method-assign]
        request = asyncio.create_task(hear(pair))
        await waits.wait()

        request.cancel()
        await asyncio.wait({request}, timeout=1)

    assert request.cancelled()
    assert len(pair.server.receipts) == 1


async def test_a_request_that_waits_for_its_turn_is_never_sent() -> None:
    async with deepgram(
        {0: Slow(seconds=60)}.get, max_concurrent=1, timeouts=RequestTimeouts(cancelled_seconds=0)
    ) as pair:
        first = await sent(pair)
        second = asyncio.create_task(hear(pair))
        await asyncio.sleep(0)

        second.cancel()
        first.cancel()
        await asyncio.wait({first, second})

    assert len(pair.server.receipts) == 1
