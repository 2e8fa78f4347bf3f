"""Chooses the method of a job: the first rule that decides, in the order of the contract (section 4).

Rules are small pure functions of `Situation`; each returns a `Route`, or None to leave the decision to the next rule.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from schemas.codes import Method
from schemas.job import ANY_LANGUAGE, TranscriptionJob
from worker.errors import DeepgramNotConfigured, GpuNotAvailable, ParakeetDisabled

RouteMethod = Literal["parakeet", "deepgram", "hybrid"]
SECONDS_PER_HOUR = 3600
BUCKETS = 10_000
LONG_FILE, GPU_UNHEALTHY = "long_file", "gpu_unhealthy"


@dataclass(frozen=True, kw_only=True)
class RoutingPolicy:
    """Settings of routing; see the contract, section 4."""

    method: Method = Method.AUTO
    gpu_enabled: bool = True
    fallback_enabled: bool = True
    rollout_percent: float = 100
    cost_optimization: bool = True
    short_file_seconds: float = 2 * SECONDS_PER_HOUR
    long_file_seconds: float = 4 * SECONDS_PER_HOUR


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Input of the decision. `duration_seconds` is None if the duration is unknown before decoding."""

    job: TranscriptionJob
    policy: RoutingPolicy
    gpu_healthy: bool
    model_languages: frozenset[str]
    """Empty where no model is loaded: then no language is missing in it."""
    duration_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Route:
    """The method a job takes, and the name of the rule that decided (goes into log and events)."""

    method: RouteMethod
    reason: str

    @property
    def is_for_speed(self) -> bool:
        """True where Deepgram was chosen to be faster, and not because Parakeet should not do the job."""
        return self.method == "hybrid" or self.reason == LONG_FILE


def route(situation: Situation) -> Route:
    """Decide. Never fails: whether the chosen engine can be used at all is the caller's to check."""
    return next(found for rule in RULES if (found := rule(situation)) is not None)


def feasible(found: Route, situation: Situation, *, paid_configured: bool) -> Route:
    """Return the route, or the nearest one that this worker can take.

    Raises `ParakeetDisabled` or `DeepgramNotConfigured` if there is none, `GpuNotAvailable` if there is none now.
    """
    allowed = may_use_gpu(situation)
    if found.method == "parakeet" and not allowed:
        raise ParakeetDisabled("ENABLE_GPU_TRANSCRIPTION or the job's enable_gpu is false")
    if found.method == "hybrid" and not allowed:
        found = Route(method="deepgram", reason="gpu_disabled")
    if found.reason == GPU_UNHEALTHY and not may_fall_back(situation):
        raise GpuNotAvailable("the engine failed repeatedly, and falling back is off")
    if found.method == "parakeet" or paid_configured:
        return found
    asked_for = found.method == "deepgram" and found.reason in {"force_method", "transcription_method"}
    if asked_for or not can_use_parakeet(situation):
        raise DeepgramNotConfigured(found.reason)
    if not situation.gpu_healthy:
        raise GpuNotAvailable("the engine failed repeatedly, and there is no DEEPGRAM_API_KEY")
    return Route(method="parakeet", reason="deepgram_not_configured")


def may_use_gpu(situation: Situation) -> bool:
    """Return True if worker and job both allow Parakeet."""
    return situation.policy.gpu_enabled and situation.job.transcription_config.enable_gpu


def may_fall_back(situation: Situation) -> bool:
    """Return True if worker and job both allow Deepgram as the fallback."""
    return situation.policy.fallback_enabled and situation.job.transcription_config.enable_fallback


def can_use_parakeet(situation: Situation) -> bool:
    """Return True where Parakeet may do the job and its model has the job's language."""
    return may_use_gpu(situation) and _model_has_language(situation)


def needs_paid_service(situation: Situation) -> bool:
    """Return True where the job can only wait while Deepgram is down: no chunk of it may go to Parakeet."""
    found = route(situation)
    may_step_in = found.is_for_speed and situation.gpu_healthy and can_use_parakeet(situation)
    return found.method == "deepgram" and not may_step_in


def another_may_do_without(situation: Situation) -> bool:
    """Return True where the job needs Deepgram here only: another worker's Parakeet may be in order."""
    return route(situation).reason == GPU_UNHEALTHY


def in_rollout(video_id: str, percent: float) -> bool:
    """Return True if the video is in the rollout share; a video stays in it as the share grows."""
    bucket = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "big") % BUCKETS
    return bucket < percent * BUCKETS / 100


def _forced_by_job(situation: Situation) -> Route | None:
    return _as_asked(situation.job.force_method, "force_method")


def _set_by_worker(situation: Situation) -> Route | None:
    return _as_asked(situation.policy.method, "transcription_method")


def _language(situation: Situation) -> Route | None:
    known = not situation.model_languages or _model_has_language(situation)
    return None if known else Route(method="deepgram", reason="language_not_in_model")


def _gpu(situation: Situation) -> Route | None:
    if not may_use_gpu(situation):
        return Route(method="deepgram", reason="gpu_disabled")
    return None if situation.gpu_healthy else Route(method="deepgram", reason=GPU_UNHEALTHY)


def _rollout(situation: Situation) -> Route | None:
    inside = in_rollout(situation.job.video_id, situation.policy.rollout_percent)
    return None if inside else Route(method="deepgram", reason="rollout_percent")


def _cheapest(situation: Situation) -> Route | None:
    wanted = situation.policy.cost_optimization and situation.job.transcription_config.cost_optimization
    return Route(method="parakeet", reason="cost_optimization") if wanted else None


def _thresholds(situation: Situation) -> Route | None:
    seconds, policy = situation.duration_seconds, situation.policy
    if seconds is None:
        return Route(method="parakeet", reason="duration_unknown")
    if seconds < policy.short_file_seconds:
        return Route(method="parakeet", reason="short_file")
    if seconds >= policy.long_file_seconds:
        return Route(method="deepgram", reason=LONG_FILE)
    return Route(method="hybrid", reason="between_thresholds")


def _model_has_language(situation: Situation) -> bool:
    """Return True for the languages of the model, whatever the region; `auto` is a language of every model.

    A model of several languages finds out by itself which is spoken, a model of one takes it for its own.
    """
    language = situation.job.language.split("-")[0].lower()
    return bool(situation.model_languages) and (language in situation.model_languages or language == ANY_LANGUAGE)


def _as_asked(method: Method, reason: str) -> Route | None:
    match method:
        case Method.AUTO:
            return None
        case Method.PARAKEET:
            return Route(method="parakeet", reason=reason)
        case Method.DEEPGRAM:
            return Route(method="deepgram", reason=reason)
        case Method.HYBRID:
            return Route(method="hybrid", reason=reason)


RULES: tuple[Callable[[Situation], Route | None], ...] = (
    _forced_by_job,
    _set_by_worker,
    _language,
    _gpu,
    _rollout,
    _cheapest,
    _thresholds,
)
