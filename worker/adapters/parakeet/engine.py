"""Parakeet as a `WindowRecogniser`: one inference process, supervised, behind a scheduler shared by all jobs."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

import structlog

from worker.adapters.parakeet.child import InferenceProcess, Program, StartedProcess, start_process
from worker.adapters.parakeet.child_process import serve
from worker.adapters.parakeet.network.keyterm_automaton import Speller, spelling, spelling_of_piece
from worker.adapters.parakeet.protocol import Done, EngineOptions, Ready
from worker.adapters.parakeet.scheduler import Scheduler, Window
from worker.errors import EngineFailure, GpuNotAvailable, ModelLoadingError, TranscriptionTimeout, WorkerError
from worker.ports import EngineFacts, Pcm, Recognition

log = structlog.get_logger()


_SLOWEST_GPU = 1 / 40
"""Seconds for a second of audio. A slower GPU costs more than Deepgram."""


class EngineState(StrEnum):
    """The engine's state. It serves only when `ready`; when `failed` it goes on restarting its process."""

    LOADING = "loading"
    READY = "ready"
    REPLACING = "replacing"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineHealth:
    """The engine's condition at one moment, and the reason why it is not ready."""

    state: EngineState
    state_seconds: float
    """Since it entered that state."""
    failing_seconds: float
    """Since restarts began failing; 0 after a success."""
    reason: str | None
    restarts: int
    heartbeat_age_seconds: float | None
    device_memory_bytes: int
    """The most that the process has reserved on the GPU; 0 on a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """The timeouts after which the engine replaces its process, and the backoff between restarts."""

    start_seconds: float = 230  # less than Cloud Run's longest start-up probe, 240 s: then the reason is still logged
    silence_seconds: float = 5  # a process that computes keeps beating: that is a thread of its own
    batch_seconds: float = 30
    """For an answer, plus the length of all running audio on a CPU, or a fortieth of that on a GPU."""
    first_backoff_seconds: float = 0.5
    longest_backoff_seconds: float = 30
    starts_to_fail: int = 3
    """Failed starts in a row after which windows are refused rather than kept waiting."""


class ParakeetEngine:
    """A Parakeet TDT model in a process of its own that transcribes windows of all jobs in shared batches.

    Entering waits for the model and raises `ModelLoadingError` or `GpuNotAvailable`; leaving kills the process and
    refuses what still waits. In between a process that dies, hangs or falls silent is replaced and its batches are
    tried again.
    """

    def __init__(
        self, options: EngineOptions, *, patience: Patience | None = None, program: Program = serve.main
    ) -> None:
        self._options, self._patience, self._program = options, patience or Patience(), program
        self._facts: EngineFacts | None = None
        self._speller: Speller | None = None
        self._scheduler = Scheduler(time.monotonic)
        self._prestarted: StartedProcess | None = None
        self._process: InferenceProcess | None = None
        self._restarts = 0
        self._reason: str | None = None
        self._failing_since: float | None = None
        self._enter(EngineState.LOADING, None)

    def start(self) -> None:
        """Start the process, so that the model loads before the engine is entered. Idempotent; needs no event loop.

        The process ends with the caller's at the latest.
        """
        self._prestarted = self._prestarted or start_process(self._program, self._options)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            child = self._spawn()
            stack.push_async_callback(child.kill)
            ready = await child.until_ready(self._patience.start_seconds)
            stack.pop_all()
        self._facts = ready.facts
        self._speller = Speller(map(spelling_of_piece, ready.pieces)) if ready.pieces else None
        log.info("engine.started", pid=child.pid)
        self._serve(child, ready)
        self._supervisor = asyncio.create_task(self._supervise(child), name="parakeet-supervisor")
        self._supervisor.add_done_callback(self._unsupervised)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        self._supervisor.cancel()
        if self._process:
            await self._process.kill()
        await asyncio.wait([self._supervisor])

    @property
    def facts(self) -> EngineFacts:
        """Facts about the model and device; the same for every process of this engine."""
        if self._facts is None:
            raise RuntimeError("the engine has not been entered")
        return self._facts

    @property
    def pid(self) -> int | None:
        """The inference process of the moment."""
        return self._process.pid if self._process else None

    @property
    def health(self) -> EngineHealth:
        """The condition of the moment, also before the engine is entered."""
        child, now = self._process, time.monotonic()
        return EngineHealth(
            state=self._state,
            state_seconds=now - self._since,
            failing_seconds=0.0 if self._failing_since is None else now - self._failing_since,
            reason=self._reason,
            restarts=self._restarts,
            heartbeat_age_seconds=now - child.last_beat if child else None,
            device_memory_bytes=child.device_memory_bytes if child else 0,
        )

    def unspeakable(self, keyterms: Sequence[str]) -> tuple[str, ...]:
        """Return the keyterms that the model's vocabulary cannot spell."""
        return tuple(term for term in keyterms if self._speller and not self._speller.can_spell(spelling(term)))

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        """Transcribe one window, as the port says. ValueError above 40 s."""
        if self._state is EngineState.FAILED:
            raise GpuNotAvailable(str(self._reason))
        if not len(samples):
            return Recognition(words=(), engine_seconds=0.0)
        answer: asyncio.Future[Recognition] = asyncio.get_running_loop().create_future()
        self._scheduler.add(Window(samples=samples, job_id=job_id, answer=answer, keyterms=keyterms, team_id=team_id))
        asyncio.get_running_loop().call_soon(self._pump)  # once the windows that come with it have all come
        return await answer

    async def _supervise(self, child: InferenceProcess) -> None:
        while True:
            error = await self._lost(child)
            log.error("engine.process_lost", reason=str(error), pid=child.pid)
            self._enter(EngineState.REPLACING, str(error))
            await child.kill()
            self._scheduler.requeue(error)
            child, ready = await self._replacement()
            self._restarts += 1
            log.info("engine.replaced", reason=str(error), pid=child.pid, restarts=self._restarts)
            self._serve(child, ready)

    async def _lost(self, child: InferenceProcess) -> WorkerError:
        """Return an error once the process has ended, hangs or is silent.

        Silence is counted in rounds of this loop: after a pause of the whole worker the process gets time to beat.
        """
        silent_rounds, beats = 0, child.beats
        while silent_rounds * self._options.heartbeat_seconds < self._patience.silence_seconds:
            try:
                async with asyncio.timeout(self._options.heartbeat_seconds):
                    await child.ended.wait()
                return EngineFailure("parakeet", f"its process ended: {child.failure}")
            except TimeoutError:
                silent_rounds = silent_rounds + 1 if child.beats == beats else 0
                beats = child.beats
            if (limit := self._overdue()) is not None:
                return TranscriptionTimeout("parakeet", limit)
        return TranscriptionTimeout("parakeet", self._patience.silence_seconds)

    def _overdue(self) -> float | None:
        if (oldest := self._scheduler.oldest) is None:
            return None
        slowest = _SLOWEST_GPU if self.facts.uses_gpu else 1.0
        limit = self._patience.batch_seconds + self._scheduler.running_audio_seconds * slowest
        return limit if time.monotonic() - oldest.since > limit else None

    async def _replacement(self) -> tuple[InferenceProcess, Ready]:
        failures = 0
        while (started := await self._started_again()) is None:
            failures += 1
            if failures == self._patience.starts_to_fail:
                self._enter(EngineState.FAILED, self._reason)
                self._scheduler.refuse_all(lambda: GpuNotAvailable(str(self._reason)))
            backoff = self._patience.first_backoff_seconds * 2 ** min(failures, 10)
            await asyncio.sleep(min(backoff, self._patience.longest_backoff_seconds))
        return started

    async def _started_again(self) -> tuple[InferenceProcess, Ready] | None:
        child = self._spawn()
        try:
            ready = await child.until_ready(self._patience.start_seconds)
            self._require_same(ready.facts)
        except (ModelLoadingError, GpuNotAvailable) as exc:
            self._reason = str(exc)
            log.warning("engine.start_failed", reason=self._reason)
            self._fails()
            await child.kill()
            return None
        return child, ready

    def _require_same(self, facts: EngineFacts) -> None:
        if facts != self._facts:  # checkpoints are keyed by the fingerprint that the worker started with
            raise ModelLoadingError(self._options.model_name, "the model changed under the running worker")

    def _spawn(self) -> InferenceProcess:
        started, self._prestarted = self._prestarted or start_process(self._program, self._options), None
        self._process = InferenceProcess(self._options, started, self._done)
        return self._process

    def _serve(self, child: InferenceProcess, ready: Ready) -> None:
        self._enter(EngineState.READY, None)
        self._failing_since = None
        self._submit = child.submit
        self._scheduler.attach(ready.plan, ready.batches_in_flight)
        self._pump()

    def _done(self, done: Done) -> None:
        self._scheduler.postprocess(done)
        self._pump()

    def _pump(self) -> None:
        """Send what is due: nothing without a process."""
        for batch in self._scheduler.schedule():
            self._submit(batch)

    def _fails(self) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()

    def _enter(self, state: EngineState, reason: str | None) -> None:
        self._state, self._reason, self._since = state, reason, time.monotonic()

    def _unsupervised(self, supervisor: asyncio.Task[None]) -> None:
        """Refuse all windows when the supervisor ends: because the engine was left, or by an error of ours."""
        if not supervisor.cancelled():
            log.error("engine.supervisor_failed", exc_info=supervisor.exception())
        self._enter(EngineState.FAILED, "it is closed")
        self._fails()
        self._scheduler.refuse_all(lambda: EngineFailure("parakeet", "it is closed"))
