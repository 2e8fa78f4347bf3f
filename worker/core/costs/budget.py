"""The pool's daily brake on Deepgram spending, and the recogniser that is paid from it.

The brake is one small ledger object a UTC day, changed by compare-and-swap.

Money is reserved before it is spent, in blocks, because one object takes about one write a second. What a worker has
reserved and not spent when it dies counts as spent: the brake may bite early, never late.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Protocol
from uuid import uuid4

import structlog
from pydantic import ValidationError

from schemas.job import ANY_LANGUAGE
from schemas.state import BudgetLedger
from worker.errors import (
    FallbackBudgetExhausted,
    ObjectNotFound,
    PaidServiceError,
    PreconditionFailed,
    StorageServiceError,
)
from worker.ports import SAMPLE_RATE_HZ, Clock, CloudRecogniser, CloudRecognition, ObjectRef, ObjectStore, Pcm
from worker.telemetry.register import BUDGET_RESERVED_USD, DEEPGRAM_REQUESTS

SECONDS_PER_MINUTE = 60
BLOCKS_A_DAY = 50
MOST_TRIES = 50
# Amounts are sums of floats: a millionth of a dollar is no overdraft.
TOLERANCE_USD = 1e-6

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Purse:
    """Dollars that a worker has reserved and not yet spent; valid for one UTC day."""

    day: date | None = None
    usd: float = 0.0

    def put_back(self, usd: float) -> None:
        """Return dollars reserved for requests that were not sent; ignored once the day is over."""
        self.usd += usd


class Budget(Protocol):
    """Daily budget of Deepgram dollars, which are reserved before they are spent."""

    @property
    def is_spent(self) -> bool:
        """It refused something today."""
        ...

    async def take(self, usd: float) -> Purse:
        """Take that much; what is not needed goes back into the answer. Raises `FallbackBudgetExhausted`."""
        ...


class NoLimit:
    """No budget: every dollar may be spent."""

    is_spent = False

    async def take(self, usd: float) -> Purse:
        """Grants it."""
        del usd
        return Purse()


class FallbackBudget:
    """Reserves Deepgram dollars for one worker of a pool that shares `usd_per_day` through `bucket`."""

    def __init__(
        self,
        store: ObjectStore,
        bucket: str,
        clock: Clock,
        *,
        usd_per_day: float,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._store, self._bucket, self._clock, self._new_id = store, bucket, clock, new_id
        self._limit = usd_per_day
        self._purse = Purse()
        self._refused_on: date | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def is_spent(self) -> bool:
        """See the protocol."""
        return self._refused_on == self._today()

    async def take(self, usd: float) -> Purse:
        """See the protocol. Raises `StorageServiceError` too."""
        async with self._one_at_a_time:
            today = self._today()
            if self._purse.day != today:
                self._purse = Purse(day=today)
            if self._purse.usd + TOLERANCE_USD < usd:
                self._purse.usd += await self._reserve(today, usd - self._purse.usd)
            self._purse.usd -= usd
            return self._purse

    async def _reserve(self, day: date, least: float) -> float:
        """Reserve a block, or the day's rest where that is less; returns how much it was, at least `least`."""
        for _ in range(MOST_TRIES):
            ledger, generation = await self._read(day)
            rest = self._limit - ledger.reserved_usd
            if rest + TOLERANCE_USD < least:
                self._refused_on = day
                raise FallbackBudgetExhausted(self._limit, day.isoformat())
            block = min(max(self._limit / BLOCKS_A_DAY, least), max(rest, least))
            try:
                await self._write(ledger.reserved_usd + block, day, generation)
            except PreconditionFailed:
                continue
            BUDGET_RESERVED_USD.add(block)
            log.info("budget.reserved", usd=round(block, 6), reserved_usd=round(ledger.reserved_usd + block, 6))
            return block
        raise StorageServiceError("reserve in", self._ref(day).uri, f"{MOST_TRIES} other writers were faster")

    async def _read(self, day: date) -> tuple[BudgetLedger, int]:
        try:
            data, facts = await self._store.read(self._ref(day))
            return BudgetLedger.model_validate_json(data), facts.generation
        except ObjectNotFound:
            return BudgetLedger(day=day, reserved_usd=0.0, written_by=""), 0
        except ValidationError as exc:
            raise StorageServiceError("read", self._ref(day).uri, "it is not a budget ledger") from exc

    async def _write(self, reserved_usd: float, day: date, generation: int) -> None:
        # `written_by` makes every write unique: a lost reply is distinguished from another worker's equal sum.
        ledger = BudgetLedger(day=day, reserved_usd=reserved_usd, written_by=self._new_id())
        await self._store.write(
            self._ref(day),
            ledger.model_dump_json().encode(),
            content_type="application/json",
            if_generation=generation,
        )

    def _today(self) -> date:
        return self._clock.now().date()

    def _ref(self, day: date) -> ObjectRef:
        return ObjectRef(self._bucket, f"budget/{day.isoformat()}.json")


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
