"""Whether Parakeet is worth asking: after so many failures in a row it is not, until a probe succeeds. Pure."""

from dataclasses import dataclass

from worker.ports import Clock

# One window that kills the process twice is a bad window; three chunks in a row are a bad GPU.
FAILURES_TO_DOUBT = 3
PROBE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class HealthFacts:
    """The engine's health at one moment, for logs and health endpoints."""

    healthy: bool
    failures_in_a_row: int


class EngineHealth:
    """Counts chunks of all jobs of a worker. `is_healthy` lets one job in `PROBE_SECONDS` try a doubted engine."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._next_probe_at = 0.0

    @property
    def facts(self) -> HealthFacts:
        """The state, without asking for a probe."""
        return HealthFacts(healthy=self._failures < FAILURES_TO_DOUBT, failures_in_a_row=self._failures)

    def is_healthy(self) -> bool:
        """Whether the next job may use the engine: it is trusted, or it is time for a probe, which this job then is."""
        if self._failures < FAILURES_TO_DOUBT:
            return True
        if self._clock.monotonic() < self._next_probe_at:
            return False
        self._next_probe_at = self._clock.monotonic() + PROBE_SECONDS
        return True

    def record_success(self) -> None:
        """A chunk was heard: whatever was doubted is over."""
        self._failures = 0

    def record_failure(self) -> None:
        """A chunk could not be heard, after the engine's own recovery."""
        self._failures += 1
        if self._failures == FAILURES_TO_DOUBT:
            self._next_probe_at = self._clock.monotonic() + PROBE_SECONDS
