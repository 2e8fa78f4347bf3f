"""Conditions of a worker, made up."""

from datetime import UTC, datetime
from typing import Any

from worker.adapters.gpu import GpuReading
from worker.adapters.parakeet.engine import EngineHealth, EngineState
from worker.app.status import Condition, Identity
from worker.core.delivery.consumer import ConsumerSnapshot
from worker.core.delivery.fuse import FuseState, FuseStatus
from worker.core.jobs.board import EndedJob, RunningJob, Totals
from worker.ports import EngineFacts

IDENTITY = Identity(
    worker="w-1",
    subscription="jobs",
    gpu_transcription_enabled=True,
    gpu_memory_limit_gb=20,
    versions={"klipstream-worker": "0.1.0"},
)
L4 = GpuReading(
    index=0,
    name="NVIDIA L4",
    memory_used_bytes=6 * 1024**3,
    memory_total_bytes=24 * 1024**3,
    utilisation=0.83,
    temperature_celsius=61,
    power_watts=68.5,
    throttled_by=frozenset({"power"}),
    ecc_errors=0,
)


def engine_health(state: EngineState = EngineState.READY, **changes: Any) -> EngineHealth:
    facts: dict[str, Any] = {
        "state": state,
        "state_seconds": 1.0,
        "failing_seconds": 0.0,
        "reason": None,
        "restarts": 0,
        "heartbeat_age_seconds": 0.2,
        "device_memory_bytes": 0,
    }
    return EngineHealth(**{**facts, **changes})


def consumer_snapshot(**changes: Any) -> ConsumerSnapshot:
    facts: dict[str, Any] = {
        "jobs": 1,
        "parked": 0,
        "free_slots": 3,
        "unsettled": 1,
        "pull_failures_in_a_row": 0,
        "pull_failure": "",
        "parts": (),
        "fuse": FuseStatus(state=FuseState.CLOSED, reason="", failures_in_a_row=0),
        "intake_stopped_because": "",
        "stopping": False,
    }
    return ConsumerSnapshot(**{**facts, **changes})


def condition(**changes: Any) -> Condition:
    """A worker at work."""
    facts: dict[str, Any] = {
        "uptime_seconds": 100.0,
        "backlog": 17,
        "consumer": consumer_snapshot(),
        "engine": engine_health(),
        "model": EngineFacts(
            model_name="parakeet",
            model_fingerprint="f",
            device_name="NVIDIA L4",
            uses_gpu=True,
            languages=frozenset({"en"}),
        ),
        "gpus": (L4,),
        "running": (
            RunningJob(
                job_id="j1",
                video_id="v1",
                method="parakeet",
                seconds=12.0,
                audio_seconds=3600.0,
                audio_seconds_done=1200.0,
                chunks_done=2,
                chunks_total=3,
                chunks=("parakeet", "deepgram", None),
                chunks_in_work=(2,),
            ),
        ),
        "last_jobs": (
            EndedJob(
                job_id="j0", code=None, ended_at=datetime(2026, 11, 22, tzinfo=UTC), seconds=9.0, speed_ratio=200.0
            ),
        ),
        "totals": Totals(
            completed=9,
            failed=1,
            audio_seconds=36000,
            processing_seconds=180,
            cost_usd=0.05,
            baseline_usd=2.7,
            chunks=60,
            chunks_fallback=3,
        ),
    }
    return Condition(**{**facts, **changes})
