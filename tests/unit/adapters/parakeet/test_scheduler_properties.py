"""The scheduler under any sequence of events: windows come and are cancelled, batches are answered, processes die."""

import asyncio
from collections.abc import Iterator
from itertools import count

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.speech import Word
from worker.adapters.parakeet.frames import PassPlan
from worker.adapters.parakeet.protocol import Batch, Done
from worker.adapters.parakeet.scheduler import Scheduler, Window
from worker.errors import EngineFailure

MOST_IN_FLIGHT = 3
PLANS = (
    PassPlan(capacity=2688, most_windows=32, sizes=(896, 1792, 2688), gap_frames=4),
    PassPlan(capacity=3072, most_windows=4),
)


class AnyEvents(RuleBasedStateMachine):
    """A worker with its process: what was sent and not yet answered is `sent`."""

    @initialize(plan=st.sampled_from(PLANS))
    def start(self, plan: PassPlan) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock: Iterator[int] = count()
        self.scheduler = Scheduler(lambda: float(next(self.clock)))
        self.windows: list[Window] = []
        self.sent: list[Batch] = []
        self.plan, self.has_process = plan, True
        self.scheduler.attach(plan, MOST_IN_FLIGHT)

    @rule(job=st.integers(1, 3), seconds=st.lists(st.sampled_from([1, 12, 24, 30, 40]), min_size=1, max_size=8))
    def add(self, job: int, seconds: list[int]) -> None:
        for length in seconds:
            samples = np.full(length * 16_000, len(self.windows), np.int16)
            window = Window(samples=samples, job_id=str(job), answer=self.loop.create_future())
            self.windows.append(window)
            self.scheduler.add(window)
        self.pump()

    @precondition(lambda self: any(not window.answer.done() for window in self.windows))
    @rule(place=st.integers(0, 1_000))
    def cancel(self, place: int) -> None:
        unanswered = [window for window in self.windows if not window.answer.done()]
        unanswered[place % len(unanswered)].answer.cancel()

    @precondition(lambda self: self.sent)
    @rule(fits=st.booleans())
    def answer(self, fits: bool) -> None:
        batch = self.sent.pop(0)
        words = tuple((Word(str(window[0]), 0.0, 0.1, 1.0),) for window in batch.windows)
        self.scheduler.postprocess(Done(words=words if fits else None, seconds=1.0, device_memory_bytes=0))
        self.pump()

    @precondition(lambda self: self.has_process)
    @rule()
    def die(self) -> None:
        self.scheduler.requeue(EngineFailure("parakeet", "it died"))
        self.sent.clear()
        self.has_process = False
        self.pump()

    @precondition(lambda self: not self.has_process)
    @rule(plan=st.sampled_from(PLANS))
    def replace(self, plan: PassPlan) -> None:
        self.plan, self.has_process = plan, True
        self.scheduler.attach(plan, MOST_IN_FLIGHT)
        self.pump()

    def pump(self) -> None:
        for batch in self.scheduler.schedule():
            assert self.has_process
            frames = sum(self.plan.frames_of(len(window)) for window in batch.windows)
            assert 0 < len(batch.windows) <= self.plan.most_windows
            assert frames <= self.plan.capacity
            self.sent.append(batch)

    @invariant()
    def a_process_has_few_batches_and_suspects_are_alone_with_it(self) -> None:
        assert len(self.sent) <= MOST_IN_FLIGHT
        suspects = {int(window.samples[0]) for window in self.windows if window.suspect}
        if any(int(window[0]) in suspects for batch in self.sent for window in batch.windows):
            assert len(self.sent) == 1

    @invariant()
    def an_idle_process_leaves_no_window_waiting(self) -> None:
        running = {int(window[0]) for batch in self.sent for window in batch.windows}
        waiting = [w for w in self.windows if not w.answer.done() and int(w.samples[0]) not in running]
        assert not (self.has_process and waiting and not self.sent)

    @invariant()
    def a_word_is_that_of_its_window(self) -> None:
        for number, window in enumerate(self.windows):
            if window.answer.done() and not window.answer.cancelled() and window.answer.exception() is None:
                assert window.answer.result().words[0].text == str(number)

    def teardown(self) -> None:
        for _ in range(1_000):
            if not self.has_process:
                self.replace(self.plan)
            if not self.sent:
                break
            self.answer(fits=True)
        assert all(window.answer.done() for window in self.windows)
        self.loop.close()


TestAnyEvents = AnyEvents.TestCase
TestAnyEvents.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
