"""Every way Deepgram and the network fail, through the SDK and a socket, and what becomes of it."""

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from tests.support.services.deepgram import chatter, deepgram
from worker.adapters.deepgram import RequestTimeouts, RetryPolicy
from worker.embedded.deepgram import Reply, Reset, SeededFaults, Slow
from worker.errors import (
    DeepgramAuthError,
    DeepgramDown,
    DeepgramQuotaError,
    DeepgramRejected,
    DeepgramUnavailable,
    DeepgramUnusable,
    JobFault,
    PaidServiceError,
    Retryable,
    ServiceDown,
    TranscriptionTimeout,
)
from worker.ports import CloudRecognition

CHUNK = chatter(2)
OLD_SHAPE = json.dumps({"err_code": "SOME_CODE", "err_msg": "what is wrong", "request_id": "r-1"}).encode()
NEW_SHAPE = json.dumps(
    {"category": "SOME_CODE", "message": "what is", "details": "wrong", "request_id": "r-1"}
).encode()


def always(status: int, body: bytes = OLD_SHAPE, **headers: str) -> Any:
    return lambda _number: Reply(status=status, body=body, headers=headers)


async def hear(pair: Any) -> CloudRecognition:
    heard: CloudRecognition = await pair.recogniser.recognise(CHUNK, language="en", job_id="job")
    return heard


@pytest.mark.parametrize(
    ("status", "error", "requests", "opens"),
    [
        (400, DeepgramRejected, 1, False),
        (401, DeepgramAuthError, 1, True),
        (402, DeepgramQuotaError, 1, True),
        (403, DeepgramAuthError, 1, True),
        (404, DeepgramDown, 1, False),
        (405, DeepgramDown, 1, False),
        (408, DeepgramDown, 3, False),
        (413, DeepgramRejected, 1, False),
        (414, DeepgramRejected, 1, False),
        (415, DeepgramRejected, 1, False),
        (422, DeepgramRejected, 1, False),
        (429, DeepgramQuotaError, 3, False),
        (500, DeepgramDown, 3, False),
        (502, DeepgramDown, 3, False),
        (503, DeepgramDown, 3, False),
        (504, DeepgramDown, 3, False),
        (599, DeepgramDown, 3, False),
    ],
)
async def test_a_status_has_its_error_and_is_repeated_where_that_helps(
    status: int, error: type[PaidServiceError], requests: int, opens: bool
) -> None:
    async with deepgram(always(status), retries=RetryPolicy(tries=3)) as pair:
        with pytest.raises(PaidServiceError) as caught:
            await hear(pair)

    assert type(caught.value) is error
    assert pair.statuses == [status] * requests
    assert caught.value.wasted_requests == 0
    assert sum(pair.server.payments().values()) == 0
    assert bool(pair.recogniser.down_because) is opens
    assert isinstance(caught.value, JobFault if error is DeepgramRejected else ServiceDown)


class BrokenNetwork(httpx.AsyncBaseTransport):
    """A network that fails so, before the body is read or when it is out."""

    def __init__(self, error: type[httpx.RequestError], *, after_body: bool) -> None:
        self._error, self._after_body = error, after_body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._after_body:
            async for _ in cast("httpx.AsyncByteStream", request.stream):
                pass
        raise self._error("trouble", request=request)


BEFORE, AFTER = False, True


@pytest.mark.parametrize(
    ("failure", "when", "error", "tries"),
    [
        (httpx.ConnectError, BEFORE, DeepgramDown, 6),
        (httpx.ConnectTimeout, BEFORE, DeepgramDown, 6),
        (httpx.PoolTimeout, BEFORE, DeepgramDown, 6),
        (httpx.ProxyError, BEFORE, DeepgramDown, 6),
        (httpx.UnsupportedProtocol, BEFORE, DeepgramDown, 6),
        (httpx.LocalProtocolError, BEFORE, DeepgramDown, 6),
        (httpx.WriteError, BEFORE, DeepgramDown, 6),
        (httpx.WriteTimeout, BEFORE, DeepgramDown, 6),
        (httpx.ReadError, BEFORE, DeepgramDown, 6),
        (httpx.RemoteProtocolError, BEFORE, DeepgramDown, 6),
        (httpx.ReadTimeout, BEFORE, DeepgramDown, 1),
        (httpx.ReadError, AFTER, DeepgramUnavailable, 2),
        (httpx.CloseError, AFTER, DeepgramUnavailable, 2),
        (httpx.RemoteProtocolError, AFTER, DeepgramUnavailable, 2),
        (httpx.ReadTimeout, AFTER, TranscriptionTimeout, 1),
        (httpx.DecodingError, AFTER, DeepgramUnusable, 2),
    ],
)
async def test_a_failure_of_the_network_counts_against_the_job_only_where_it_may_be_billed(
    failure: type[httpx.RequestError], when: bool, error: type[PaidServiceError], tries: int
) -> None:
    async with deepgram() as pair:
        pair.recogniser._http = httpx.AsyncClient(transport=BrokenNetwork(failure, after_body=when))
        with pytest.raises(PaidServiceError) as caught:
            await hear(pair)

    assert type(caught.value) is error
    assert caught.value.wasted_requests == (tries if when is AFTER else 0)
    assert isinstance(caught.value, Retryable if when is AFTER else ServiceDown)
    assert len(pair.clock.slept) == tries - 1


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (OLD_SHAPE, "application/json", "SOME_CODE: what is wrong (request r-1)"),
        (NEW_SHAPE, "application/json", "SOME_CODE: what is: wrong (request r-1)"),
        (b"upstream connect\n error", "text/plain", "upstream connect error (request "),
        (b"", "text/plain", "no reason given (request "),
        (b'"just text"', "application/json", "just text (request "),
        (b"[1, 2]", "application/json", "[1, 2] (request "),
        (b"x" * 5_000, "text/html", "x" * 300),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
async def test_the_reason_is_found_in_every_shape_of_refusal(
    status: int, body: bytes, content_type: str, reason: str
) -> None:
    async with deepgram(always(status, body, **{"content-type": content_type})) as pair:
        with pytest.raises(DeepgramRejected) as caught:
            await hear(pair)

    assert f"({status})" in str(caught.value)
    assert caught.value.reason.startswith(reason)
    assert len(caught.value.reason) < 400


async def test_after_a_burst_of_429_the_chunk_comes_through_and_is_paid_once() -> None:
    burst = {n: Reply(status=429, body=OLD_SHAPE, headers={"retry-after": "7"}) for n in range(3)}

    async with deepgram(burst.get) as pair:
        heard = await hear(pair)

    assert pair.statuses == [429, 429, 429, 200]
    assert all(7 <= wait <= 8 for wait in pair.clock.slept)
    assert list(pair.server.payments().values()) == [1]
    assert heard.wasted_requests == 0


async def test_a_date_in_retry_after_is_understood() -> None:
    later = Reply(status=503, body=b"", headers={"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"})

    async with deepgram({0: later}.get) as pair:
        await hear(pair)

    assert 30 <= pair.clock.slept[0] <= 31


async def test_a_reset_after_the_upload_is_repeated_once_and_owned_up_to() -> None:
    async with deepgram({0: Reset(after_upload=True)}.get) as pair:
        heard = await hear(pair)

    assert pair.statuses == [None, 200]
    assert heard.wasted_requests == 1
    assert list(pair.server.payments().values()) == [2]


async def test_a_second_reset_after_the_upload_is_the_end() -> None:
    async with deepgram(lambda _: Reset(after_upload=True)) as pair:
        with pytest.raises(DeepgramUnavailable, match="connection failed") as caught:
            await hear(pair)

    assert len(pair.server.receipts) == 2
    assert caught.value.wasted_requests == 2


async def test_a_reset_during_the_upload_costs_nothing_and_is_repeated_like_any_failure() -> None:
    resets = {n: Reset(after_upload=False) for n in range(4)}

    async with deepgram(resets.get) as pair:
        heard = await pair.recogniser.recognise(chatter(90), language="en", job_id="job")

    assert pair.statuses == [None] * 4 + [200]
    assert heard.wasted_requests == 0


@pytest.mark.parametrize(
    "headers", [{"content-encoding": "gzip"}, {"content-length": "99"}], ids=["not what it says", "cut off"]
)
async def test_a_refusal_is_not_billed_though_its_body_cannot_be_read(headers: dict[str, str]) -> None:
    class Refusal(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            async for _ in cast("httpx.AsyncByteStream", request.stream):
                pass
            return httpx.Response(503, headers=headers, content=self._body())

        async def _body(self) -> AsyncIterator[bytes]:
            yield b"upstream trouble"
            raise httpx.ReadError("reset")

    async with deepgram(retries=RetryPolicy(tries=2)) as pair:
        pair.recogniser._http = httpx.AsyncClient(transport=Refusal())
        with pytest.raises(DeepgramDown, match="status 503") as caught:
            await hear(pair)

    assert caught.value.wasted_requests == 0


async def test_a_refusal_whose_body_does_not_end_is_not_billed_and_is_known_by_its_status() -> None:
    class Refusal(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            async for _ in cast("httpx.AsyncByteStream", request.stream):
                pass
            return httpx.Response(503, headers={"retry-after": "7"}, content=self._body())

        async def _body(self) -> AsyncIterator[bytes]:
            yield b"upstream"
            await asyncio.Event().wait()

    timeouts = RequestTimeouts(refusal_seconds=0.01)
    async with deepgram(retries=RetryPolicy(tries=2), timeouts=timeouts) as pair:
        pair.recogniser._http = httpx.AsyncClient(transport=Refusal())
        with pytest.raises(DeepgramDown, match="status 503") as caught:
            await hear(pair)

    assert caught.value.wasted_requests == 0
    assert len(pair.clock.slept) == 1
    assert pair.clock.slept[0] >= 7


async def test_an_address_that_is_none_is_a_service_that_is_down() -> None:
    async with deepgram(base_url="http://[::") as pair:
        with pytest.raises(DeepgramDown, match="InvalidURL"):
            await hear(pair)


async def test_a_redirect_is_not_followed_the_key_goes_to_one_host_alone() -> None:
    async with deepgram(always(307, location="http://127.0.0.1:9/"), retries=RetryPolicy(tries=2)) as pair:
        with pytest.raises(DeepgramDown, match="status 307"):
            await hear(pair)

    assert pair.statuses == [307, 307]


async def test_a_service_that_is_not_there_is_down() -> None:
    async with deepgram(base_url="http://127.0.0.1:9") as pair:
        with pytest.raises(DeepgramDown, match="ConnectError"):
            await hear(pair)

    assert len(pair.clock.slept) == 5


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"results": {"channels": []}, "metadata": {}}',
        b'{"\xff": 1}',
        b"[" * 100_000,
        b'{"metadata": {"duration": ' + b"1" * 5_000 + b"}}",
    ],
    ids=lambda body: str(body[:20]),
)
async def test_a_success_that_is_no_transcript_was_paid_and_is_repeated_once(body: bytes) -> None:
    async with deepgram(always(200, body)) as pair:
        with pytest.raises(DeepgramUnusable, match="no transcript") as caught:
            await hear(pair)

    assert pair.statuses == [200, 200]
    assert caught.value.wasted_requests == 2


async def test_a_damaged_encoding_of_the_answer_is_one_more_of_them() -> None:
    gzip = Reply(status=200, body=b"not gzip at all", headers={"content-encoding": "gzip"})

    async with deepgram({0: gzip}.get) as pair:
        heard = await hear(pair)

    assert heard.wasted_requests == 1


async def test_an_answer_that_does_not_come_is_given_up_and_not_asked_for_again() -> None:
    timeouts = RequestTimeouts(least_seconds=1.5, seconds_per_audio_second=0)

    async with deepgram({0: Slow(seconds=60)}.get, timeouts=timeouts) as pair:
        with pytest.raises(TranscriptionTimeout) as caught:
            await hear(pair)

    assert pair.statuses == [None]
    assert caught.value.wasted_requests == 1
    assert caught.value.engine == "deepgram"


async def test_patience_grows_with_the_audio_and_ends_where_deepgram_gives_up() -> None:
    timeouts = RequestTimeouts()

    assert [timeouts.limit_seconds(seconds) for seconds in (0, 30, 600, 3_600)] == [60, 75, 360, 660]


async def test_a_service_that_keeps_failing_is_left_alone_for_a_while() -> None:
    async with deepgram(always(500), retries=RetryPolicy(tries=2)) as pair:
        for _ in range(7):
            with pytest.raises(DeepgramDown):
                await hear(pair)

    assert len(pair.server.receipts) == 3 * 2


async def test_a_probe_is_one_try() -> None:
    async with deepgram(always(500), retries=RetryPolicy(tries=2)) as pair:
        for _ in range(3):
            with pytest.raises(DeepgramDown):
                await hear(pair)
        await pair.clock.sleep(10)
        with pytest.raises(DeepgramDown):
            await hear(pair)

    assert len(pair.server.receipts) == 3 * 2 + 1


async def test_requests_in_flight_when_the_breaker_opens_are_not_repeated() -> None:
    async with deepgram(always(500), retries=RetryPolicy(tries=50)) as pair:
        outcomes = await asyncio.gather(*(hear(pair) for _ in range(4)), hear_refused(pair), return_exceptions=True)

    assert all(isinstance(outcome, DeepgramDown) for outcome in outcomes)
    assert len(pair.server.receipts) < 50


async def hear_refused(pair: Any) -> None:
    """Open the breaker, as a refused key does."""
    await asyncio.sleep(0)
    with pair.recogniser._breaker.guard("another"):
        raise DeepgramAuthError(401, "no such key")


class Flood(httpx.AsyncBaseTransport):
    """A service whose answer is 96 MB long, and packed where that is asked for."""

    def __init__(self, *, packed: bool) -> None:
        self._headers = {"content-encoding": "gzip"} if packed else {}
        self._piece = gzip.compress(b" " * (1 << 20)) if packed else b" " * (1 << 20)
        self.pieces = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async for _ in cast("httpx.AsyncByteStream", request.stream):
            pass
        return httpx.Response(200, headers=self._headers, content=self._body())

    async def _body(self) -> AsyncIterator[bytes]:
        for _ in range(96):
            self.pieces += 1
            yield self._piece


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
async def test_an_answer_of_any_size_takes_the_memory_of_a_transcript(packed: bool) -> None:
    flood = Flood(packed=packed)
    async with deepgram(retries=RetryPolicy(tries=1)) as pair:
        pair.recogniser._http = httpx.AsyncClient(transport=flood)
        tracemalloc.start()

        with pytest.raises(DeepgramUnusable, match=r"larger than \d+ bytes"):
            await hear(pair)

        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert flood.pieces == 1
    assert peak < 8 << 20


async def test_a_hundred_chunks_under_faults_are_each_transcribed_and_paid_once() -> None:
    storm = SeededFaults(seed=11, burst_share=0.1, server_error_share=0.1)
    chunks = [chatter(1.5, seed) for seed in range(100)]

    async with deepgram(storm, retries=RetryPolicy(tries=10)) as pair:
        heard = await asyncio.gather(
            *(pair.recogniser.recognise(chunk, language="en", job_id="job") for chunk in chunks)
        )

    assert len(pair.server.receipts) > 110
    assert len({recognition.request_id for recognition in heard}) == 100
    assert list(pair.server.payments().values()) == [1] * 100


async def test_in_a_storm_with_resets_every_payment_in_vain_is_owned_up_to() -> None:
    storm = SeededFaults(seed=5, burst_share=0.1, server_error_share=0.1, reset_share=0.05)
    chunks = [chatter(1.5, seed) for seed in range(100)]

    async with deepgram(storm) as pair:
        heard = await asyncio.gather(
            *(pair.recogniser.recognise(chunk, language="en", job_id="job") for chunk in chunks),
            return_exceptions=True,
        )

    wasted = sum(outcome.wasted_requests for outcome in heard if isinstance(outcome, CloudRecognition))
    wasted += sum(outcome.wasted_requests for outcome in heard if isinstance(outcome, PaidServiceError))
    paid = sum(pair.server.payments().values())
    assert wasted > 0
    assert paid == wasted + sum(isinstance(outcome, CloudRecognition) for outcome in heard)
