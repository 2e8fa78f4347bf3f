"""The paid recogniser: a service that charges for each request, with its price and the budget of the day."""

from dataclasses import dataclass

import structlog

from schemas.job import ANY_LANGUAGE
from worker.core.costs.budget import Budget
from worker.errors import PaidServiceError
from worker.ports import SAMPLE_RATE_HZ, CloudRecogniser, CloudRecognition, Pcm
from worker.telemetry.register import DEEPGRAM_REQUESTS

SECONDS_PER_MINUTE = 60

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class PaidRecogniser:
    """The service, its price, and the budget that its dollars are taken from before they are spent."""

    recogniser: CloudRecogniser
    usd_per_minute: float
    """For audio of one language."""
    budget: Budget
    most_requests: int = 1
    """Maximum number of requests billed for one chunk, including those billed without an answer."""
    multilingual_usd_per_minute: float | None = None
    """For audio whose language the service finds out; None: the same."""
    keyterm_usd_per_minute: float = 0.0
    """On top of that for requests with keyterms."""

    async def recognise(
        self, samples: Pcm, *, language: str, job_id: str, keyterms: tuple[str, ...] = ()
    ) -> CloudRecognition:
        """Recognise one chunk and pay for it. Raises `FallbackBudgetExhausted`, and what the service's port raises."""
        usd_per_minute = self.usd_per_minute
        if language == ANY_LANGUAGE and self.multilingual_usd_per_minute is not None:
            usd_per_minute = self.multilingual_usd_per_minute
        if keyterms:
            usd_per_minute += self.keyterm_usd_per_minute
        usd = len(samples) / SAMPLE_RATE_HZ / SECONDS_PER_MINUTE * usd_per_minute
        purse = await self.budget.take(usd * self.most_requests)
        try:
            answer = await self.recogniser.recognise(samples, language=language, job_id=job_id, keyterms=keyterms)
        except PaidServiceError as exc:
            DEEPGRAM_REQUESTS.add(exc.wasted_requests, outcome="wasted")
            log.warning("deepgram.failed", wasted_requests=exc.wasted_requests, wasted_usd=exc.wasted_requests * usd)
            purse.put_back(usd * (self.most_requests - exc.wasted_requests))
            raise
        purse.put_back(usd * (self.most_requests - 1 - answer.wasted_requests))
        DEEPGRAM_REQUESTS.add(outcome="answered")
        DEEPGRAM_REQUESTS.add(answer.wasted_requests, outcome="wasted")
        return answer
