import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import FakeClock
from worker.core.delivery.slots import Slot, Slots
from worker.errors import ParkingFull


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def park(slot: Slot, until: asyncio.Event, back: list[str], name: str) -> None:
    async with slot.parked():
        await until.wait()
    back.append(name)


def test_taking_and_giving_back_counts() -> None:
    slots = Slots(2, 0)

    first, second = slots.take(), slots.take()
    first.release()
    first.release()

    assert (slots.free, slots.busy) == (1, 1)
    second.release()
    assert (slots.free, slots.busy) == (2, 0)


async def test_a_slot_that_is_taken_again_before_the_waiting_one_s_turn_is_not_free(clock: FakeClock) -> None:
    slots = Slots(1, 0)
    slot = slots.take()
    waiting = asyncio.create_task(slots.wait_free())
    await clock.rest()
    slot.release()
    another = slots.take()

    await clock.rest()

    assert not waiting.done()
    another.release()
    await clock.rest()
    assert waiting.result() == 1


async def test_waiting_ends_when_a_slot_is_released(clock: FakeClock) -> None:
    slots = Slots(1, 0)
    slot = slots.take()
    waiting = asyncio.create_task(slots.wait_free())
    await clock.rest()
    assert not waiting.done()

    slot.release()

    assert await waiting == 1


async def test_a_parked_delivery_frees_its_slot_and_takes_one_again() -> None:
    slots = Slots(1, 1)
    slot = slots.take()

    async with slot.parked():
        assert (slots.free, slots.parked) == (1, 1)

    assert (slots.free, slots.parked) == (0, 0)
    slot.release()
    assert slots.free == 1


async def test_a_parked_delivery_comes_back_before_anything_new_and_in_order(clock: FakeClock) -> None:
    slots = Slots(2, 2)
    parked = [slots.take(), slots.take()]
    until, back = asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(park(slot, until, back, f"{n}")) for n, slot in enumerate(parked)]
    await clock.rest()
    others = [slots.take(), slots.take()]
    new_pull = asyncio.create_task(slots.wait_free())
    until.set()
    await clock.rest()
    assert back == []

    others[0].release()
    await clock.rest()
    assert back == ["0"]
    others[1].release()
    await clock.rest()

    assert back == ["0", "1"]
    assert not new_pull.done()
    parked[0].release()
    assert await new_pull == 1
    await asyncio.gather(*tasks)


async def test_parking_is_refused_when_it_is_full_and_the_slot_is_kept() -> None:
    slots = Slots(2, 1)
    first, second = slots.take(), slots.take()

    async with first.parked():
        with pytest.raises(ParkingFull):
            await AsyncExitStack().enter_async_context(second.parked())

        assert (slots.busy, slots.parked) == (1, 1)


async def test_an_error_inside_still_comes_back_to_a_slot() -> None:
    slots = Slots(1, 1)
    slot = slots.take()

    with pytest.raises(LookupError):
        async with slot.parked():
            raise LookupError

    assert (slots.busy, slots.parked) == (1, 0)


async def test_a_cancelled_parked_delivery_leaves_without_waiting_for_a_slot(clock: FakeClock) -> None:
    slots = Slots(1, 1)
    parked = asyncio.create_task(park(slots.take(), asyncio.Event(), [], "never"))
    await clock.rest()
    slots.take()

    parked.cancel()
    await clock.rest()

    assert parked.cancelled()
    assert (slots.busy, slots.parked) == (1, 0)


async def test_a_turn_that_comes_together_with_a_cancellation_is_passed_on(clock: FakeClock) -> None:
    slots = Slots(1, 1)
    until = asyncio.Event()
    parked = asyncio.create_task(park(slots.take(), until, [], "late"))
    await clock.rest()
    other = slots.take()
    until.set()
    await clock.rest()

    other.release()
    parked.cancel()
    await clock.rest()

    assert parked.cancelled()
    assert (slots.free, slots.parked) == (1, 0)


@given(
    total=st.integers(1, 3),
    max_parked=st.integers(0, 3),
    script=st.lists(st.tuples(st.sampled_from(["take", "park", "return", "cancel", "release"]), st.integers(0, 5))),
)
def test_no_slot_is_ever_lost_or_doubled(total: int, max_parked: int, script: list[tuple[str, int]]) -> None:
    asyncio.run(play(Slots(total, max_parked), total, max_parked, script))


async def play(slots: Slots, total: int, max_parked: int, script: list[tuple[str, int]]) -> None:
    clock = FakeClock()
    jobs: list[Job] = []
    for act, index in script:
        if act == "take" and slots.free:
            jobs.append(Job(slots.take()))
        elif jobs and act != "take":
            getattr(jobs[index % len(jobs)], act.replace("return", "come_back").replace("release", "end"))()
        await clock.rest()
        assert 0 <= slots.free <= total
        assert slots.parked <= max_parked
        assert slots.busy == sum(job.slot._held for job in jobs)

    for job in jobs:
        job.cancel()
        await clock.rest()
    assert (slots.free, slots.parked) == (total, 0)


class Job:
    """A delivery's task: works, parks, comes back and ends on the test's command."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._park, self._back, self._over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._live())
        self.park, self.come_back, self.end, self.cancel = (
            self._park.set,
            self._back.set,
            self._ended,
            self._task.cancel,
        )

    def _ended(self) -> None:
        self._park.set()
        self._back.set()
        self._over.set()

    async def _live(self) -> None:
        try:
            await self._park.wait()
            async with self.slot.parked():
                await self._back.wait()
            await self._over.wait()
        except ParkingFull:
            pass
        finally:
            self.slot.release()
