"""The time on the state bucket's own clock, as far as this worker knows it."""

from datetime import datetime, timedelta

from worker.ports import Clock

FRESH_SECONDS = 600.0
"""Maximum age of a reading that the monotonic clock extends; at a drift of 0.05 % the error is 0.3 s in that time."""


class BucketTime:
    """A lower bound of the bucket's time, learned from the creation times of the objects that this worker writes.

    Cloud Storage stamps every generation of an object with its own clock. Two of its stamps can be compared, where a
    stamp and a worker's wall clock cannot: that one may be hours off.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stamp: datetime | None = None
        self._read_at = 0.0

    def learn(self, created_at: datetime) -> None:
        """Note the stamp of an object that this worker has just written; call it as soon as the write returned."""
        self._stamp, self._read_at = created_at, self._clock.monotonic()

    def at_least(self) -> datetime | None:
        """Return a time that the bucket's clock has passed; None where no write was made within `FRESH_SECONDS`."""
        passed = self._clock.monotonic() - self._read_at
        if self._stamp is None or passed > FRESH_SECONDS:
            return None
        return self._stamp + timedelta(seconds=passed)
