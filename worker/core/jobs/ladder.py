"""Transcribes one chunk: by Parakeet, by Parakeet with other cuts if its words look wrong, then by Deepgram.

Holes in Parakeet's words are recognised again before its words are judged (`mending.py`).

The engine's own recovery (a smaller pass, a fresh process) is inside the adapter; the job's next attempt is decided by
the consumer. Every step down is logged with its reason and stored in the checkpoint.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, assert_never

import structlog

from schemas.speech import WindowSpan, WindowTranscript
from schemas.state import NO_WASTE, Checkpoint, Waste
from worker.core.costs.budget import PaidRecogniser
from worker.core.jobs import mending
from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.routing import Route
from worker.core.tasks import together
from worker.core.transcript.planning import Chunk
from worker.core.transcript.quality import Gate, failed_gates, holes, other_cuts
from worker.errors import (
    DeepgramDown,
    DeepgramNotConfigured,
    EngineError,
    FallbackBudgetExhausted,
    GpuNotAvailable,
    JobFault,
    PaidServiceError,
    ServiceDown,
    TranscriptRejected,
    WorkerError,
)
from worker.ports import SAMPLE_RATE_HZ, Clock, CloudRecognition, Recognition, WindowRecogniser
from worker.telemetry.register import FALLBACKS, GATE_FAILURES
from worker.telemetry.spans import stage

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class _Meter:
    """The cost of one chunk, beside the request that Deepgram answered: all of it is waste if the chunk fails."""

    total: Waste = NO_WASTE

    def add_engine(self, seconds: float) -> None:
        """Count time of Parakeet's."""
        self.total += Waste(engine_seconds=seconds)

    def add_wasted(self, requests: int, audio_seconds: float) -> None:
        """Count requests that Deepgram may bill although they brought no transcript."""
        self.total += Waste(deepgram_requests=requests, deepgram_seconds=requests * audio_seconds)


class Ladder:
    """Transcribes the chunks of one job by its route. `paid` is None if Deepgram has no key.

    `may_fall_back`: chunks that Parakeet cannot do may go to Deepgram. `may_use_parakeet`: a job that was routed to
    Deepgram may go to Parakeet when the budget is spent; or when Deepgram is down, where the route is for speed only.
    `given_up` has the errors of chunks that Parakeet failed before the job waited for Deepgram; the ladder adds to it.
    """

    waste: Waste
    """The cost of the chunks that failed."""
    interrupted: bool
    """The job was cancelled while a paid answer was awaited: store the chunk that `transcribe` returned, then end."""

    def __init__(
        self,
        *,
        recogniser: WindowRecogniser,
        paid: PaidRecogniser | None,
        health: EngineTrust,
        clock: Clock,
        route: Route,
        may_fall_back: bool,
        may_use_parakeet: bool,
        language: str,
        job_id: str,
        keyterms: tuple[str, ...] = (),
        team_id: str = "",
        given_up: dict[int, EngineError] | None = None,
    ) -> None:
        self._given_up = {} if given_up is None else given_up
        self._recogniser, self._paid, self._health, self._clock = recogniser, paid, health, clock
        self._route, self._may_use_parakeet = route, may_use_parakeet
        self._falls_back = may_fall_back and paid is not None
        self._language, self._job_id, self._team_id, self._keyterms = language, job_id, team_id, keyterms
        self.waste, self.interrupted = NO_WASTE, False

    async def transcribe(self, chunk: Chunk) -> Checkpoint:
        """Return the chunk's words by the first engine that succeeds, with all the engine time that was used.

        Raises the last engine's error; `FallbackBudgetExhausted` if only Deepgram was left and the budget is spent,
        `DeepgramDown` if only Deepgram was left and serves no request.
        """
        if not chunk.windows:
            return _checkpoint(chunk, "parakeet", ())
        meter = _Meter()
        try:
            finished = await self._by_route(chunk, meter)
        except WorkerError:
            self.waste += meter.total
            raise
        mending.report(chunk, finished.gaps)
        spent = meter.total
        return finished.model_copy(
            update={"engine_seconds": spent.engine_seconds, "deepgram_wasted_requests": spent.deepgram_requests}
        )

    async def _by_route(self, chunk: Chunk, meter: _Meter) -> Checkpoint:
        match self._route.method:
            case "parakeet":
                return await self._parakeet_first(chunk, meter)
            case "deepgram":
                return await self._paid_first(chunk, meter)
            case "hybrid" if chunk.index % 2:
                # By number, not by the engine that is free: a job that is repeated is split the same way.
                return await self._paid_first(chunk, meter)
            case "hybrid":
                return await self._parakeet_first(chunk, meter)
            case _:
                assert_never(self._route.method)

    async def _parakeet_first(self, chunk: Chunk, meter: _Meter) -> Checkpoint:
        if before := self._given_up.get(chunk.index):
            return await self._fall_back(chunk, meter, before)
        try:
            finished, failed = await self._parakeet_twice(chunk, meter)
        except EngineError as error:
            try:
                return await self._fall_back(chunk, meter, error)
            except DeepgramDown:
                if not isinstance(error, GpuNotAvailable):  # the GPU may be back first
                    # Once Deepgram is back it gets the chunk, which else breaks Parakeet each time that it waited.
                    self._given_up[chunk.index] = error.without_frames()
                raise
        return await self._fall_back(chunk, meter, TranscriptRejected(failed), finished) if failed else finished

    async def _paid_first(self, chunk: Chunk, meter: _Meter) -> Checkpoint:
        try:
            return await self._pay_for(chunk, meter)
        except FallbackBudgetExhausted as spent:
            if not self._may_use_parakeet:
                raise
            log.warning("chunk.budget_spent", chunk=chunk.index, reason=str(spent))
        except DeepgramDown as down:
            if not (self._may_use_parakeet and self._route.is_for_speed and self._health.is_healthy()):
                raise
            log.warning("chunk.deepgram_down", chunk=chunk.index, reason=str(down))
            try:
                finished, _ = await self._parakeet_twice(chunk, meter)
            except EngineError as exc:
                raise down from exc  # the chunk waits for Deepgram
            return finished
        finished, _ = await self._parakeet_twice(chunk, meter)
        return finished

    async def _parakeet_twice(self, chunk: Chunk, meter: _Meter) -> tuple[Checkpoint, tuple[str, ...]]:
        """Recognise the chunk, with other cuts if the first ones gave doubtful words; return failed gates too."""
        with self._step("parakeet", chunk):
            finished = await self._parakeet(chunk, chunk.windows, meter, self._keyterms)
        finished = await self._mended(chunk, finished, meter)
        if not (failed := await asyncio.to_thread(gates_failed_by, chunk, finished)):
            return await self._paid_holes(chunk, finished), ()
        log.warning("chunk.gates_failed", chunk=chunk.index, gates=failed)
        for gate in failed:
            GATE_FAILURES.add(gate=gate)
        with self._step("parakeet_other_cuts", chunk):
            # Boosting may be what made a keyterm loop.
            keyterms = () if Gate.REPETITION.value in failed else self._keyterms
            again = await self._parakeet(chunk, other_cuts(chunk), meter, keyterms)
        again = await self._mended(chunk, again, meter)
        if failed := await asyncio.to_thread(gates_failed_by, chunk, again):
            return again, failed
        return await self._paid_holes(chunk, again), ()

    async def _mended(self, chunk: Chunk, finished: Checkpoint, meter: _Meter) -> Checkpoint:
        if not (found := await asyncio.to_thread(holes, chunk, finished.windows)):
            return finished
        with self._step("parakeet_gaps", chunk):
            return await mending.mend(
                chunk,
                finished,
                found,
                lambda span: self._recognise_window(chunk, span, meter, self._keyterms),
                may_pay=self._falls_back,
            )

    async def _paid_holes(self, chunk: Chunk, mended: Checkpoint) -> Checkpoint:
        """Deepgram for the holes that Parakeet could not mend, in a chunk that passes the gates without them."""
        paid = self._paid
        if paid is None or not self._falls_back or not mended.gaps.left:
            return mended

        async def pay(span: WindowSpan) -> CloudRecognition:
            answer = await paid.recognise(
                chunk.samples_of(span), language=self._language, job_id=self._job_id, keyterms=self._keyterms
            )
            self.interrupted = self.interrupted or answer.interrupted
            return answer

        with self._step("deepgram_gaps", chunk):
            try:
                return await mending.pay_for_the_rest(chunk, mended, pay)
            except mending.PayingStopped as stopped:
                paid_for = stopped.gaps
                self.waste += Waste(
                    deepgram_requests=paid_for.deepgram_requests, deepgram_seconds=paid_for.deepgram_seconds
                )
                raise asyncio.CancelledError from stopped

    async def _fall_back(
        self, chunk: Chunk, meter: _Meter, error: WorkerError, doubtful: Checkpoint | None = None
    ) -> Checkpoint:
        """Deepgram for this chunk. Where that may not or cannot be now, doubtful words are better than none."""
        log.warning(
            "chunk.fallback", chunk=chunk.index, code=error.code, reason=str(error), to_deepgram=self._falls_back
        )
        if not self._falls_back:
            if doubtful is None:
                raise error
            log.warning("chunk.doubtful", chunk=chunk.index, code=error.code, reason=str(error))
            return doubtful
        try:
            answered = await self._pay_for(chunk, meter)
        except (JobFault, ServiceDown) as refusal:
            if doubtful is None:
                raise
            log.warning("chunk.doubtful", chunk=chunk.index, code=error.code, reason=str(refusal))
            return doubtful
        FALLBACKS.add(reason=error.code)
        return answered.model_copy(update={"fallback_reason": error.code})

    async def _pay_for(self, chunk: Chunk, meter: _Meter) -> Checkpoint:
        if self._paid is None:
            raise DeepgramNotConfigured(self._route.reason)
        span = _whole(chunk)
        samples = chunk.samples_of(span)
        sent_seconds = len(samples) / SAMPLE_RATE_HZ
        with self._step("deepgram", chunk):
            try:
                answer = await self._paid.recognise(
                    samples, language=self._language, job_id=self._job_id, keyterms=self._keyterms
                )
            except PaidServiceError as exc:
                meter.add_wasted(exc.wasted_requests, sent_seconds)
                raise
        meter.add_wasted(answer.wasted_requests, sent_seconds)
        self.interrupted = self.interrupted or answer.interrupted
        windows = (WindowTranscript(span, answer.words),)
        return _checkpoint(
            chunk, "deepgram", windows, request_id=answer.request_id, billed_seconds=answer.billed_seconds
        )

    async def _parakeet(
        self, chunk: Chunk, spans: Sequence[WindowSpan], meter: _Meter, keyterms: tuple[str, ...]
    ) -> Checkpoint:
        try:
            async with together() as group:
                recognising = [
                    group.create_task(self._recognise_window(chunk, span, meter, keyterms)) for span in spans
                ]
        except WorkerError:
            self._health.record_failure()
            raise
        self._health.record_success()
        windows = (WindowTranscript(span, task.result().words) for span, task in zip(spans, recognising, strict=True))
        return _checkpoint(chunk, "parakeet", tuple(windows))

    async def _recognise_window(
        self, chunk: Chunk, span: WindowSpan, meter: _Meter, keyterms: tuple[str, ...]
    ) -> Recognition:
        try:
            said = await self._recogniser.recognise(
                chunk.samples_of(span), self._job_id, keyterms=keyterms, team_id=self._team_id
            )
        except EngineError as exc:
            meter.add_engine(exc.engine_seconds)
            raise
        meter.add_engine(said.engine_seconds)
        return said

    @contextmanager
    def _step(self, name: str, chunk: Chunk) -> Iterator[None]:
        began = self._clock.monotonic()
        error: WorkerError | None = None
        try:
            with stage(name, chunk=chunk.index):
                yield
        except WorkerError as exc:
            error = exc
            raise
        finally:
            told = {"failed": error.code.value, "reason": str(error)} if error else {}
            seconds = round(self._clock.monotonic() - began, 3)
            log.info("chunk.step", chunk=chunk.index, step=name, seconds=seconds, **told)


def gates_failed_by(chunk: Chunk, finished: Checkpoint) -> tuple[str, ...]:
    """Names of the quality gates that any window of the chunk fails, each once."""
    return tuple(dict.fromkeys(gate.value for window in finished.windows for gate in failed_gates(chunk, window)))


def _checkpoint(
    chunk: Chunk,
    engine: Literal["parakeet", "deepgram"],
    windows: tuple[WindowTranscript, ...],
    *,
    request_id: str | None = None,
    billed_seconds: float = 0.0,
) -> Checkpoint:
    return Checkpoint(
        index=chunk.index,
        start_sample=chunk.start_sample,
        end_sample=chunk.end_sample,
        engine=engine,
        windows=windows,
        engine_seconds=0.0,
        audio_seconds=(chunk.end_sample - chunk.start_sample) / SAMPLE_RATE_HZ,
        deepgram_request_id=request_id,
        deepgram_billed_seconds=billed_seconds,
    )


def _whole(chunk: Chunk) -> WindowSpan:
    """All of a chunk as one window, with what its first and last windows share with its neighbours."""
    first, last = chunk.windows[0], chunk.windows[-1]
    return WindowSpan(
        min(chunk.start_sample, first.start_sample),
        max(chunk.end_sample, last.end_sample),
        overlaps_previous=first.overlaps_previous,
    )
