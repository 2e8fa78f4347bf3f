"""`demo --fallback`: the same demo with a stand-in for Deepgram, and an inference process that is killed at work.

The worker is the command `run` once more, and knows nothing of this: its inference process is stopped and killed from
outside, as a GPU fault or the kernel's OOM killer would do it, until one window has died in two processes. Its chunk
goes to Deepgram then, and no other. Another job is shared by both engines because it asks for that.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from schemas.codes import Method
from schemas.events import CompletedEvent, DeepgramCost
from schemas.speech import Word
from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.commands.console import cell, out
from worker.commands.demo import MOST_SECONDS, DemoOutcome, Order, play, show_log
from worker.commands.tables import NOTHING, Field, FittedTable, print_fitted
from worker.core.transcript.planning import ChunkCutter
from worker.embedded.deepgram import EmbeddedDeepgram
from worker.embedded.deepgram.audio import fingerprint
from worker.embedded.own_thread import in_thread
from worker.embedded.samples import Sample, samples
from worker.ports import SAMPLE_RATE_HZ, Pcm

CHUNK_SECONDS = 60
POLL_SECONDS = 0.01
STARTED, QUARANTINED = ("engine.started", "engine.replaced"), "engine.window_quarantined"
FIELDS = (
    Field(name="job", least=12, is_id=True),
    Field(name="method"),
    Field(name="chunks", right=True, rank=1),
    Field(name="by Deepgram", right=True),
    Field(name="requests", right=True, rank=2),
    Field(name="fell back because of", least=31),
)


def demo_fallback(folder: Path, *, verbose: bool = False) -> None:
    """Run it. Exit 1 when a job failed."""
    show_log(verbose=verbose)
    sources = samples()
    script = asyncio.run(_script(sources))

    async def hear(samples: Pcm) -> Sequence[Word]:
        return script.get(fingerprint(samples), ())

    out().print("Deepgram is a stand-in that knows the samples' texts; the inference process will be killed at work")
    with in_thread(EmbeddedDeepgram(hear)) as deepgram:
        methods = (Method.AUTO, Method.AUTO, Method.HYBRID)
        orders = [Order(source=source.path, method=method) for source, method in zip(sources, methods, strict=True)]
        environment = _environment(deepgram)
        outcomes = play(orders, folder, environment=environment, before_publishing=_sabotage)
        print_fitted(_shares(outcomes))
        paid = sum(receipt.paid for receipt in deepgram.receipts)
        out().print(f"the stand-in was paid for {paid} of {len(deepgram.receipts)} requests")


def _environment(deepgram: EmbeddedDeepgram) -> Mapping[str, str]:
    return {
        "DEEPGRAM_API_KEY": deepgram.api_key,
        "DEEPGRAM_BASE_URL": deepgram.url,
        "FALLBACK_BUDGET_USD_PER_DAY": "1",
        "CHUNK_DURATION_MINUTES": str(CHUNK_SECONDS / 60),
    }


def _shares(outcomes: Sequence[DemoOutcome]) -> FittedTable:
    rows = []
    for outcome in outcomes:
        if isinstance(outcome.ended, CompletedEvent) and outcome.cost:
            metadata = outcome.ended.transcription_metadata
            paid = [engine for engine in outcome.cost.engines if isinstance(engine, DeepgramCost)]
            reasons = ", ".join(f"{code} ({count})" for code, count in metadata.fallback_reasons.items())
            rows.append(
                (
                    outcome.job_id,
                    cell(metadata.method_used),
                    str(metadata.chunks_total),
                    f"{sum(engine.audio_seconds for engine in paid):.0f} s",
                    str(sum(engine.requests for engine in paid)),
                    reasons or NOTHING,
                )
            )
    return FittedTable(title="who did what", fields=FIELDS, rows=rows)


# what the stand-in knows


async def _script(sources: Sequence[Sample]) -> Mapping[str, Sequence[Word]]:
    """Return the words of each chunk of the samples, by the fingerprint of its audio."""
    decoder = FfmpegDecoder(ffmpeg=find_ffmpeg(), limits=Limits(max_seconds=MOST_SECONDS))
    script = {}
    for source in sources:
        async with decoder.decode(source.path) as stream:
            audio = np.concatenate([block async for block in stream])
        cutter = ChunkCutter(chunk_seconds=CHUNK_SECONDS)
        for chunk in (*cutter.push(audio), *cutter.finish()):
            words = tuple(_words(source, chunk.start_sample, chunk.end_sample))
            script[fingerprint(audio[chunk.start_sample : chunk.end_sample])] = words
    return script


def _words(source: Sample, start: int, end: int) -> Iterator[Word]:
    """Return the words between two samples of the file, timed from the first; an utterance's words share its time."""
    for utterance in source.utterances:
        texts = utterance.text.split()
        length = (utterance.end_sample - utterance.start_sample) / len(texts)
        for number, text in enumerate(texts):
            at = utterance.start_sample + number * length
            if start <= at and at + length <= end:
                began = (at - start) / SAMPLE_RATE_HZ
                yield Word(text, began, began + length / SAMPLE_RATE_HZ, 0.99)


# what happens to the inference process


def _sabotage(log: Path) -> None:
    """Wait for the inference process, stop it before it gets work, and see to its end and that of its successors."""
    first = next(_pids(log))
    os.kill(first, signal.SIGSTOP)  # the worker finds it silent, with windows in its hands, and replaces it
    threading.Thread(target=partial(_kill_successors, log, first), name="sabotage", daemon=True).start()


def _kill_successors(log: Path, first: int) -> None:
    for pid in _pids(log):
        if pid != first:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pids(log: Path) -> Iterator[int]:
    """Inference processes as they come to serve, until a window has been put aside."""
    deadline, seen = time.monotonic() + MOST_SECONDS, 0
    while time.monotonic() < deadline:
        events = list(_events(log))
        if any(event["event"] == QUARANTINED for event in events):
            return
        pids = [event["pid"] for event in events if event["event"] in STARTED]
        yield from pids[seen:]
        seen = len(pids)
        time.sleep(POLL_SECONDS)


def _events(log: Path) -> Iterator[Mapping[str, Any]]:
    for line in log.read_text("utf-8").splitlines():
        with suppress(json.JSONDecodeError):  # its last line may be half written, and others write there too
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                yield event
