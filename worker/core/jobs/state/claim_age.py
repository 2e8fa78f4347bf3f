"""The age of claims, without the wall clock of any worker: since a first look, and on the state bucket's own clock."""

from collections import OrderedDict
from datetime import datetime, timedelta

from worker.ports import Clock

REMEMBERED = 10_000

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


class Sightings:
    """Age of each claim's generation by this worker's monotonic clock.

    Remembered across deliveries: if no parking place was free, the message comes back after its backoff, and a dead
    owner's claim need not be watched from the beginning.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def stood_still_seconds(self, job_id: str, generation: int, looked_at: float) -> float:
        """Note a look that was begun at `looked_at` and found that generation; return its age since the first look."""
        seen, since = self._seen.get(job_id, (None, 0.0))
        if seen == generation:
            return looked_at - since
        self._seen[job_id] = generation, self._clock.monotonic()
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return 0.0

    def forget(self, job_id: str) -> None:
        """Drop the job's claim, which is no longer held."""
        self._seen.pop(job_id, None)
