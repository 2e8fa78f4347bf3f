"""Thirty minutes with two chunks that Parakeet cannot do: only these go to Deepgram, and no seam shows."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from schemas.codes import Method
from schemas.events import DeepgramCost, ParakeetCost
from tests.support.audio.media import riff_wav
from tests.support.engines.failing_recognisers import FlatRateRecogniser, failing_where
from tests.support.engines.mortal_engine import make_deadly, mortal_engine
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from tests.support.services.deepgram import hear
from tests.support.workers.cloud import Cloud
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import words_in
from worker.app.engines import prices
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.transcript.planning import Chunk, ChunkCutter
from worker.embedded.deepgram import EmbeddedDeepgram
from worker.embedded.deepgram.audio import fingerprint
from worker.ports import SAMPLE_RATE_HZ, Pcm
from worker.settings import EngineSettings, MoneySettings

CHUNK_SECONDS = 300.0
# Chunks 2 and 4 of seven: they reach from 591.44 to 887.24 s and from 1183.04 to 1478.84 s.
AUDIO = make_deadly(speech(1800), 700.0, 1300.0)
BAD_CHUNKS = (2, 4)


def chunks() -> Sequence[Chunk]:
    cutter = ChunkCutter(chunk_seconds=CHUNK_SECONDS)
    return (*cutter.push(AUDIO), *cutter.finish())


def audio_of(chunk: Chunk) -> Pcm:
    return AUDIO[chunk.start_sample : chunk.end_sample]


def rows(content: bytes) -> list[tuple[float, float, str]]:
    found = csv.DictReader(io.StringIO(content.decode()))
    return [(float(row["start_time"]), float(row["end_time"]), row["word"]) for row in found]


def spoken() -> list[tuple[float, float, str]]:
    """Every word of the file, recognised without seams."""
    return [
        (round(word.start_seconds, 3), round(word.end_seconds, 3), word.text.lower().strip("."))
        for word in words_in(AUDIO)
    ]


async def test_the_bill_of_a_mixed_job_is_right_to_the_millionth(tmp_path: Path) -> None:
    plan = chunks()
    bad_windows = {plan[index].samples_of(span).tobytes() for index in BAD_CHUNKS for span in plan[index].windows}
    engine = FlatRateRecogniser(
        script=failing_where(lambda samples: samples.tobytes() in bad_windows), seconds_a_window=0.5
    )
    cloud = MemoryCloudRecogniser()
    deepgram = PaidRecogniser(recogniser=cloud, usd_per_minute=0.0045, budget=NoLimit())
    on_an_l4 = prices(EngineSettings(), MoneySettings(), uses_gpu=True)
    room = JobsRoom(
        tmp_path,
        recogniser=engine,
        deepgram=deepgram,
        claim_ttl_seconds=30,
        chunk_seconds=CHUNK_SECONDS,
        prices=on_an_l4,
    )
    await room.upload(AUDIO)

    await room.attempt().handle(OnlySlot())

    completed, cost = room.events
    parakeet, paid = cost.engines
    assert isinstance(parakeet, ParakeetCost)
    assert isinstance(paid, DeepgramCost)
    # Five good chunks: four with 11 windows, the last one with 1; half a second each.
    assert parakeet.gpu_seconds == 22.5
    assert parakeet.audio_seconds == 1208.4  # 295.64 + 3 x 295.8 + 25.36
    # An L4 with 4 vCPU and 16 GiB: 0.0001867 + 4 x 0.000011244 + 16 x 0.000001235 = 0.000251436; 22.5 s of that.
    assert parakeet.usd == 0.005657
    # Two chunks of 295.8 s: 9.86 minutes at 0.0045.
    assert (paid.requests, paid.audio_seconds, paid.usd) == (2, 591.6, 0.04437)
    assert paid.request_ids == tuple(answer.request_id for answer in cloud.answered)
    # 30 minutes at 0.0045, less 0.005657 and 0.04437.
    assert (cost.usd_total, cost.baseline.usd, cost.savings_usd) == (0.050027, 0.135, 0.084973)
    assert cost.savings_percent == 62.94
    assert completed.transcription_metadata.cost_estimate_usd == 0.050027


async def test_only_chunks_that_kill_the_inference_process_are_sent_once_each_and_no_seam_shows(cloud: Cloud) -> None:
    async with EmbeddedDeepgram(hear) as deepgram, mortal_engine() as engine:
        settings = {
            "deepgram_api_key": SecretStr(deepgram.api_key),
            "deepgram_base_url": deepgram.url,
            "chunk_duration_minutes": CHUNK_SECONDS / 60,
        }
        async with cloud.working(engine, **settings) as pipeline:
            await pipeline.submit(await pipeline.upload(riff_wav(AUDIO.astype("<i2").tobytes())))
            ending = await pipeline.ending(seconds=150)
            artefacts = await pipeline.artefacts(ending.completed)
        restarts = engine.health.restarts

    told = ending.completed.transcription_metadata
    assert (told.method_requested, told.method_used) == (Method.AUTO, Method.HYBRID)
    assert (told.chunks_total, told.chunks_fallback, told.fallback_used) == (7, 2, True)
    assert told.fallback_reasons == {"TRANSCRIPTION_SERVICE_ERROR": 2}
    assert (told.gpu_used, told.device_used) == (True, "a test GPU")
    assert restarts >= 2 * len(BAD_CHUNKS) - 1
    assert deepgram.payments() == {fingerprint(audio_of(chunks()[index])): 1 for index in BAD_CHUNKS}
    assert len(deepgram.receipts) == len(BAD_CHUNKS)
    assert rows(artefacts["audio_vod-job-1_words.csv"]) == spoken()
    parakeet, paid = ending.cost.engines
    assert isinstance(parakeet, ParakeetCost)
    assert parakeet.usd == pytest.approx(parakeet.gpu_seconds * 0.000251436, abs=1e-6)
    assert paid.usd == 0.04437
    assert set(paid.request_ids) == {receipt.request_id for receipt in deepgram.receipts}


def test_the_two_bad_chunks_are_where_the_comment_says() -> None:
    plan = chunks()

    seconds = [(plan[index].start_sample / SAMPLE_RATE_HZ, plan[index].end_sample / SAMPLE_RATE_HZ) for index in (2, 4)]

    assert seconds == [(591.44, 887.24), (1183.04, 1478.84)]
