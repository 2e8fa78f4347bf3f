"""Since when this worker has seen each claim of others stand still."""

from collections import OrderedDict

from worker.ports import Clock

REMEMBERED = 10_000


class Sightings:
    """A claim whose generation stood still for the ttl, by our own monotonic clock, is stale.

    Kept beyond a single look and a single delivery: where no parking place was free, the message comes back after its
    backoff, and by then the dead owner's claim need not be watched from the beginning.
    """

    def __init__(self, clock: Clock, ttl_seconds: float) -> None:
        self._clock, self._ttl_seconds = clock, ttl_seconds
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def is_stale(self, job_id: str, generation: int, looked_at: float) -> bool:
        """Note a look that was begun at `looked_at` and found that generation held by somebody."""
        seen, since = self._seen.get(job_id, (None, 0.0))
        if seen == generation:
            return looked_at - since >= self._ttl_seconds
        self._seen[job_id] = generation, self._clock.monotonic()
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def forget(self, job_id: str) -> None:
        """Nobody holds it any more."""
        self._seen.pop(job_id, None)
