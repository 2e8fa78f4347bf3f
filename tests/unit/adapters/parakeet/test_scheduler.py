import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest

from schemas.speech import Word
from worker.adapters.parakeet.frames import PassPlan, pass_capacity
from worker.adapters.parakeet.protocol import Batch, Done
from worker.adapters.parakeet.scheduler import Scheduler, Window
from worker.errors import EngineFailure, GpuMemoryError, WorkerError
from worker.ports import Recognition

PLAN = PassPlan(capacity=pass_capacity(4), most_windows=4)
PACKED = PassPlan(capacity=3072, most_windows=32, sizes=(384, 1152, 3072))


@dataclass
class Engine:
    """A process that receives the scheduler's batches and answers on request, on a clock set by hand."""

    now: float = 100.0
    sent: list[Batch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(lambda: self.now)

    def attach(self, plan: PassPlan = PLAN, batches_in_flight: int = 2) -> None:
        self.scheduler.attach(plan, batches_in_flight)
        self.pump()

    def pump(self) -> None:
        self.sent += self.scheduler.schedule()

    def add(self, count: int = 1, *, job_id: str = "job", seconds: float = 4.0, team_id: str = "") -> list[Window]:
        loop = asyncio.get_running_loop()
        samples = np.zeros(round(seconds * 16_000), dtype=np.int16)
        windows = [
            Window(samples=samples, job_id=job_id, team_id=team_id, answer=loop.create_future()) for _ in range(count)
        ]
        for window in windows:
            self.scheduler.add(window)
        self.pump()
        return windows

    def finish(self, seconds: float = 1.0, *, fits: bool = True) -> None:
        assert self.scheduler.oldest
        words = tuple((Word("ja", 0.0, 0.1, 1.0),) for _ in self.scheduler.oldest.windows)
        self.scheduler.postprocess(Done(words=words if fits else None, seconds=seconds, device_memory_bytes=0))
        self.pump()

    @property
    def sizes(self) -> list[int]:
        return [len(batch.windows) for batch in self.sent]


@pytest.fixture
def engine() -> Engine:
    return Engine()


def failure() -> WorkerError:
    return EngineFailure("parakeet", "it died")


async def test_a_window_that_is_given_up_says_what_it_took() -> None:
    engine = Engine()
    engine.attach()
    (window,) = engine.add()

    engine.finish(2.5, fits=False)

    error = window.answer.exception()
    assert isinstance(error, GpuMemoryError)
    assert error.engine_seconds == 2.5


async def test_windows_that_come_together_go_together(engine: Engine) -> None:
    engine.attach()

    engine.add(3)

    assert engine.sizes == [3]


async def test_an_idle_engine_gets_a_window_at_once(engine: Engine) -> None:
    engine.attach()

    engine.add()

    assert engine.sizes == [1]


async def test_a_part_filled_pass_grows_while_one_runs_and_one_waits_in_the_pipe(engine: Engine) -> None:
    engine.attach(PACKED, 5)
    for _ in range(5):
        engine.add(seconds=30)

    engine.finish()

    assert engine.sizes == [1, 1, 3]


async def test_full_passes_wait_in_the_pipe_as_many_as_the_process_wants_there(engine: Engine) -> None:
    engine.attach(PACKED, 3)

    engine.add(33, seconds=30)

    assert engine.sizes == [8, 8, 8]


async def test_a_small_batch_does_not_wait_where_a_pass_has_the_frames_of_its_windows(engine: Engine) -> None:
    engine.attach(PLAN, 5)

    for _ in range(6):
        engine.add()

    assert engine.sizes == [1] * 5


async def test_windows_of_any_length_and_job_share_a_pass(engine: Engine) -> None:
    engine.add(1, job_id="a", seconds=30)
    engine.add(1, job_id="b", seconds=1)
    engine.add(1, job_id="c", seconds=40)

    engine.attach(PACKED)

    assert [[len(window) // 16_000 for window in batch.windows] for batch in engine.sent] == [[30, 1, 40]]


async def test_a_batch_behind_which_no_window_waits_ends_a_chunk(engine: Engine) -> None:
    engine.add(9)

    engine.attach(PLAN, 3)

    assert [batch.is_last for batch in engine.sent] == [False, False, True]


async def test_a_lost_batch_goes_in_parts_to_a_process_with_less_memory(engine: Engine) -> None:
    windows = engine.add(4)
    engine.attach()
    engine.scheduler.requeue(failure())
    engine.sent.clear()

    engine.attach(PassPlan(capacity=pass_capacity(1), most_windows=1))
    for _ in range(4):
        engine.finish()

    assert engine.sizes == [1, 1, 1, 1]
    assert all([(await window.answer).words for window in windows])


async def test_windows_wait_for_a_process_to_come(engine: Engine) -> None:
    engine.add(5)

    engine.attach()

    assert engine.sizes == [4, 1]


async def test_engine_seconds_are_shared_by_length_of_audio(engine: Engine) -> None:
    short, long = engine.add(1, seconds=1.0) + engine.add(1, seconds=4.0)
    engine.attach()

    engine.finish(seconds=0.5)

    assert (await short.answer).engine_seconds == pytest.approx(0.1)
    assert (await long.answer).engine_seconds == pytest.approx(0.4)


async def test_a_failed_try_is_charged_and_the_windows_shares_sum_up(engine: Engine) -> None:
    windows = engine.add(2)
    engine.attach()
    engine.now += 3
    engine.scheduler.requeue(failure())
    engine.attach()

    engine.finish(seconds=0.25)
    engine.finish(seconds=0.25)

    answers: list[Recognition] = [await window.answer for window in windows]
    assert sum(answer.engine_seconds for answer in answers) == pytest.approx(3.5)


async def test_the_time_of_a_batch_counts_from_when_the_process_could_begin_it(engine: Engine) -> None:
    engine.add(8)
    engine.attach()
    engine.now += 10

    engine.finish(seconds=10)

    assert engine.scheduler.oldest
    assert engine.scheduler.oldest.since == engine.now


async def test_windows_that_do_not_fit_into_memory_say_so(engine: Engine) -> None:
    windows = engine.add(2)
    engine.attach()

    engine.finish(fits=False)

    for window in windows:
        with pytest.raises(GpuMemoryError):
            await window.answer


async def test_of_lost_batches_each_comes_again_by_itself_before_anything_else(engine: Engine) -> None:
    engine.add(8)
    engine.attach(batches_in_flight=3)
    engine.add(8)
    engine.sent.clear()

    engine.scheduler.requeue(failure())
    engine.attach(batches_in_flight=3)
    by_itself = engine.sizes.copy()
    engine.finish()
    engine.finish()

    assert by_itself == [4]
    assert engine.sizes == [4, 4, 4]
    engine.finish()
    assert engine.sizes == [4, 4, 4, 4]


async def test_a_lost_batch_that_was_by_itself_comes_again_in_halves(engine: Engine) -> None:
    engine.add(4)
    engine.attach()
    engine.sent.clear()

    engine.scheduler.requeue(failure())
    engine.attach()
    engine.finish()

    assert engine.sizes == [2, 2]


async def test_the_window_that_kills_every_process_is_found_and_the_others_are_answered(engine: Engine) -> None:
    windows = engine.add(16)
    culprit, lost = windows[9], 0
    engine.attach(batches_in_flight=4)

    while engine.scheduler.oldest:
        if any(culprit in batch.windows for batch in engine.scheduler._running):
            lost += 1
            engine.scheduler.requeue(failure())
            engine.attach(batches_in_flight=4)
        else:
            engine.finish()

    assert lost == 4, "of four batches, of four windows, of two, and alone"
    with pytest.raises(EngineFailure, match="it died"):
        await culprit.answer
    assert all([(await window.answer).words for window in windows if window is not culprit])


async def test_a_window_alone_gets_a_second_process_but_not_a_third(engine: Engine) -> None:
    (window,) = engine.add()
    engine.attach()

    engine.scheduler.requeue(failure())
    assert not window.answer.done()
    engine.attach()
    engine.scheduler.requeue(failure())

    assert isinstance(window.answer.exception(), EngineFailure)


async def test_losing_an_idle_process_loses_nothing(engine: Engine) -> None:
    engine.attach()

    engine.scheduler.requeue(failure())
    windows = engine.add()
    engine.attach()
    engine.finish()

    assert (await windows[0].answer).words


async def test_a_window_cancelled_in_flight_needs_no_answer_and_a_waiting_one_is_not_sent(engine: Engine) -> None:
    engine.attach()
    first, _, third, fourth = [engine.add()[0] for _ in range(4)]
    first.answer.cancel()
    third.answer.cancel()

    engine.finish()
    engine.finish()
    engine.finish()

    assert engine.sizes == [1, 1, 1]
    assert (await fourth.answer).words


async def test_giving_up_refuses_waiting_windows_and_those_in_flight(engine: Engine) -> None:
    engine.attach()
    windows = engine.add(6)

    engine.scheduler.refuse_all(failure)

    assert all(isinstance(window.answer.exception(), EngineFailure) for window in windows)
    assert engine.scheduler.oldest is None


@pytest.mark.parametrize("plan", [PLAN, PACKED, PassPlan(capacity=pass_capacity(1), most_windows=1)])
async def test_a_team_with_one_job_is_in_one_of_the_next_two_passes_beside_seven_jobs_of_another(
    engine: Engine, plan: PassPlan
) -> None:
    for number in range(7):
        engine.add(40, job_id=f"a-{number}", seconds=25, team_id="a")
    engine.attach(plan)
    for _ in range(5):
        engine.finish()
    before = len(engine.sent)

    (first, *_) = engine.add(40, job_id="b", seconds=25, team_id="b")
    while not first.answer.done():
        engine.finish()

    sent_since = next(
        number
        for number, batch in enumerate(engine.sent[before:], start=1)
        if any(samples is first.samples for samples in batch.windows)
    )
    assert sent_since <= 2
