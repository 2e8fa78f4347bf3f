"""Diagnoses whose fault a failure is, and keeps the intake stopped while a part of this worker is broken.

An error of an adapter or of the operating system states which call failed, not why. `Fitness.diagnose` probes what the
call needed and returns an error whose class is the policy:

    the part is broken: the service refuses it (401, 403, 404)       ResourceRefused, a WorkerFault
                        the service does not answer                  ResourceDown, a ServiceDown
                        the operating system refuses (ENOSPC, ...)   MachineFault, a WorkerFault
    the part works:     the call was refused all the same            the job's fault that the caller named, or else
                                                                     ResourceRefused, see `report`
                        the call failed                              CallFailed, a Retryable
    the part is no part of this worker                               the job's fault that the caller named

A part that was broken at any time since the delivery began counts as broken, even if it works again by now.
"""

import asyncio
import errno
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

import structlog

from worker.core.tasks import backoff_seconds, bounded, caught, first_of, switch
from worker.errors import (
    MachineFault,
    PartBroken,
    ResourceDown,
    ResourceRefused,
    ServiceDown,
    Undiagnosed,
    WorkerError,
    WorkerFault,
)
from worker.ports import Clock

PROBE_SECONDS = 60.0
LONGEST_PROBE_PAUSE_SECONDS = 15.0
LONGEST_RELAPSE_PAUSE_SECONDS = 60.0
MOST_REMEMBERED_FAULTS = 4096
MOST_PARTS = 200
"""A bound, because buckets that jobs have used become parts too."""
TEMP_DIR, MACHINE, DECODER = "TEMP_DIR", "machine", "decoder"
"""Resources that every job needs of this machine: disk; memory, descriptors, processes; and the program ffmpeg."""
DISK_IS_REFUSED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
DISK_MAY_BE_REFUSED = DISK_IS_REFUSED | {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ESTALE}
MACHINE_IS_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS})
NO_THREADS = "can't start new thread"

log = structlog.get_logger()


class Need(Enum):
    """Faults of a part that stop the intake."""

    EVERY_JOB = "every job"
    """Both a refusal and an outage."""
    SOME_JOBS = "some jobs"
    """Only a refusal, which is the worker's fault. In an outage the jobs that need the part wait."""
    OPTIONAL = "optional"
    """None: jobs have another way, or another component decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Something that jobs need of this worker. `probe` raises if the part does not work.

    `resource` is its name in errors: `gs://bucket`, a topic's path, `TEMP_DIR`. A `remote` part belongs to a service,
    which may be down; all others belong to this machine.
    """

    name: str
    resource: str
    probe: Callable[[], Awaitable[None]]
    need: Need = Need.EVERY_JOB
    remote: bool = True
    limit_seconds: float = PROBE_SECONDS
    is_learned: bool = False
    """True for a part that jobs have used and no setting names: probed when a job's call fails, not by self-tests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartTest:
    """Last test of one part: `passed` is None before the first test, `reason` is empty unless it failed."""

    part: str
    passed: bool | None = None
    reason: str = ""
    tested_at: datetime | None = None
    seconds: float = 0.0


@dataclass(kw_only=True, slots=True)
class _Condition:
    part: Part
    test: PartTest
    fault: WorkerFault | ServiceDown | None = None
    """Reason why the part is broken now; None if it works."""
    last_fault: WorkerFault | ServiceDown | None = None
    recovered_at: float = float("-inf")
    next_probe_at: float = 0.0
    failed_probes: int = 0
    relapses: int = 0
    """Number of times the part broke again since the last completed job."""
    probing: asyncio.Task[WorkerFault | ServiceDown | None] | None = None
    mended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stops_intake(self) -> bool:
        match self.part.need:
            case Need.EVERY_JOB:
                return self.fault is not None
            case Need.SOME_JOBS:
                return isinstance(self.fault, WorkerFault)
            case Need.OPTIONAL:
                return False


class Fitness:
    """Parts of one worker and their condition. The owner starts `tend`."""

    def __init__(self, parts: Iterable[Part], clock: Clock, rng: random.Random) -> None:
        self._clock, self._rng = clock, rng
        self._conditions: dict[str, _Condition] = {}
        self._met_at: OrderedDict[tuple[str, str], float] = OrderedDict()
        """When which delivery met a fault of which part; the oldest entries are dropped."""
        self._broken, self._changed = asyncio.Event(), asyncio.Event()
        self._fit = asyncio.Event()
        self._fit.set()
        for part in parts:
            self.add(part)

    def add(self, part: Part) -> None:
        """Add a part, unless its resource has one; above `MOST_PARTS` in place of a learned one that works, if any."""
        if part.resource in self._conditions:
            return
        if len(self._conditions) >= MOST_PARTS:
            working = (name for name, one in self._conditions.items() if one.part.is_learned and one.fault is None)
            if (oldest := next(working, None)) is None:
                return
            del self._conditions[oldest]
        self._conditions[part.resource] = _Condition(part=part, test=PartTest(part=part.name))

    @property
    def tests(self) -> tuple[PartTest, ...]:
        """Last test of each part, in the order of their addition."""
        return tuple(condition.test for condition in self._conditions.values())

    def why_unfit(self) -> str:
        """Return why no job can be done now, or an empty string."""
        return "; ".join(str(broken.fault) for broken in self._conditions.values() if broken.stops_intake)

    async def wait_fit(self) -> None:
        """Wait until no part that stops the intake is broken."""
        await self._fit.wait()

    async def wait_mended(self, resource: str) -> None:
        """Wait until the resource's part works, as far as known."""
        condition = self._conditions.get(resource)
        while condition is not None and condition.fault is not None:
            await condition.mended.wait()

    def refuse_if_broken(self, resource: str) -> None:
        """Raise where the resource's part is known to be broken, so that no call has to fail first.

        `ResourceDown` in an outage, which may be waited out; otherwise `PartBroken`, for a job that has not tried the
        part never counts as the cause of its fault.
        """
        condition = self._conditions.get(resource)
        if condition is None or condition.fault is None:
            return
        if isinstance(condition.fault, WorkerFault):
            raise PartBroken(condition.fault)
        raise condition.fault.with_traceback(None)

    async def diagnose(self, error: Exception, since: float) -> Exception:
        """Return an error whose class is the policy. `since`: start of the delivery on the monotonic clock, seconds."""
        match error:
            case Undiagnosed():
                return await self._diagnose_call(error, since)
            case OSError(errno=number) if number in DISK_MAY_BE_REFUSED:
                return await self._diagnose_disk(error, since)
            case _ if _is_shortage(error):
                return _machine_fault(MACHINE, error)
            case _:
                return error

    def report(self, fault: WorkerFault | ServiceDown, delivery: str) -> bool:
        """Stop the intake until a probe of the fault's part works; return True where the job is the likely cause.

        That is so if the same `delivery` met the same fault before and the part has worked in between: a job that fills
        the disk by itself must end.
        """
        before = self._met_at.pop((delivery, fault.part), None)
        self._met_at[delivery, fault.part] = self._clock.monotonic()
        if len(self._met_at) > MOST_REMEMBERED_FAULTS:
            self._met_at.popitem(last=False)
        condition = self._by_name(fault.part)
        if condition is None or condition.part.need is Need.OPTIONAL:
            return False
        if condition.fault is None and fault is not condition.last_fault:  # otherwise it was mended in the meantime
            self._break(condition, fault)
        return isinstance(fault, WorkerFault) and before is not None and condition.recovered_at > before

    def record_success(self) -> None:
        """Reset the distrust of parts that broke repeatedly."""
        for condition in self._conditions.values():
            if condition.fault is None:
                condition.relapses = 0

    def record_verified(self) -> None:
        """Mark all present parts as tested, by other means."""
        now = self._clock.now()
        for condition in self._conditions.values():
            if condition.test.passed is None:
                condition.test = PartTest(part=condition.part.name, passed=True, tested_at=now)

    async def self_test(self) -> None:
        """Probe every part but learned ones, in order; then raise the fault of the first broken one."""
        own = [condition for condition in self._conditions.values() if not condition.part.is_learned]
        faults = [await self._probe(condition) for condition in own]
        for fault in faults:
            if fault is not None:
                raise fault.with_traceback(None)

    async def tend(self) -> None:
        """Probe broken parts in an endless loop, with a backoff from 1 s to 15 s."""
        while True:
            await self._broken.wait()
            self._changed.clear()
            broken = [condition for condition in self._conditions.values() if condition.fault is not None]
            condition = min(broken, key=lambda each: each.next_probe_at)
            await first_of(self._clock.sleep(condition.next_probe_at - self._clock.monotonic()), self._changed.wait())
            if condition.fault is not None and condition.next_probe_at <= self._clock.monotonic():
                await self._probe(condition)

    async def _diagnose_call(self, error: Undiagnosed, since: float) -> Exception:
        condition = self._conditions.get(error.resource)
        if condition is None:
            return error.verdict()
        if (fault := await self._fault_of(condition, since)) is not None:
            return fault
        if error.refused and error.otherwise is None:
            # Refused although the part works: this call alone, or the refusal has ended. Not counted the first time.
            return ResourceRefused(condition.part.name, str(error)).because_of(error)
        return error.verdict()

    async def _diagnose_disk(self, error: OSError, since: float) -> Exception:
        """Probe TEMP_DIR, and the decoder: a program that cannot be started is a missing file, too."""
        for resource in (TEMP_DIR, DECODER):
            condition = self._conditions.get(resource)
            if condition is not None and (fault := await self._fault_of(condition, since)) is not None:
                return fault
        return _machine_fault(TEMP_DIR, error) if error.errno in DISK_IS_REFUSED else error

    async def _fault_of(self, condition: _Condition, since: float) -> WorkerFault | ServiceDown | None:
        fault = condition.fault or await self._probe(condition)
        if fault is None and condition.recovered_at >= since:
            fault = condition.last_fault
        return fault

    async def _probe(self, condition: _Condition) -> WorkerFault | ServiceDown | None:
        """Probe the part once for all concurrent callers; return its fault, or None."""
        if condition.probing is None:
            condition.probing = asyncio.create_task(self._run_probe(condition), name=f"probe:{condition.part.name}")
        return await asyncio.shield(condition.probing)

    async def _run_probe(self, condition: _Condition) -> WorkerFault | ServiceDown | None:
        part, began = condition.part, self._clock.monotonic()
        try:
            failed = await caught(bounded(part.probe(), part.limit_seconds, self._clock))
        finally:
            condition.probing = None
        fault = None if failed is None else _fault_from(failed, part)
        condition.test = PartTest(
            part=part.name,
            passed=fault is None,
            reason=str(fault or ""),
            tested_at=self._clock.now(),
            seconds=round(self._clock.monotonic() - began, 3),
        )
        if fault is None:
            self._mend(condition)
        else:
            condition.failed_probes += 1
            self._break(condition, fault)
        return fault

    def _break(self, condition: _Condition, fault: WorkerFault | ServiceDown) -> None:
        if condition.fault is None:
            condition.relapses += condition.last_fault is not None
            log.error("part.broken", part=condition.part.name, code=fault.code, reason=str(fault))
        condition.fault = condition.last_fault = fault
        condition.mended.clear()
        self._changed.set()
        condition.next_probe_at = self._clock.monotonic() + self._pause_seconds(condition)
        self._note_fitness()

    def _mend(self, condition: _Condition) -> None:
        condition.failed_probes = 0
        if condition.fault is None:
            return
        condition.fault, condition.recovered_at = None, self._clock.monotonic()
        condition.mended.set()
        log.info("part.mended", part=condition.part.name)
        self._note_fitness()

    def _pause_seconds(self, condition: _Condition) -> float:
        """Return a longer pause for a part that breaks each time a job uses it, until a job is completed."""
        probes, relapses = condition.failed_probes, condition.relapses
        by_probes = backoff_seconds(max(probes, 1), base=1.0, most=LONGEST_PROBE_PAUSE_SECONDS, rng=self._rng)
        if not relapses:
            return by_probes
        by_relapses = backoff_seconds(relapses, base=1.0, most=LONGEST_RELAPSE_PAUSE_SECONDS, rng=self._rng)
        return max(by_probes, by_relapses)

    def _note_fitness(self) -> None:
        conditions = self._conditions.values()
        switch(self._broken, on=any(condition.fault is not None for condition in conditions))
        switch(self._fit, on=not any(condition.stops_intake for condition in conditions))

    def _by_name(self, name: str) -> _Condition | None:
        return next((one for one in self._conditions.values() if name in {one.part.name, one.part.resource}), None)


def _is_shortage(error: Exception) -> bool:
    """Return True where memory, descriptors, processes or threads have run out."""
    if isinstance(error, OSError):
        return error.errno in MACHINE_IS_SHORT
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_THREADS in str(error))


def _machine_fault(part: str, error: BaseException) -> MachineFault:
    return MachineFault(part, _described(error)).because_of(error)


def _fault_from(failed: Exception, part: Part) -> WorkerFault | ServiceDown:
    """Return the fault of a part whose probe failed."""
    if isinstance(failed, WorkerFault | ServiceDown) and failed.part == part.name:
        return failed
    if isinstance(failed, Undiagnosed) and failed.refused:
        return ResourceRefused(part.name, str(failed)).because_of(failed)
    if part.remote and isinstance(failed, Undiagnosed | TimeoutError):
        return ResourceDown(part.name, str(failed)).because_of(failed)
    return _machine_fault(part.name, failed)


def _described(error: BaseException) -> str:
    return str(error) if isinstance(error, WorkerError) else f"{type(error).__name__}: {error}"
