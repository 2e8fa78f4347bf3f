"""Holding a job: compare-and-swap, heartbeat, counters, release; and the age of claims, by no worker's wall clock."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

import structlog

from schemas.state import AttemptFault, ClaimRecord, ResultMarker, Waste
from worker.core.jobs.state.checkpoints import Checkpoints
from worker.core.jobs.state.files import ABSENT, StateFiles
from worker.core.tasks import not_awaited, together
from worker.errors import ClaimHeld, ClaimLost, JobIdConflict, PreconditionFailed, Undiagnosed
from worker.ports import Clock
from worker.telemetry.spans import stage

BEATS_PER_TTL = 3
MOST_REASON_CHARACTERS = 500
MOST_FAULTS = 10
RELEASE_SECONDS = 3.0
"""Time limit of a release; a worker has eight seconds after SIGTERM."""
PROVEN_SECONDS = 1.0
"""For this long `conclude` relies on `verify`; Cloud Storage documents one write a second for an object."""

REMEMBERED = 10_000

FRESH_SECONDS = 600.0
"""Maximum age of a reading that the monotonic clock extends; at a drift of 0.05 % the error is 0.3 s in that time."""


class ClaimChanges(TypedDict, total=False):
    """Fields of a `ClaimRecord` that a write changes."""

    held: bool
    progressed: bool
    failures: int
    crashes: int
    last_fault: str
    faults: tuple[AttemptFault, ...]
    deliveries: int
    waste: Waste
    first_seen: datetime
    beat: int
    heartbeat_at: datetime


_RELEASE: ClaimChanges = {"held": False}

log = structlog.get_logger()


def successor(previous: ClaimRecord | None, fresh: ClaimRecord) -> ClaimRecord:
    """Return the record of a new claim, with the counters of the run so far plus the deliveries in `fresh`.

    A claim that is still held is taken over from a dead worker, which counts a crash of the job unless that claim had
    produced a verdict or a new checkpoint. Another run counts from zero.
    """
    if previous is None or (previous.fingerprint, previous.run) != (fresh.fingerprint, fresh.run):
        return fresh
    crashed = previous.held and not previous.progressed
    crash = AttemptFault(at=fresh.first_seen, reason=f"the worker {previous.owner} went away")
    counters = ClaimChanges(
        failures=previous.failures,
        crashes=previous.crashes + crashed,
        last_fault=previous.last_fault,
        faults=(*previous.faults, *([crash] if crashed else []))[-MOST_FAULTS:],
        deliveries=previous.deliveries + fresh.deliveries,
        first_seen=previous.first_seen,
        waste=previous.waste,
    )
    return fresh.model_copy(update={**counters})


class Claim:
    """A job held by this worker; made by `JobStates.claim` and good inside its context only.

    Every write is shielded and they go one after the other, so that a cancelled caller never leaves the claim at a
    generation we do not know.
    """

    lost: asyncio.Event
    """Set once another writer has replaced the claim, or no heartbeat could be written for the ttl."""
    checkpoints: Checkpoints

    def __init__(
        self, files: StateFiles, clock: Clock, ttl_seconds: float, record: ClaimRecord, bucket_time: "BucketTime"
    ) -> None:
        self._files, self._clock, self._ttl_seconds, self._record = files, clock, ttl_seconds, record
        self._bucket_time = bucket_time
        self._ref = files.claim(record.job_id)
        self._generation = self._marker_generation = ABSENT
        self._is_first = False
        self._held = self._taken = self._concluded = self._progressed = False
        self._verified_at = -math.inf
        self._confirmed = clock.monotonic()
        self._writing = asyncio.Lock()
        self.lost = asyncio.Event()
        self.checkpoints = Checkpoints(files, record.job_id, self)

    @property
    def record(self) -> ClaimRecord:
        """As last written: `failures`, `crashes` and `deliveries` of this run (this one included), `first_seen`."""
        return self._record

    @property
    def is_first(self) -> bool:
        """True if the job was never claimed or ended before."""
        return self._is_first

    @property
    def is_certain(self) -> bool:
        """No other worker can have taken the job over by now: the last heartbeat is younger than the ttl."""
        young = self._clock.monotonic() - self._confirmed < self._ttl_seconds
        return young and self._held and not self._taken and not self._concluded

    async def verify(self) -> None:
        """Prove by a write that the job is still ours, now. Raises `ClaimLost`, `StorageServiceError`."""
        await self._write()
        self._verified_at = self._confirmed

    async def record_failure(self, reason: str) -> int:
        """Count a failure with a verdict and return the new total. Raises `ClaimLost`, `StorageServiceError`."""
        await self._write(failures=self._record.failures + 1, faults=self._faults_and(reason), progressed=True)
        return self._record.failures

    async def record_crash(self, reason: str) -> None:
        """Count a crash, and keep its reason. Raises `ClaimLost`, `StorageServiceError`."""
        reason, faults = reason[:MOST_REASON_CHARACTERS], self._faults_and(reason)
        await self._write(crashes=self._record.crashes + 1, last_fault=reason, faults=faults, progressed=True)

    def _faults_and(self, reason: str) -> tuple[AttemptFault, ...]:
        fault = AttemptFault(at=self._clock.now(), reason=reason[:MOST_REASON_CHARACTERS])
        return (*self._record.faults, fault)[-MOST_FAULTS:]

    async def add_waste(self, waste: Waste) -> None:
        """Remember what failed chunks cost. Raises `ClaimLost`, `StorageServiceError`."""
        await self._write(waste=self._record.waste + waste)

    async def note_progress(self, *, is_last: bool = False) -> None:
        """Remember that this claim brought the job forward: at once, or with the next write where that `is_last`.

        Raises `ClaimLost`, `StorageServiceError`.
        """
        if not self._progressed:
            self._progressed = True
            if not is_last:
                await self._write()

    async def conclude(self, marker: ResultMarker) -> None:
        """Verify, then write the result marker over the earlier one, with the faults of the run.

        Nothing is left to claim after that. Of two workers that pass `verify` the marker's generation admits one.

        Raises `ClaimLost` when another worker owns or has concluded the job, `StorageServiceError`.
        """
        if self.lost.is_set() or self._clock.monotonic() - self._verified_at > PROVEN_SECONDS:
            await self.verify()
        ref = self._files.result(marker.job_id)
        try:
            faulty = marker.model_copy(update={"faults": self._record.faults})
            await self._files.save(ref, faulty, if_generation=self._marker_generation)
        except PreconditionFailed as exc:
            raise ClaimLost(marker.job_id) from exc
        self._concluded = True

    @asynccontextmanager
    async def held(
        self, over_generation: int, over_result: ResultMarker | None = None, *, is_new: bool = False
    ) -> AsyncIterator[None]:
        """Put the claim over the one of `over_generation`, keep it alive, give it back.

        Entering raises `ClaimHeld` when another worker was first, or when the job has been concluded otherwise than by
        `over_result`: where it `is_new`, when it has any result.
        """
        tasks: list[asyncio.Task[None]] = []
        try:
            with stage("claim"):
                await self._enter(over_generation, over_result, is_new=is_new)
            tasks += [
                asyncio.create_task(self._beat(), name=f"claim-beat:{self._record.job_id}"),
                asyncio.create_task(self._watch(), name=f"claim-watch:{self._record.job_id}"),
            ]
            yield
        finally:
            for task in tasks:
                task.cancel()
            await self._give_back()
            await _ended(tasks)

    @asynccontextmanager
    async def while_owned(self) -> AsyncIterator[None]:
        """Cancel the block and raise `ClaimLost` as soon as the claim is lost."""
        async with together() as group:
            watch = group.create_task(self._raise_when_lost())
            yield
            watch.cancel()

    async def _raise_when_lost(self) -> None:
        await self.lost.wait()
        raise ClaimLost(self._record.job_id)

    async def _enter(self, over_generation: int, over_result: ResultMarker | None, *, is_new: bool) -> None:
        self._generation = over_generation
        try:
            await self._write()
        except ClaimLost as exc:
            raise ClaimHeld(self._record.job_id, "another worker") from exc
        marker = await self._files.load(self._files.result(self._record.job_id), ResultMarker)
        self._marker_generation = marker.generation
        standing = marker.content
        if is_new and marker.generation != ABSENT:
            self._concluded = True  # so the claim we just made is removed again
            raise ClaimHeld(self._record.job_id, "no worker: it has a result")
        if standing and standing != over_result and self._is_answered_by(standing):
            self._concluded = True  # so the claim we just made is removed again
            refuse_conflict(standing, self._record.fingerprint)
            raise ClaimHeld(self._record.job_id, "no worker any more: it is concluded")
        self._is_first = over_generation == marker.generation == ABSENT

    def _is_answered_by(self, result: ResultMarker) -> bool:
        return result.fingerprint != self._record.fingerprint or result.settles(self._record.run)

    async def _write(self, **changes: Unpack[ClaimChanges]) -> None:
        write = asyncio.create_task(self._swap(changes), name=f"claim-write:{self._record.job_id}")
        await asyncio.shield(not_awaited(write))

    async def _swap(self, changes: ClaimChanges) -> None:
        async with self._writing:
            if self._taken or (self.lost.is_set() and changes != _RELEASE):
                raise ClaimLost(self._record.job_id)
            began = self._clock.monotonic()
            beat = ClaimChanges(beat=self._record.beat + 1, heartbeat_at=self._clock.now())
            progress = ClaimChanges(progressed=True) if self._progressed else {}
            record = self._record.model_copy(update={**progress, **changes, **beat})
            try:
                facts = await self._files.save(self._ref, record, if_generation=self._generation)
            except PreconditionFailed as exc:
                self._taken = True
                self.lost.set()
                raise ClaimLost(self._record.job_id) from exc
            self._generation = facts.generation
            self._bucket_time.learn(facts.created_at)
            self._record, self._confirmed, self._held = record, began, record.held

    async def _beat(self) -> None:
        while not self._concluded:
            await self._clock.sleep(self._ttl_seconds / BEATS_PER_TTL)
            try:
                await self._write()
            except ClaimLost:
                if self._taken:
                    log.warning("claim.lost", job_id=self._record.job_id, reason="another worker has it")
                return
            except Undiagnosed as exc:
                log.warning("claim.heartbeat_failed", job_id=self._record.job_id, reason=str(exc))

    async def _watch(self) -> None:
        while (left := self._confirmed + self._ttl_seconds - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)
        log.warning("claim.lost", job_id=self._record.job_id, reason="no heartbeat for the ttl")
        self.lost.set()

    async def _give_back(self) -> None:
        """Release the claim, even one lost for missing heartbeats, unless another worker took it: it is no crash."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                async with self._writing:  # a write in flight decides whether there is anything to release
                    ours = self._held and not self._taken
                if ours and self._concluded:
                    await self._files.delete(self._ref, if_generation=self._generation)
                elif ours:
                    await self._write(**_RELEASE)
        except (PreconditionFailed, ClaimLost):
            log.info("claim.not_ours_to_release", job_id=self._record.job_id)
        except (TimeoutError, Undiagnosed) as exc:
            log.warning("claim.not_released", job_id=self._record.job_id, reason=repr(exc))


def refuse_conflict(state: ClaimRecord | ResultMarker, fingerprint: str) -> None:
    """Raise `JobIdConflict` when another request left this state."""
    if state.fingerprint != fingerprint:
        raise JobIdConflict(state.job_id)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


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
