from collections.abc import Sequence
from typing import Any

import pytest

from schemas.codes import ErrorCode
from schemas.state import Checkpoint, Waste
from tests.support.clock import FakeClock
from tests.support.engines.failing_recognisers import StuckRecogniser, everything, failing_where
from tests.support.jobs.harness import speech
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.costs.budget import NoLimit, PaidRecogniser, Purse
from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.ladder import Ladder
from worker.core.jobs.routing import Route, RouteMethod
from worker.core.transcript.planning import Chunk, ChunkCutter
from worker.errors import (
    DeepgramDown,
    DeepgramNotConfigured,
    DeepgramRejected,
    DeepgramUnavailable,
    DeepgramUnusable,
    EngineError,
    EngineFailure,
    FallbackBudgetExhausted,
    GpuMemoryError,
    GpuNotAvailable,
    TranscriptionTimeout,
)
from worker.ports import SAMPLE_RATE_HZ, Pcm, WindowRecogniser

CHUNK_SECONDS = 60


def chunks(count: int = 1) -> Sequence[Chunk]:
    """Minutes of speech, each with two or three windows."""
    cutter = ChunkCutter(chunk_seconds=CHUNK_SECONDS)
    return (*cutter.push(speech(CHUNK_SECONDS * count)), *cutter.finish())


(CHUNK,) = chunks()[:1]


class ScriptedBudget:
    """A budget that grants the given dollars once, and records what was taken and returned."""

    def __init__(self, usd: float) -> None:
        self._left, self.purse = usd, Purse()
        self.taken: list[float] = []

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    async def take(self, usd: float) -> Purse:
        if usd > self._left:
            raise FallbackBudgetExhausted(1.0, "2026-11-22")
        self._left -= usd
        self.taken.append(usd)
        return self.purse


class Rungs:
    """A ladder with its engines."""

    def __init__(
        self,
        engine: WindowRecogniser | None = None,
        *,
        cloud: MemoryCloudRecogniser | None = None,
        budget: NoLimit | ScriptedBudget | None = None,
        method: RouteMethod = "parakeet",
        with_key: bool = True,
        most_requests: int = 1,
        reason: str = "a test",
        **permits: Any,
    ) -> None:
        self.clock = FakeClock()
        self.cloud = cloud or MemoryCloudRecogniser()
        self.health = EngineTrust(self.clock)
        deepgram = PaidRecogniser(
            recogniser=self.cloud, usd_per_minute=0.006, budget=budget or NoLimit(), most_requests=most_requests
        )
        self._ladder = Ladder(
            recogniser=engine or MemoryRecogniser(),
            paid=deepgram if with_key else None,
            health=self.health,
            clock=self.clock,
            route=Route(method=method, reason=reason),
            language="en",
            job_id="job-1",
            **({"may_fall_back": True, "may_use_parakeet": True} | permits),
        )

    async def transcribe(self, chunk: Chunk = CHUNK) -> Checkpoint:
        return await self._ladder.transcribe(chunk)

    @property
    def waste(self) -> Waste:
        return self._ladder.waste


def words_of(chunk: Checkpoint) -> list[str]:
    return [word.text.lower().strip(".") for window in chunk.windows for word in window.words]


def window_seconds(chunk: Chunk) -> float:
    return sum(span.end_sample - span.start_sample for span in chunk.windows) / SAMPLE_RATE_HZ


def down() -> MemoryCloudRecogniser:
    cloud = MemoryCloudRecogniser()
    cloud.go_down("status 503")
    return cloud


def wasting(requests: int) -> MemoryCloudRecogniser:
    """A service that bills the given number of requests a chunk without a transcript."""

    def unusable() -> Exception:
        error = DeepgramUnusable("it cannot be read as JSON")
        error.wasted_requests = requests
        return error

    return MemoryCloudRecogniser(script=failing_where(everything, unusable))


BROKEN = MemoryRecogniser(script=failing_where(everything))


async def test_a_chunk_that_parakeet_transcribes_costs_only_its_engine_seconds() -> None:
    rungs = Rungs(MemoryRecogniser(speed=50))

    chunk = await rungs.transcribe()

    assert (chunk.engine, chunk.fallback_reason, chunk.deepgram_request_id) == ("parakeet", None, None)
    assert chunk.engine_seconds == pytest.approx(window_seconds(CHUNK) / 50)
    assert chunk.audio_seconds == (CHUNK.end_sample - CHUNK.start_sample) / SAMPLE_RATE_HZ
    assert rungs.cloud.answered == []


@pytest.mark.parametrize(
    "error",
    [
        EngineFailure("parakeet", "its process ended"),
        GpuMemoryError(1),
        GpuNotAvailable("no CUDA"),
        TranscriptionTimeout("parakeet", 30),
    ],
)
async def test_a_chunk_that_parakeet_cannot_do_goes_to_deepgram_with_the_reason(error: Exception) -> None:
    rungs = Rungs(MemoryRecogniser(script=failing_where(everything, lambda: error)))

    chunk = await rungs.transcribe()

    (answer,) = rungs.cloud.answered
    assert (chunk.engine, chunk.fallback_reason) == ("deepgram", error.code)
    assert (chunk.deepgram_request_id, chunk.deepgram_billed_seconds) == (
        answer.request_id,
        answer.billed_seconds,
    )
    assert words_of(chunk) == words_of(await Rungs().transcribe())
    assert rungs.health.failures_in_a_row == 1


async def test_the_engine_seconds_of_windows_recognised_before_a_failure_are_kept() -> None:
    first = len(CHUNK.samples_of(CHUNK.windows[0]))
    rungs = Rungs(MemoryRecogniser(script=failing_where(lambda samples: len(samples) != first), speed=50))

    chunk = await rungs.transcribe()

    assert chunk.engine == "deepgram"
    assert chunk.engine_seconds == pytest.approx(first / SAMPLE_RATE_HZ / 50)


async def test_an_error_of_ours_is_not_taken_for_the_engines() -> None:
    def wrong() -> Exception:
        return ZeroDivisionError()

    rungs = Rungs(MemoryRecogniser(script=failing_where(everything, wrong)))

    with pytest.raises(ZeroDivisionError):
        await rungs.transcribe()

    assert rungs.cloud.answered == []


async def test_doubtful_words_are_recognised_once_more_with_other_cuts() -> None:
    engine = StuckRecogniser(lambda samples: len(samples) > 20 * SAMPLE_RATE_HZ)
    rungs = Rungs(engine)

    chunk = await rungs.transcribe()

    assert chunk.engine == "parakeet"
    assert "no" not in words_of(chunk)
    assert engine.windows == len(CHUNK.windows) + len(chunk.windows)
    assert chunk.engine_seconds > window_seconds(CHUNK) / 100 * 1.9
    assert rungs.cloud.answered == []


async def test_words_that_stay_doubtful_are_replaced_by_deepgrams_and_both_tries_are_paid_for() -> None:
    engine = StuckRecogniser()
    rungs = Rungs(engine)

    chunk = await rungs.transcribe()

    assert (chunk.engine, chunk.fallback_reason) == ("deepgram", ErrorCode.TRANSCRIPTION_SERVICE_ERROR)
    assert chunk.engine_seconds > window_seconds(CHUNK) / 100 * 1.9
    assert len(rungs.cloud.answered) == 1
    assert rungs.health.is_healthy()


@pytest.mark.parametrize("barrier", [{"may_fall_back": False}, {"with_key": False}])
async def test_where_no_fallback_is_allowed_an_engine_error_is_the_jobs(barrier: dict[str, bool]) -> None:
    rungs = Rungs(BROKEN, **barrier)

    with pytest.raises(EngineFailure):
        await rungs.transcribe()

    assert rungs.cloud.answered == []


@pytest.mark.parametrize("barrier", [{"may_fall_back": False}, {"with_key": False}, {"budget": ScriptedBudget(0.0)}])
async def test_where_no_fallback_is_possible_doubtful_words_are_kept(barrier: dict[str, Any]) -> None:
    rungs = Rungs(StuckRecogniser(), **barrier)

    chunk = await rungs.transcribe()

    assert (chunk.engine, chunk.fallback_reason) == ("parakeet", None)
    assert set(words_of(chunk)) == {"no"}


async def test_doubtful_words_are_kept_when_deepgram_will_never_take_the_chunk() -> None:
    refuses = MemoryCloudRecogniser(script=failing_where(everything, lambda: DeepgramRejected(400, "bad audio")))
    rungs = Rungs(StuckRecogniser(), cloud=refuses)

    chunk = await rungs.transcribe()

    assert chunk.engine == "parakeet"


async def test_doubtful_words_are_kept_where_deepgram_is_down() -> None:
    rungs = Rungs(StuckRecogniser(), cloud=down())

    chunk = await rungs.transcribe()

    assert (chunk.engine, chunk.fallback_reason) == ("parakeet", None)


async def test_the_job_is_tried_again_when_deepgram_failed_on_this_chunk_alone() -> None:
    fails = MemoryCloudRecogniser(script=failing_where(everything, lambda: DeepgramUnavailable("reset")))
    rungs = Rungs(StuckRecogniser(), cloud=fails)

    with pytest.raises(DeepgramUnavailable):
        await rungs.transcribe()


async def test_a_chunk_that_parakeet_cannot_do_waits_for_a_deepgram_that_is_down() -> None:
    with pytest.raises(DeepgramDown):
        await Rungs(BROKEN, cloud=down()).transcribe()


async def test_a_chunk_that_broke_parakeet_goes_straight_to_deepgram_once_that_is_back() -> None:
    windows = 0

    async def break_down(_samples: Pcm, _job_id: str) -> None:
        nonlocal windows
        windows += 1
        raise GpuMemoryError(1)

    cloud, given_up = down(), dict[int, EngineError]()
    engine = MemoryRecogniser(script=break_down)
    with pytest.raises(DeepgramDown):
        await Rungs(engine, cloud=cloud, given_up=given_up).transcribe()
    before = windows

    cloud.mend()
    chunk = await Rungs(engine, cloud=cloud, given_up=given_up).transcribe()

    assert windows == before > 0
    assert (chunk.engine, chunk.fallback_reason) == ("deepgram", ErrorCode.GPU_MEMORY_ERROR)


async def test_a_chunk_without_a_gpu_is_tried_again_when_the_job_goes_on() -> None:
    cloud, given_up = down(), dict[int, EngineError]()
    missing = MemoryRecogniser(script=failing_where(everything, lambda: GpuNotAvailable("no CUDA")))
    with pytest.raises(DeepgramDown):
        await Rungs(missing, cloud=cloud, given_up=given_up).transcribe()

    chunk = await Rungs(cloud=cloud, given_up=given_up).transcribe()

    assert chunk.engine == "parakeet"


@pytest.mark.parametrize(("method", "reason"), [("deepgram", "long_file"), ("hybrid", "force_method")])
async def test_parakeet_steps_in_for_a_deepgram_that_is_down_where_that_was_chosen_for_speed(
    method: RouteMethod, reason: str
) -> None:
    rungs = Rungs(method=method, reason=reason, cloud=down())

    chunk = await rungs.transcribe(chunks(2)[1])

    assert chunk.engine == "parakeet"


@pytest.mark.parametrize("reason", ["force_method", "transcription_method", "rollout_percent", "gpu_disabled"])
async def test_parakeet_does_not_step_in_where_it_was_ruled_out(reason: str) -> None:
    with pytest.raises(DeepgramDown):
        await Rungs(method="deepgram", reason=reason, cloud=down()).transcribe()


async def test_a_parakeet_in_doubt_does_not_step_in() -> None:
    rungs = Rungs(method="deepgram", reason="long_file", cloud=down())
    for _ in range(3):
        rungs.health.record_failure()

    with pytest.raises(DeepgramDown):
        await rungs.transcribe()


async def test_where_parakeet_stepped_in_and_failed_the_chunk_waits_for_deepgram() -> None:
    with pytest.raises(DeepgramDown):
        await Rungs(BROKEN, method="deepgram", reason="long_file", cloud=down()).transcribe()


async def test_a_spent_budget_fails_a_chunk_that_only_deepgram_could_have_done() -> None:
    rungs = Rungs(BROKEN, budget=ScriptedBudget(0.0))

    with pytest.raises(FallbackBudgetExhausted):
        await rungs.transcribe()


async def test_a_job_for_deepgram_never_asks_parakeet() -> None:
    rungs = Rungs(BROKEN, method="deepgram")

    chunk = await rungs.transcribe()

    assert (chunk.engine, chunk.fallback_reason, chunk.engine_seconds) == ("deepgram", None, 0.0)


async def test_a_job_for_deepgram_goes_to_parakeet_when_the_budget_is_spent_and_it_may() -> None:
    rungs = Rungs(MemoryRecogniser(speed=50), method="deepgram", budget=ScriptedBudget(0.0))

    chunk = await rungs.transcribe()

    assert chunk.engine == "parakeet"
    assert chunk.engine_seconds == pytest.approx(window_seconds(CHUNK) / 50)


async def test_a_job_for_deepgram_fails_when_the_budget_is_spent_and_parakeet_may_not() -> None:
    rungs = Rungs(method="deepgram", budget=ScriptedBudget(0.0), may_use_parakeet=False)

    with pytest.raises(FallbackBudgetExhausted):
        await rungs.transcribe()


async def test_parakeet_that_steps_in_for_a_spent_budget_is_judged_like_any_other() -> None:
    engine = StuckRecogniser(lambda samples: len(samples) > 20 * SAMPLE_RATE_HZ)
    rungs = Rungs(engine, method="deepgram", budget=ScriptedBudget(0.0))

    chunk = await rungs.transcribe()

    assert "no" not in words_of(chunk)


async def test_a_job_for_deepgram_without_a_key_says_so() -> None:
    rungs = Rungs(method="deepgram", with_key=False)

    with pytest.raises(DeepgramNotConfigured):
        await rungs.transcribe()


async def test_a_hybrid_job_is_shared_by_the_number_of_the_chunk() -> None:
    rungs = Rungs(method="hybrid")

    engines = [(await rungs.transcribe(chunk)).engine for chunk in chunks(4)]

    assert engines[:4] == ["parakeet", "deepgram", "parakeet", "deepgram"]


async def test_both_halves_of_a_hybrid_job_step_in_for_each_other() -> None:
    minutes = chunks(2)

    by_deepgram = await Rungs(BROKEN, method="hybrid").transcribe(minutes[0])
    by_parakeet = await Rungs(method="hybrid", budget=ScriptedBudget(0.0)).transcribe(minutes[1])

    assert (by_deepgram.engine, by_deepgram.fallback_reason) == ("deepgram", ErrorCode.TRANSCRIPTION_SERVICE_ERROR)
    assert (by_parakeet.engine, by_parakeet.fallback_reason) == ("parakeet", None)


async def test_silence_costs_nothing_on_any_route() -> None:
    cutter = ChunkCutter(chunk_seconds=CHUNK_SECONDS)
    cutter.push(speech(30) * 0)
    (silent,) = cutter.finish()
    rungs = Rungs(BROKEN, method="deepgram")

    chunk = await rungs.transcribe(silent)

    assert (chunk.engine, chunk.windows, chunk.engine_seconds) == ("parakeet", (), 0.0)
    assert rungs.cloud.answered == []


class WastefulCloud(MemoryCloudRecogniser):
    """Answers at the second request, the first of which was billed for nothing."""

    async def recognise(self, samples: Pcm, *, language: str, job_id: str, keyterms: tuple[str, ...] = ()) -> Any:
        answer = await super().recognise(samples, language=language, job_id=job_id, keyterms=keyterms)
        return type(answer)(
            words=answer.words, request_id=answer.request_id, billed_seconds=answer.billed_seconds, wasted_requests=1
        )


@pytest.mark.parametrize(("cloud", "back"), [(MemoryCloudRecogniser(), 0.012), (WastefulCloud(), 0.006)])
async def test_the_worst_case_is_taken_from_the_budget_and_what_was_not_needed_goes_back(
    cloud: MemoryCloudRecogniser, back: float
) -> None:
    budget = ScriptedBudget(1.0)
    rungs = Rungs(BROKEN, cloud=cloud, budget=budget, most_requests=3)

    chunk = await rungs.transcribe()

    minute = chunk.deepgram_billed_seconds / 60
    assert budget.taken == [pytest.approx(0.018 * minute)]
    assert budget.purse.usd == pytest.approx(back * minute)


@pytest.mark.parametrize(("wasted", "share"), [(0, 1.0), (1, 0.5), (2, 0.0)])
async def test_requests_that_failed_unbilled_go_back_into_the_budget(wasted: int, share: float) -> None:
    budget = ScriptedBudget(1.0)
    rungs = Rungs(BROKEN, cloud=wasting(wasted), budget=budget, most_requests=2)

    with pytest.raises(DeepgramUnusable):
        await rungs.transcribe()

    assert budget.purse.usd == pytest.approx(share * sum(budget.taken))


async def test_what_a_failed_chunk_cost_is_known() -> None:
    def broken() -> Exception:
        error = EngineFailure("parakeet", "its process ended")
        error.engine_seconds = 3.0
        return error

    rungs = Rungs(MemoryRecogniser(script=failing_where(everything, broken)), cloud=wasting(2))

    with pytest.raises(DeepgramUnusable):
        await rungs.transcribe()

    assert rungs.waste.engine_seconds >= 3.0
    assert rungs.waste.deepgram_requests == 2
    assert rungs.waste.deepgram_seconds == pytest.approx(2 * len(CHUNK.samples) / SAMPLE_RATE_HZ, abs=1)


async def test_requests_wasted_on_a_chunk_that_parakeet_then_did_are_in_its_checkpoint() -> None:
    def down_and_billed() -> Exception:
        error = DeepgramDown("no answer")
        error.wasted_requests = 1
        return error

    cloud = MemoryCloudRecogniser(script=failing_where(everything, down_and_billed))
    rungs = Rungs(method="deepgram", reason="long_file", cloud=cloud)

    chunk = await rungs.transcribe()

    assert (chunk.engine, chunk.deepgram_wasted_requests) == ("parakeet", 1)
    assert not rungs.waste
