"""Requests: content, concurrency and resources of this process."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import structlog

from tests.support.services.deepgram import Pair, chatter, deepgram
from tests.support.wait import eventually
from worker.embedded.deepgram import Reply, Slow
from worker.errors import DeepgramRejected
from worker.ports import SAMPLE_RATE_HZ

ANSWER = {
    "metadata": {"request_id": "r", "duration": 600.0},
    "results": {"channels": [{"alternatives": [{"transcript": "", "words": []}]}]},
}


async def hear(pair: Pair, seconds: float = 1, seed: int = 0) -> None:
    await pair.recogniser.recognise(chatter(seconds, seed), language="en-GB", job_id="job")


async def test_the_request_asks_for_what_the_pipeline_asks_for() -> None:
    async with deepgram(model="nova-3-medical") as pair:
        await hear(pair)

    assert dict(pair.server.receipts[0].query) == {
        "model": "nova-3-medical",
        "language": "en-GB",
        "smart_format": "true",
        "punctuate": "true",
        "paragraphs": "true",
        "filler_words": "true",
    }
    assert pair.server.receipts[0].content_type == "audio/flac"


@pytest.mark.parametrize(
    ("model", "asked"),
    [("nova-3", {"language": "multi"}), ("nova-2", {"detect_language": "true"})],
)
async def test_deepgram_finds_out_the_language_of_a_job_that_names_none(model: str, asked: dict[str, str]) -> None:
    async with deepgram(model=model) as pair:
        await pair.recogniser.recognise(chatter(1, 0), language="auto", job_id="job")

    query = dict(pair.server.receipts[0].query)
    assert {name: value for name, value in query.items() if "language" in name} == asked


async def keyterms_sent(model: str, *keyterms: str) -> list[str]:
    async with deepgram(model=model) as pair:
        await pair.recogniser.recognise(chatter(1, 0), language="en", job_id="job", keyterms=keyterms)
        await pair.recogniser.recognise(chatter(1, 1), language="en", job_id="job", keyterms=keyterms)

    first, second = ([value for name, value in one.query if name == "keyterm"] for one in pair.server.receipts)
    assert first == second
    return first


@pytest.mark.parametrize("model", ["nova-3", "nova-3-medical"])
async def test_each_keyterm_is_a_parameter_and_none_can_change_the_request(model: str) -> None:
    keyterms = ("C++ & C#", "Zoë", "a=b&language=de", "100%", "?/\\", "名前")

    assert await keyterms_sent(model, *keyterms) == list(keyterms)


async def test_keyterms_of_a_model_without_them_are_not_sent_and_logged_once() -> None:
    with structlog.testing.capture_logs() as logs:
        sent = await keyterms_sent("nova-2", "KlipStream")

    assert sent == []
    told = [log for log in logs if log["event"] == "deepgram.keyterms_ignored"]
    assert [log["model"] for log in told] == ["nova-2"]


async def test_keyterms_beyond_deepgrams_limit_of_tokens_are_left_out_and_counted() -> None:
    keyterms = [f"{number:060d}" for number in range(100)]

    with structlog.testing.capture_logs() as logs:
        sent = await keyterms_sent("nova-3", *keyterms, "Zed")

    assert sent == [*keyterms[:16], "Zed"]
    assert {log["count"] for log in logs if log["event"] == "deepgram.keyterms_left_out"} == {84}


REFUSAL = Reply(status=400, body=b'{"err_code": "Bad Request", "err_msg": "Keyterm limit exceeded."}')


async def test_a_chunk_that_is_refused_because_of_its_keyterms_is_sent_without_them() -> None:
    async with deepgram({0: REFUSAL}.get) as pair:
        heard = await pair.recogniser.recognise(chatter(3, 0), language="auto", job_id="job", keyterms=("Zed",))

    names = [[name for name, _ in one.query if name in {"keyterm", "language"}] for one in pair.server.receipts]
    assert names == [["language", "keyterm"], ["language"]]
    assert (len(heard.words) > 0, heard.wasted_requests) == (True, 0)


async def test_a_chunk_that_is_refused_without_keyterms_or_for_another_reason_is_not_sent_again() -> None:
    other = Reply(status=400, body=b"failed to process audio")
    for refusal, keyterms in ((REFUSAL, ()), (other, ("Zed",))):
        async with deepgram({0: refusal}.get) as pair:
            with pytest.raises(DeepgramRejected):
                await pair.recogniser.recognise(chatter(3, 0), language="en", job_id="job", keyterms=keyterms)

        assert len(pair.server.receipts) == 1


async def test_every_try_sends_the_whole_audio_again() -> None:
    down = Reply(status=503, body=b"")

    async with deepgram({0: down, 1: down}.get) as pair:
        await hear(pair, 25)

    assert [receipt.audio_seconds for receipt in pair.server.receipts] == [25.0, 25.0, 25.0]
    assert len({receipt.fingerprint for receipt in pair.server.receipts}) == 1


async def test_no_more_requests_are_in_flight_than_allowed() -> None:
    async with deepgram(max_concurrent=3) as pair:
        await asyncio.gather(*(hear(pair, 1, seed) for seed in range(15)))

    assert pair.server.most_under_way == 3
    assert len(pair.server.receipts) == 15


async def test_cancelling_frees_the_place_for_the_next() -> None:
    async with deepgram({0: Slow(seconds=60)}.get, max_concurrent=1) as pair:
        stuck = asyncio.create_task(hear(pair))
        await eventually(lambda: asyncio.sleep(0, bool(pair.server.receipts)))

        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        await hear(pair, 1, seed=1)

    assert pair.statuses == [None, 200]


@asynccontextmanager
async def a_drain() -> AsyncIterator[str]:
    """A service that keeps nothing of what it gets."""
    body = json.dumps(ANSWER).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        last = b""
        while not last.endswith(b"\r\n0\r\n\r\n"):
            last = last[-16:] + await reader.read(1 << 16)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]  # noqa: UP031


async def test_a_chunk_of_ten_minutes_is_sent_in_less_memory_than_its_samples_take() -> None:
    samples = np.tile(chatter(60), 10)
    async with a_drain() as url, deepgram(base_url=url) as pair:
        tracemalloc.start()

        heard = await pair.recogniser.recognise(samples, language="en", job_id="job")

        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert heard.billed_seconds == len(samples) / SAMPLE_RATE_HZ
    assert peak < samples.nbytes
