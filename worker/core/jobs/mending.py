"""Recognises holes in a chunk's words again: speech that the engine passed over.

    holes -> a window from each hole's speech on -> words into the holes -> holes again, three rounds at most
    what is left -> Deepgram, these seconds alone, where the job may fall back

Which holes, which windows and which words is decided by pure functions of `worker.core.transcript.quality`.

The words are a function of the chunk's audio and the engines, so that a chunk which another worker does again has the
same ones. An engine that fails on such a window leaves the hole: the chunk has its words already.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from schemas.speech import WindowSpan, WindowTranscript
from schemas.state import Checkpoint, GapResult
from worker.core.tasks import together
from worker.core.transcript.planning import Chunk
from worker.core.transcript.quality import ROUNDS, Hole, allowance_of, filled, holes, second_window
from worker.errors import EngineError, JobFault, PaidServiceError, Retryable, ServiceDown, WorkerFault
from worker.ports import SAMPLE_RATE_HZ, CloudRecognition, Recognition
from worker.telemetry.register import GAPS

RecogniseWindow = Callable[[WindowSpan], Awaitable[Recognition]]
PayForWindow = Callable[[WindowSpan], Awaitable[CloudRecognition]]

log = structlog.get_logger(__name__)


class PayingStopped(Exception):
    """The job was cancelled before all of a chunk's holes were paid for; `gaps` has the bill of those that were."""

    def __init__(self, gaps: GapResult) -> None:
        self.gaps = gaps
        super().__init__("the job was cancelled between two holes")


async def mend(
    chunk: Chunk, finished: Checkpoint, found: tuple[Hole, ...], recognise: RecogniseWindow, *, may_pay: bool
) -> Checkpoint:
    """Return the chunk with the words of second passes over the holes that were found, and the holes' count.

    Raises the engine's error where it is this worker's fault and Deepgram may not fill the holes: another worker has
    their words.
    """
    left = found
    windows, allowance = finished.windows, allowance_of(chunk)
    for number in range(ROUNDS):
        passes = affordable(chunk, left, number, allowance)
        if not passes:
            break
        allowance -= sum(span.end_sample - span.start_sample for _, span in passes)
        try:
            async with together() as group:
                recognising = [group.create_task(_once(recognise, span)) for _, span in passes]
        except EngineError as exc:
            if isinstance(exc, WorkerFault) and not may_pay:
                raise
            log.warning("chunk.gaps_not_recognised", chunk=chunk.index, code=exc.code, reason=str(exc))
            break
        heard = [task.result() for task in recognising]
        windows, left = await asyncio.to_thread(_filled, chunk, windows, [hole for hole, _ in passes], heard)
    return finished.model_copy(update={"windows": windows, "gaps": _result(found, left)})


async def pay_for_the_rest(chunk: Chunk, mended: Checkpoint, pay: PayForWindow) -> Checkpoint:
    """Return the chunk with Deepgram's words in the holes that are left; a hole that it cannot have now stays one.

    Raises `PayingStopped` where the job was cancelled and holes are left: as a checkpoint the chunk would lack their
    words for good.
    """
    if not mended.gaps.left:
        return mended
    left = await asyncio.to_thread(holes, chunk, mended.windows)
    windows, gaps, still = mended.windows, mended.gaps, left
    passes = affordable(chunk, left, ROUNDS, allowance_of(chunk))
    for hole, span in passes:
        sent_seconds = (span.end_sample - span.start_sample) / SAMPLE_RATE_HZ
        try:
            answer = await pay(span)
        except (JobFault, ServiceDown, Retryable) as exc:
            wasted = exc.wasted_requests if isinstance(exc, PaidServiceError) else 0
            gaps = gaps.billed(requests=wasted, seconds=wasted * sent_seconds)
            log.warning("chunk.gap_left", chunk=chunk.index, code=exc.code, reason=str(exc))
            break
        seconds = answer.wasted_requests * sent_seconds + answer.billed_seconds
        gaps = gaps.billed(requests=answer.wasted_requests + 1, seconds=seconds, request_id=answer.request_id)
        heard = WindowTranscript(span, answer.words)
        windows, still = await asyncio.to_thread(_filled, chunk, windows, [hole], [heard])
        gaps = gaps.filled_by_deepgram(hole.start, hole.end)
        if answer.interrupted and hole is not passes[-1][0]:
            raise PayingStopped(gaps)
    return mended.model_copy(update={"windows": windows, "gaps": gaps.with_left(len(still))})


def affordable(chunk: Chunk, left: Sequence[Hole], number: int, allowance: int) -> list[tuple[Hole, WindowSpan]]:
    """Return the first holes and their windows of round `number`, of at most `allowance` samples together."""
    passes: list[tuple[Hole, WindowSpan]] = []
    for hole in left:
        span = second_window(chunk, hole, number)
        allowance -= span.end_sample - span.start_sample
        if allowance < 0:
            break
        passes.append((hole, span))
    return passes


def report(chunk: Chunk, gaps: GapResult) -> None:
    """Log and count the holes of a finished chunk."""
    if not gaps.found:
        return
    counts = {"found": gaps.found, "mended": gaps.mended, "left": gaps.left}
    for outcome, count in counts.items():
        GAPS.add(count, outcome=outcome)
    log.info("chunk.gaps", chunk=chunk.index, **counts, deepgram_requests=gaps.deepgram_requests)


async def _once(recognise: RecogniseWindow, span: WindowSpan) -> WindowTranscript:
    return WindowTranscript(span, (await recognise(span)).words)


def _filled(
    chunk: Chunk, windows: tuple[WindowTranscript, ...], passed: Sequence[Hole], heard: Sequence[WindowTranscript]
) -> tuple[tuple[WindowTranscript, ...], tuple[Hole, ...]]:
    for hole, transcript in zip(passed, heard, strict=True):
        windows = filled(windows, hole, transcript)
    return windows, holes(chunk, windows)


def _result(found: Sequence[Hole], left: Sequence[Hole]) -> GapResult:
    """Count the holes that were found first: one of which a part is left is not mended."""
    still = sum(any(hole.overlaps(other) for other in left) for hole in found)
    return GapResult(found=len(found), mended=len(found) - still, left=still)
