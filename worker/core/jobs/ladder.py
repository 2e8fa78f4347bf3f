"""How one chunk is heard: by Parakeet, again with other cuts where its words look wrong, then by Deepgram alone.

The engine's own recovery (a smaller batch, a fresh process) lies below this, inside the adapter; the job's next attempt
lies above it, in the consumer. Every step down is logged with its reason and kept in the checkpoint.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import structlog

from schemas.speech import WindowSpan, WindowTranscript
from schemas.state import Checkpoint
from worker.core.jobs.engine_health import EngineHealth
from worker.core.jobs.routing import Route
from worker.core.jobs.tasks import together
from worker.core.transcript.planning import Chunk
from worker.core.transcript.quality import failed_gates, other_cuts
from worker.errors import (
    DeepgramNotConfigured,
    EngineFailure,
    FallbackBudgetExhausted,
    GpuMemoryError,
    GpuNotAvailable,
    TranscriptionTimeout,
    TranscriptRejected,
    TransientError,
)
from worker.ports import SAMPLE_RATE_HZ, CloudRecogniser, Recognition, WindowRecogniser

SECONDS_PER_MINUTE = 60

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Deepgram:
    """The paid way: the service, its price, and how its dollars are taken from the day's budget before they are spent.

    `spend` raises `FallbackBudgetExhausted`; where there is no budget it does nothing.
    """

    recogniser: CloudRecogniser
    usd_per_minute: float
    spend: Callable[[float], Awaitable[None]]


class Ladder:
    """Hears the chunks of one job, by its route. `deepgram` is None where there is no key for it.

    `may_fall_back`: chunks that Parakeet cannot do may go to Deepgram. `may_use_parakeet`: a job that was routed to
    Deepgram may go to Parakeet when the budget is spent.
    """

    def __init__(
        self,
        *,
        recogniser: WindowRecogniser,
        deepgram: Deepgram | None,
        health: EngineHealth,
        route: Route,
        may_fall_back: bool,
        may_use_parakeet: bool,
        language: str,
        job_id: str,
    ) -> None:
        self._recogniser, self._deepgram, self._health = recogniser, deepgram, health
        self._route, self._may_use_parakeet = route, may_use_parakeet
        self._falls_back = may_fall_back and deepgram is not None
        self._language, self._job_id = language, job_id

    async def hear(self, chunk: Chunk) -> Checkpoint:
        """The chunk's words by the first engine that succeeds.

        Raises the last engine's error, or `FallbackBudgetExhausted` where only Deepgram was left and may not be paid.
        """
        if not chunk.windows:
            return self._heard_by_parakeet(chunk, (), 0.0)
        match self._route.method:
            case "parakeet":
                return await self._parakeet_first(chunk)
            case "deepgram":
                return await self._deepgram_first(chunk)
            case "hybrid":
                # By number, not by whoever is free: a job that is done again is split alike.
                return await (self._deepgram_first(chunk) if chunk.index % 2 else self._parakeet_first(chunk))
            case _:
                assert_never(self._route.method)

    async def _parakeet_first(self, chunk: Chunk) -> Checkpoint:
        try:
            heard, failed = await self._parakeet_twice(chunk)
        except (EngineFailure, GpuMemoryError, GpuNotAvailable, TranscriptionTimeout) as error:
            self._health.record_failure()
            return await self._fall_back(chunk, error)
        self._health.record_success()
        return await self._fall_back(chunk, TranscriptRejected(failed), heard) if failed else heard

    async def _parakeet_twice(self, chunk: Chunk) -> tuple[Checkpoint, tuple[str, ...]]:
        """The chunk, with other cuts where the first ones gave doubtful words, and the gates it still fails."""
        heard = await self._parakeet(chunk)
        if not (failed := gates_failed_by(chunk, heard)):
            return heard, ()
        log.warning("chunk.gates_failed", chunk=chunk.index, gates=failed)
        again = await self._parakeet(chunk, other_cuts(chunk))
        seconds = heard.engine_seconds + again.engine_seconds
        return again.model_copy(update={"engine_seconds": seconds}), gates_failed_by(chunk, again)

    async def _deepgram_first(self, chunk: Chunk) -> Checkpoint:
        try:
            return await self._pay_for(chunk)
        except FallbackBudgetExhausted:
            if not self._may_use_parakeet:
                raise
            log.warning("chunk.budget_spent", chunk=chunk.index)
            return await self._parakeet(chunk)

    async def _fall_back(self, chunk: Chunk, error: TransientError, rejected: Checkpoint | None = None) -> Checkpoint:
        """Deepgram for this chunk. Where that may not be, doubtful words are better than none."""
        log.warning(
            "chunk.fallback", chunk=chunk.index, code=error.code, reason=str(error), to_deepgram=self._falls_back
        )
        if self._falls_back:
            paid = await self._pay_for(chunk)
            spent = rejected.engine_seconds if rejected else 0.0
            return paid.model_copy(update={"fallback_reason": error.code, "engine_seconds": spent})
        if rejected is not None:
            return rejected
        raise error

    async def _pay_for(self, chunk: Chunk) -> Checkpoint:
        if self._deepgram is None:
            raise DeepgramNotConfigured(self._route.reason)
        span = _whole(chunk)
        samples = chunk.samples_of(span)
        await self._deepgram.spend(len(samples) / SAMPLE_RATE_HZ / SECONDS_PER_MINUTE * self._deepgram.usd_per_minute)
        answer = await self._deepgram.recogniser.recognise(samples, language=self._language, job_id=self._job_id)
        return Checkpoint(
            **_place(chunk),
            engine="deepgram",
            windows=(WindowTranscript(span, answer.words),),
            engine_seconds=0.0,
            deepgram_request_id=answer.request_id,
            deepgram_billed_seconds=answer.billed_seconds,
        )

    async def _parakeet(self, chunk: Chunk, spans: Sequence[WindowSpan] | None = None) -> Checkpoint:
        cuts = chunk.windows if spans is None else spans
        async with together() as group:
            hearing = [group.create_task(self._hear_window(chunk, span)) for span in cuts]
        heard = [task.result() for task in hearing]
        windows = tuple(WindowTranscript(span, said.words) for span, said in zip(cuts, heard, strict=True))
        return self._heard_by_parakeet(chunk, windows, sum(said.engine_seconds for said in heard))

    async def _hear_window(self, chunk: Chunk, span: WindowSpan) -> Recognition:
        return await self._recogniser.recognise(chunk.samples_of(span), self._job_id)

    @staticmethod
    def _heard_by_parakeet(chunk: Chunk, windows: tuple[WindowTranscript, ...], seconds: float) -> Checkpoint:
        return Checkpoint(**_place(chunk), engine="parakeet", windows=windows, engine_seconds=seconds)


def gates_failed_by(chunk: Chunk, heard: Checkpoint) -> tuple[str, ...]:
    """Names of the quality gates that any window of the chunk fails, each once."""
    return tuple(dict.fromkeys(gate.value for window in heard.windows for gate in failed_gates(chunk, window)))


def _whole(chunk: Chunk) -> WindowSpan:
    """All of a chunk as one window, with what its first and last windows share with its neighbours."""
    first, last = chunk.windows[0], chunk.windows[-1]
    return WindowSpan(
        min(chunk.start_sample, first.start_sample),
        max(chunk.end_sample, last.end_sample),
        overlaps_previous=first.overlaps_previous,
    )


def _place(chunk: Chunk) -> dict[str, float]:
    return {
        "index": chunk.index,
        "start_sample": chunk.start_sample,
        "end_sample": chunk.end_sample,
        "audio_seconds": (chunk.end_sample - chunk.start_sample) / SAMPLE_RATE_HZ,
    }
