"""Job slots, which limit the deliveries worked on at once, and parking places beside them.

A delivery whose job another worker has keeps its lease but needs no slot: it parks, so that its slot can pull other
work. Every update happens between two awaits of one event loop, so no lock is needed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from worker.core.tasks import switch
from worker.errors import ParkingFull


class Slot:
    """Job slot of one delivery, valid until its handler ends."""

    def __init__(self, slots: "Slots") -> None:
        self._slots = slots
        self._held = True

    @asynccontextmanager
    async def parked(self) -> AsyncIterator[None]:
        """Release the slot inside the block; re-acquire one on exit, ahead of new pulls and in order of arrival.

        Raises `ParkingFull`; the slot is then still held. Only a cancelled block ends without a slot.
        """
        with self._slots.parking_place():
            self.release()
            cancelled = False
            try:
                yield
            except asyncio.CancelledError:
                cancelled = True
                raise
            finally:
                if not cancelled:
                    await self._slots.regain()
                    self._held = True

    def release(self) -> None:
        """Free the slot. Called by the consumer; idempotent."""
        if self._held:
            self._held = False
            self._slots.give_back()


class Slots:
    """Slots of one worker."""

    def __init__(self, total: int, max_parked: int) -> None:
        self._total = total
        self._max_parked = max_parked
        self.free = total
        """Slots that a new delivery may take now; 0 while a parked delivery waits for a slot."""
        self.parked = 0
        """Deliveries without a slot, including those that wait for one."""
        self._returning: deque[asyncio.Future[None]] = deque()
        self._any_free = asyncio.Event()
        self._any_free.set()

    @property
    def busy(self) -> int:
        """Slots in use."""
        return self._total - self.free

    async def wait_free(self) -> int:
        """Wait until a slot is free; return the number of free slots."""
        while not self.free:  # a parked delivery may take the slot between the event and this wake-up
            await self._any_free.wait()
        return self.free

    def take(self) -> Slot:
        """Take a slot. The caller has checked that one is free, and releases it."""
        self._set_free(self.free - 1)
        return Slot(self)

    def give_back(self) -> None:
        """Pass a slot to the parked delivery that has waited longest, or to the next pull."""
        while self._returning:
            turn = self._returning.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._set_free(self.free + 1)

    @contextmanager
    def parking_place(self) -> Iterator[None]:
        """Hold a parking place inside the block. Raises `ParkingFull`."""
        if self.parked >= self._max_parked:
            raise ParkingFull(self._max_parked)
        self.parked += 1
        try:
            yield
        finally:
            self.parked -= 1

    async def regain(self) -> None:
        """Wait for a slot, ahead of new pulls; pass it on if the wait is cancelled at the same moment."""
        if self.free:
            self._set_free(self.free - 1)
            return
        turn = asyncio.get_running_loop().create_future()
        self._returning.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def _set_free(self, free: int) -> None:
        self.free = free
        switch(self._any_free, on=free > 0)
