"""Answers of the health port: condition, readiness and liveness. Pure functions.

Ready: the worker can do jobs now. Alive: it works or recovers by itself; a worker that is not alive should be killed.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from worker.adapters.gpu import GpuReading
from worker.adapters.parakeet.engine import EngineHealth, EngineState
from worker.adapters.web.answers import Answer
from worker.core.delivery.consumer import ConsumerSnapshot
from worker.core.delivery.fitness import PartTest
from worker.core.jobs.board import EndedJob, RunningJob, Totals
from worker.ports import EngineFacts

# The event loop writes a condition twice a second, however busy.
STALLED_SECONDS = 10.0
# After failed replacements for this long a new instance may have a better GPU.
GIVEN_UP_SECONDS = 60.0
# A process that loads a model, however slowly, beats twice a second.
SILENT_SECONDS = 60.0

# One failed pull is a hiccup of the network; the third comes two seconds later at the earliest.
PULL_FAILURES_TO_REPORT = 3

ENGINE_STATES = {
    EngineState.LOADING: "loads its model",
    EngineState.REPLACING: "is being replaced",
    EngineState.FAILED: "could not be replaced",
}

GIB = 1024**3
OK, UNAVAILABLE = 200, 503


class Status(StrEnum):
    """The worker in a word."""

    LOADING = "loading"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"
    STALLED = "stalled"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Facts that do not change while the worker runs."""

    worker: str
    subscription: str
    gpu_transcription_enabled: bool
    gpu_memory_limit_gb: float
    versions: dict[str, str]
    urgent_subscription: str = ""
    """Empty where urgent jobs are not taken first."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The file system of TEMP_DIR."""

    path: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class Condition:
    """The worker at one moment. `consumer` is None until it takes messages, `engine` where there is no Parakeet."""

    uptime_seconds: float
    consumer: ConsumerSnapshot | None = None
    engine: EngineHealth | None = None
    model: EngineFacts | None = None
    gpus: tuple[GpuReading, ...] = ()
    running: tuple[RunningJob, ...] = ()
    last_jobs: tuple[EndedJob, ...] = ()
    """The newest last."""
    totals: Totals = field(default_factory=Totals)
    deepgram_configured: bool = False
    budget_spent: bool = False
    deepgram_down_because: str = ""
    backlog: int | None = None
    """Unacknowledged messages of the subscription, some minutes ago; None if unknown."""
    oldest_message_seconds: float | None = None
    urgent_backlog: int | None = None
    oldest_urgent_seconds: float | None = None
    disk: Disk | None = None


def judge(condition: Condition, age_seconds: float) -> tuple[Status, str]:
    """Return the status and its reason, for a condition sampled `age_seconds` ago."""
    consumer, engine = condition.consumer, condition.engine
    if age_seconds > STALLED_SECONDS:
        return Status.STALLED, f"the event loop has been blocked for {age_seconds:.0f} s"
    if consumer is None:
        return Status.LOADING, "the model is being loaded"
    if consumer.stopping:
        return Status.STOPPING, "it is stopping"
    if engine is not None and engine.state is not EngineState.READY:
        state = f"the inference process {ENGINE_STATES[engine.state]}"
        return Status.UNHEALTHY, f"{state}: {engine.reason}" if engine.reason else state
    reason = consumer.intake_stopped_because
    if not reason and consumer.pull_failures_in_a_row >= PULL_FAILURES_TO_REPORT:
        reason = f"no messages can be pulled: {consumer.pull_failure}"
    return Status.UNHEALTHY if reason else Status.HEALTHY, reason


def is_alive(condition: Condition, age_seconds: float) -> tuple[bool, str]:
    """Return the liveness, and the reason why the worker is not alive."""
    if age_seconds > STALLED_SECONDS:
        return False, f"the event loop has been blocked for {age_seconds:.0f} s"
    engine = condition.engine
    # While the worker itself loads, the start has a limit of its own and ends it.
    if engine is None or condition.consumer is None or engine.state is EngineState.READY:
        return True, ""
    if engine.failing_seconds + age_seconds > GIVEN_UP_SECONDS:
        return False, f"the inference process could not be replaced: {engine.reason}"
    if (engine.heartbeat_age_seconds or 0.0) + age_seconds > SILENT_SECONDS:
        return False, f"the new inference process hangs; the one before: {engine.reason}"
    return True, ""


def health_answer(identity: Identity, condition: Condition, age_seconds: float) -> Answer:
    """`/health`: all that is known; 503 unless ready."""
    status, reason = judge(condition, age_seconds)
    return _answer(status is Status.HEALTHY, document(identity, condition, status, reason))


def ready_answer(condition: Condition, age_seconds: float) -> Answer:
    """`/ready`."""
    status, reason = judge(condition, age_seconds)
    return _answer(status is Status.HEALTHY, {"ready": status is Status.HEALTHY, "status": status, "reason": reason})


def live_answer(condition: Condition, age_seconds: float) -> Answer:
    """`/live`."""
    alive, reason = is_alive(condition, age_seconds)
    return _answer(alive, {"live": alive, "reason": reason})


def document(identity: Identity, condition: Condition, status: Status, reason: str) -> dict[str, Any]:
    """Everything, as JSON has it."""
    consumer, last = condition.consumer, condition.last_jobs[-1] if condition.last_jobs else None
    return {
        "status": status,
        "reason": reason,
        "gpu": _gpu(condition.gpus),
        "gpu_transcription_enabled": identity.gpu_transcription_enabled,
        "worker": identity.worker,
        "subscription": identity.subscription,
        "uptime_seconds": round(condition.uptime_seconds, 1),
        "model": _model(condition.model) if condition.model else None,
        "engine": _engine(condition.engine),
        "jobs": {
            "in_flight": consumer.jobs if consumer else 0,
            "parked": consumer.parked if consumer else 0,
            "free_slots": consumer.free_slots if consumer else 0,
            "running": [asdict(job) for job in condition.running],
        },
        "last_job": _ended(last) if last else None,
        "last_jobs": [_ended(job) for job in reversed(condition.last_jobs)],
        "totals": asdict(condition.totals),
        "backlog": condition.backlog,
        "oldest_message_seconds": condition.oldest_message_seconds,
        "urgent": {
            "subscription": identity.urgent_subscription,
            "backlog": condition.urgent_backlog,
            "oldest_message_seconds": condition.oldest_urgent_seconds,
            "pull_failure": consumer.urgent_pull_failure if consumer else "",
        }
        if identity.urgent_subscription
        else None,
        "disk": asdict(condition.disk) if condition.disk else None,
        "intake": {
            "stopped_because": consumer.intake_stopped_because if consumer else "",
            "pull_failures_in_a_row": consumer.pull_failures_in_a_row if consumer else 0,
            "pull_failure": consumer.pull_failure if consumer else "",
        },
        "self_test": {test.part: _test(test) for test in consumer.parts} if consumer else {},
        "fuse": asdict(consumer.fuse) if consumer else None,
        "deepgram": {
            "configured": condition.deepgram_configured,
            "budget_spent": condition.budget_spent,
            "down_because": condition.deepgram_down_because,
        },
        "gpu_memory_limit_gb": identity.gpu_memory_limit_gb,
        "versions": identity.versions,
    }


def _model(facts: EngineFacts) -> dict[str, Any]:
    return {
        "name": facts.model_name,
        "fingerprint": facts.model_fingerprint,
        "device": facts.device_name,
        "uses_gpu": facts.uses_gpu,
    }


def _ended(job: EndedJob) -> dict[str, Any]:
    return {**asdict(job), "ended_at": job.ended_at.isoformat()}


def _test(test: PartTest) -> dict[str, Any]:
    return {
        "passed": test.passed,
        "reason": test.reason,
        "tested_at": test.tested_at.isoformat() if test.tested_at else None,
        "seconds": test.seconds,
    }


def _gpu(readings: tuple[GpuReading, ...]) -> dict[str, Any]:
    first = readings[0] if readings else None
    return {
        "available": first is not None,
        "count": len(readings),
        "name": first.name if first else None,
        "memory_gb": round(first.memory_total_bytes / GIB, 1) if first else None,
        "devices": [{**asdict(reading), "throttled_by": sorted(reading.throttled_by)} for reading in readings],
    }


def _engine(health: EngineHealth | None) -> dict[str, Any] | None:
    if health is None:
        return None
    rounded = {name: round(getattr(health, name), 1) for name in ("state_seconds", "failing_seconds")}
    return {**asdict(health), **rounded}


def _answer(good: bool, body: dict[str, Any]) -> Answer:
    return Answer(status=OK if good else UNAVAILABLE, body=json.dumps(body).encode() + b"\n")
