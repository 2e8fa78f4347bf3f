"""Job slots: how many deliveries are worked on at once, and the parking places beside them.

A delivery whose job another worker is doing keeps its lease but needs no slot: it parks, so that its slot can pull
other work. All counting happens between two awaits of one event loop, so nothing here locks.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from worker.errors import ParkingFull


class Slot:
    """One delivery's place among the working ones. Handed to the handler; valid until the handler ends."""

    def __init__(self, slots: "Slots") -> None:
        self._slots = slots
        self._held = True

    @asynccontextmanager
    async def parked(self) -> AsyncIterator[None]:
        """Give the job slot up for the length of the block, and hold one again after it.

        Entering raises `ParkingFull` when every parking place is taken; the slot is then still held. Leaving waits
        until a slot is free, ahead of new pulls and in order of arrival. Only a cancelled block ends without one.
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
                    await self._regain()

    async def _regain(self) -> None:
        await self._slots.regain()
        self._held = True

    def release(self) -> None:
        """Let another delivery have the slot; the consumer's business, and harmless when repeated."""
        if self._held:
            self._held = False
            self._slots.give_back()


class Slots:
    """The slots of one worker: `total` jobs at once and `max_parked` deliveries beside them."""

    def __init__(self, total: int, max_parked: int) -> None:
        self._total = total
        self._max_parked = max_parked
        self._free = total
        self._parked = 0
        self._returning: deque[asyncio.Future[None]] = deque()
        self._any_free = asyncio.Event()
        self._any_free.set()

    @property
    def free(self) -> int:
        """Slots that a new delivery may take now; 0 while a parked one waits to come back."""
        return self._free

    @property
    def busy(self) -> int:
        """Slots in use."""
        return self._total - self._free

    @property
    def parked(self) -> int:
        """Deliveries without a slot, those waiting to come back included."""
        return self._parked

    async def wait_free(self) -> int:
        """Return how many slots are free once at least one is."""
        while not self._free:  # a parked delivery may take it between the event and our turn
            await self._any_free.wait()
        return self._free

    def take(self) -> Slot:
        """Take a free slot. The caller has seen that one is free, and releases it."""
        self._set_free(self._free - 1)
        return Slot(self)

    def give_back(self) -> None:
        """Hand a slot to the parked delivery that waits longest, else to the next pull."""
        while self._returning:
            turn = self._returning.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._set_free(self._free + 1)

    @contextmanager
    def parking_place(self) -> Iterator[None]:
        """Hold a parking place for the length of the block, or raise `ParkingFull`."""
        if self._parked >= self._max_parked:
            raise ParkingFull(self._max_parked)
        self._parked += 1
        try:
            yield
        finally:
            self._parked -= 1

    async def regain(self) -> None:
        """Wait for a slot, ahead of new pulls; a turn that comes together with a cancellation is passed on."""
        if self._free:
            self._set_free(self._free - 1)
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
        self._free = free
        if free:
            self._any_free.set()
        else:
            self._any_free.clear()
