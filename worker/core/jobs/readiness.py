"""Readiness of the engines, which the intake checks before each pull."""

from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.paid_recogniser import PaidRecogniser


class Readiness:
    """Parakeet alone is enough. Without it there must be Deepgram, up, a permission to use it, and money for it.

    `may_pay`: Deepgram may do what Parakeet cannot. A message that stays in the queue is better than a job that fails.
    """

    def __init__(self, health: EngineTrust, paid: PaidRecogniser | None, *, may_pay: bool) -> None:
        self._health, self._paid, self._may_pay = health, paid, may_pay

    def why_not(self) -> str:
        """Return the reason why no job could be done now; empty where one could, or could try."""
        if self._health.is_healthy():
            return ""
        if self._paid is None:
            return "Parakeet cannot work, and there is no DEEPGRAM_API_KEY"
        if not self._may_pay:
            return "Parakeet cannot work, and ENABLE_FALLBACK is false"
        if self._paid.budget.is_spent:
            return "Parakeet cannot work, and the day's Deepgram budget is spent"
        if reason := self._paid.recogniser.down_because:
            return f"Parakeet cannot work, and Deepgram is down: {reason}"
        return ""
