"""Times since this worker first saw each generation of other workers' claims."""

from collections import OrderedDict

from worker.ports import Clock

REMEMBERED = 10_000


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
