"""The stand-in as any HTTP client meets it."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
import soundfile
import structlog
from deepgram.types.listen_v1response import ListenV1Response

from tests.support.services.deepgram import KEY, chatter, hear
from worker.adapters.memory.recogniser import words_in
from worker.embedded.deepgram import EmbeddedDeepgram, Reply, Reset
from worker.embedded.own_thread import in_thread
from worker.ports import Pcm

LISTEN = "/v1/listen"


def file_of(samples: Pcm, file_format: str = "FLAC", rate_hz: int = 16_000) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, samples, rate_hz, format=file_format)
    return target.getvalue()


SAMPLES = chatter(20)
AUDIO = file_of(SAMPLES)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedDeepgram]:
    async with EmbeddedDeepgram(hear, api_key=KEY) as running:
        yield running


async def post(server: EmbeddedDeepgram, query: str = "", body: bytes = AUDIO, **headers: str) -> httpx.Response:
    sent = {"authorization": f"Token {KEY}", "content-type": "audio/flac"} | headers
    async with httpx.AsyncClient(base_url=server.url) as client:
        return await client.post(f"{LISTEN}?{query}", content=body, headers=sent)


async def test_the_answer_has_deepgrams_shape_by_its_sdk(server: EmbeddedDeepgram) -> None:
    answer = await post(server, "model=nova-3&smart_format=true&punctuate=true&paragraphs=true")

    parsed = ListenV1Response.model_validate(answer.json())
    said = parsed.results.channels[0].alternatives[0]  # type: ignore[index]
    assert [word.word for word in said.words] == [word.text.lower().rstrip(".") for word in words_in(SAMPLES)]  # type: ignore[union-attr]
    assert said.transcript == " ".join(word.text for word in words_in(SAMPLES))
    assert parsed.metadata.duration == 20.0
    assert parsed.metadata.request_id == answer.headers["dg-request-id"]


async def test_paragraphs_hold_all_sentences_in_order(server: EmbeddedDeepgram) -> None:
    answer = (await post(server, "smart_format=true")).json()

    said = answer["results"]["channels"][0]["alternatives"][0]
    paragraphs = said["paragraphs"]["paragraphs"]
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph["sentences"]]
    assert " ".join(sentence["text"] for sentence in sentences) == said["transcript"]
    assert sum(paragraph["num_words"] for paragraph in paragraphs) == len(said["words"])
    assert all(first["end"] <= second["start"] for first, second in pairwise(sentences))


async def test_punctuation_and_paragraphs_come_when_they_are_asked_for(server: EmbeddedDeepgram) -> None:
    said = (await post(server)).json()["results"]["channels"][0]["alternatives"][0]

    assert set(said) == {"transcript", "confidence", "words"}
    assert set(said["words"][0]) == {"word", "start", "end", "confidence"}
    assert said["transcript"] == said["transcript"].lower()


@pytest.mark.parametrize("file_format", ["FLAC", "WAV"])
async def test_audio_is_known_by_its_samples_not_by_its_file(server: EmbeddedDeepgram, file_format: str) -> None:
    await post(server)
    await post(server, body=file_of(SAMPLES, file_format))

    assert list(server.payments().values()) == [2]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"authorization": f"Bearer {KEY}"}, 401, "Invalid credentials."),
        ({"authorization": "Token wrong"}, 401, "Invalid credentials."),
        ({"content-type": "application/json"}, 415, "audio alone"),
        ({"query": "smart_fromat=true"}, 400, "unknown parameter: smart_fromat"),
        ({"query": "punctuate=yes"}, 400, "punctuate may not be 'yes'"),
        ({"body": b"this is no audio"}, 400, "corrupt or unsupported data"),
        ({"body": b""}, 400, "corrupt or unsupported data"),
        ({"body": file_of(SAMPLES, rate_hz=8_000)}, 400, "mono at 16000 Hz"),
    ],
)
async def test_what_the_api_would_not_take_is_refused_and_not_paid(
    server: EmbeddedDeepgram, change: dict[str, Any], status: int, message: str
) -> None:
    answer = await post(server, **change)

    assert answer.status_code == status
    assert message in answer.json()["err_msg"]
    assert answer.json()["request_id"] == server.receipts[0].request_id
    assert not server.receipts[0].paid


async def test_nothing_but_post_to_the_one_path_is_served(server: EmbeddedDeepgram) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:
        answers = [await client.get(LISTEN), await client.post("/v1/speak", content=AUDIO)]

    assert [answer.status_code for answer in answers] == [404, 404]


async def test_a_client_that_waits_for_permission_gets_it(server: EmbeddedDeepgram) -> None:
    head = (
        f"POST {LISTEN} HTTP/1.1\r\nhost: x\r\nauthorization: Token {KEY}\r\ncontent-type: audio/flac\r\n"
        f"content-length: {len(AUDIO)}\r\nexpect: 100-continue\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(server.host, server.port)

    writer.write(head.encode())
    permission = await reader.readline()
    writer.write(AUDIO)
    answer = await reader.read()

    assert b"100" in permission
    assert b"HTTP/1.1 200" in answer
    writer.close()


@pytest.mark.parametrize(
    "said", [b"", b"\0\1\2\r\n\r\n", b"POST /v1/listen HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"]
)
async def test_a_client_that_leaves_or_speaks_no_http_does_no_harm(server: EmbeddedDeepgram, said: bytes) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(said)
    writer.write_eof()

    assert await reader.read() == b""

    writer.close()
    assert (await post(server)).status_code == 200
    assert [receipt.paid for receipt in server.receipts][-1:] == [True]
    assert sum(receipt.paid for receipt in server.receipts) == 1


async def test_a_reset_after_the_upload_is_paid_and_one_before_it_is_not() -> None:
    faults = {0: Reset(after_upload=True), 1: Reset(after_upload=False)}
    async with EmbeddedDeepgram(hear, api_key=KEY, misbehave=faults.get) as server:
        for _ in faults:
            with pytest.raises(httpx.TransportError):
                await post(server)

    assert [(receipt.status, receipt.whole_body, receipt.paid) for receipt in server.receipts] == [
        (None, True, True),
        (None, False, False),
    ]


async def test_a_fault_answers_as_configured() -> None:
    fault = Reply(status=503, body=b"busy", headers={"content-type": "text/plain", "retry-after": "3"})
    async with EmbeddedDeepgram(hear, api_key=KEY, misbehave={0: fault}.get) as server:
        answer = await post(server)

    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "busy", "3")
    assert not server.receipts[0].paid


async def test_a_port_that_is_taken_raises_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="address already in use"):
        async with EmbeddedDeepgram(hear, port=taken.getsockname()[1]):
            pass


def test_it_runs_beside_synchronous_callers_and_says_what_it_is() -> None:
    with structlog.testing.capture_logs() as events, in_thread(EmbeddedDeepgram(hear)) as server:
        answer = httpx.post(
            f"{server.url}{LISTEN}",
            content=AUDIO,
            headers={"authorization": f"Token {server.api_key}", "content-type": "audio/flac"},
        )

    assert answer.status_code == 200
    assert events[0]["event"] == "embedded_deepgram.started"
    assert "stand-in" in events[0]["purpose"]
