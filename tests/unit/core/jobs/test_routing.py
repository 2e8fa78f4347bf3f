from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import Method
from schemas.job import TranscriptionJob
from worker.core.jobs.routing import (
    SECONDS_PER_HOUR,
    Route,
    RoutingPolicy,
    Situation,
    feasible,
    in_rollout,
    needs_paid_service,
    route,
)
from worker.errors import DeepgramNotConfigured, GpuNotAvailable, ParakeetDisabled, WorkerError

EUROPEAN = frozenset({"en", "de", "fr"})
BY_LENGTH = RoutingPolicy(cost_optimization=False)


def job(**fields: object) -> TranscriptionJob:
    return TranscriptionJob.model_validate({"job_id": "j", "video_id": "v", "audio_uri": "gs://bucket/a.mp3", **fields})


def situation(**changes: object) -> Situation:
    usual = Situation(
        job=job(), policy=RoutingPolicy(), gpu_healthy=True, model_languages=frozenset({"en"}), duration_seconds=60.0
    )
    return replace(usual, **changes)


@pytest.mark.parametrize(
    ("case", "needs"),
    [
        (situation(), False),
        (situation(job=job(force_method="deepgram")), True),
        (situation(job=job(force_method="hybrid")), False),
        (situation(policy=RoutingPolicy(method=Method.DEEPGRAM)), True),
        (situation(job=job(language="fr")), True),
        (situation(policy=RoutingPolicy(rollout_percent=0)), True),
        (situation(gpu_healthy=False), True),
        (situation(policy=RoutingPolicy(gpu_enabled=False)), True),
        (situation(policy=BY_LENGTH, duration_seconds=9.0 * SECONDS_PER_HOUR), False),
    ],
)
def test_a_job_needs_paid_service_where_parakeet_may_not_or_cannot_do_it(case: Situation, needs: bool) -> None:
    assert needs_paid_service(case) is needs


@pytest.mark.parametrize(
    ("case", "method", "reason"),
    [
        (situation(), "parakeet", "cost_optimization"),
        (situation(job=job(force_method="deepgram")), "deepgram", "force_method"),
        (situation(job=job(transcription_config={"method": "hybrid"})), "hybrid", "force_method"),
        (situation(policy=RoutingPolicy(method=Method.DEEPGRAM)), "deepgram", "transcription_method"),
        (situation(job=job(language="fr")), "deepgram", "language_not_in_model"),
        (situation(job=job(language="en-GB")), "parakeet", "cost_optimization"),
        (situation(job=job(language="de-AT"), model_languages=EUROPEAN), "parakeet", "cost_optimization"),
        (situation(job=job(language="auto"), model_languages=EUROPEAN), "parakeet", "cost_optimization"),
        (situation(job=job(language="auto")), "parakeet", "cost_optimization"),
        (situation(job=job(language="ja"), model_languages=EUROPEAN), "deepgram", "language_not_in_model"),
        (situation(policy=RoutingPolicy(gpu_enabled=False)), "deepgram", "gpu_disabled"),
        (situation(job=job(transcription_config={"enable_gpu": False})), "deepgram", "gpu_disabled"),
        (situation(gpu_healthy=False), "deepgram", "gpu_unhealthy"),
        (situation(policy=RoutingPolicy(rollout_percent=0)), "deepgram", "rollout_percent"),
        (situation(policy=BY_LENGTH), "parakeet", "short_file"),
        (situation(policy=BY_LENGTH, duration_seconds=2.0 * SECONDS_PER_HOUR), "hybrid", "between_thresholds"),
        (situation(policy=BY_LENGTH, duration_seconds=4.0 * SECONDS_PER_HOUR - 1), "hybrid", "between_thresholds"),
        (situation(policy=BY_LENGTH, duration_seconds=4.0 * SECONDS_PER_HOUR), "deepgram", "long_file"),
        (situation(policy=BY_LENGTH, duration_seconds=None), "parakeet", "duration_unknown"),
        (situation(job=job(transcription_config={"cost_optimization": False})), "parakeet", "short_file"),
    ],
)
def test_each_rule_decides_where_it_applies(case: Situation, method: str, reason: str) -> None:
    found = route(case)

    assert (found.method, found.reason) == (method, reason)


def test_every_rule_beats_those_after_it() -> None:
    everything_at_once = situation(
        job=job(force_method="parakeet", language="fr"),
        policy=replace(BY_LENGTH, method=Method.HYBRID, gpu_enabled=False, rollout_percent=0),
        gpu_healthy=False,
        duration_seconds=5.0 * SECONDS_PER_HOUR,
    )
    steps = [
        ("force_method", {"job": job(language="fr")}),
        ("transcription_method", {"policy": replace(BY_LENGTH, gpu_enabled=False, rollout_percent=0)}),
        ("language_not_in_model", {"job": job()}),
        ("gpu_disabled", {"policy": replace(BY_LENGTH, rollout_percent=0)}),
        ("gpu_unhealthy", {"gpu_healthy": True}),
        ("rollout_percent", {"policy": BY_LENGTH}),
        ("long_file", {"policy": RoutingPolicy()}),
        ("cost_optimization", {}),
    ]

    reasons, left = [], everything_at_once
    for _, change in steps:
        reasons.append(route(left).reason)
        left = replace(left, **change)

    assert reasons == [reason for reason, _ in steps]


@given(video_id=st.text(min_size=1), small=st.floats(0, 100), more=st.floats(0, 100))
def test_a_video_that_is_let_in_stays_in_as_the_share_grows(video_id: str, small: float, more: float) -> None:
    if in_rollout(video_id, min(small, more)):
        assert in_rollout(video_id, max(small, more))


@pytest.mark.parametrize("percent", [10, 50])
def test_the_rollout_share_is_the_share_of_videos(percent: float) -> None:
    inside = sum(in_rollout(str(number), percent) for number in range(10_000))

    assert inside / 100 == pytest.approx(percent, abs=1.5)


def test_a_rollout_of_0_and_100_percent_is_no_video_and_every_video() -> None:
    assert not any(in_rollout(str(number), 0) for number in range(1000))
    assert all(in_rollout(str(number), 100) for number in range(1000))


NO_GPU = RoutingPolicy(gpu_enabled=False)
NO_FALLBACK = RoutingPolicy(fallback_enabled=False)


@pytest.mark.parametrize("has_key", [True, False])
@pytest.mark.parametrize(
    ("case", "with_key", "without_key"),
    [
        (situation(), "parakeet: cost_optimization", "parakeet: cost_optimization"),
        (situation(job=job(force_method="parakeet")), "parakeet: force_method", "parakeet: force_method"),
        (situation(job=job(force_method="parakeet"), policy=NO_GPU), ParakeetDisabled, ParakeetDisabled),
        (
            situation(job=job(force_method="parakeet", transcription_config={"enable_gpu": False})),
            ParakeetDisabled,
            ParakeetDisabled,
        ),
        (situation(job=job(force_method="deepgram")), "deepgram: force_method", DeepgramNotConfigured),
        (
            situation(policy=RoutingPolicy(method=Method.DEEPGRAM)),
            "deepgram: transcription_method",
            DeepgramNotConfigured,
        ),
        (situation(job=job(force_method="hybrid")), "hybrid: force_method", "parakeet: deepgram_not_configured"),
        (situation(job=job(force_method="hybrid"), policy=NO_GPU), "deepgram: gpu_disabled", DeepgramNotConfigured),
        (situation(job=job(language="fr")), "deepgram: language_not_in_model", DeepgramNotConfigured),
        (situation(policy=NO_GPU), "deepgram: gpu_disabled", DeepgramNotConfigured),
        (situation(gpu_healthy=False), "deepgram: gpu_unhealthy", GpuNotAvailable),
        (situation(gpu_healthy=False, policy=NO_FALLBACK), GpuNotAvailable, GpuNotAvailable),
        (
            situation(gpu_healthy=False, job=job(transcription_config={"enable_fallback": False})),
            GpuNotAvailable,
            GpuNotAvailable,
        ),
        (
            situation(policy=RoutingPolicy(rollout_percent=0)),
            "deepgram: rollout_percent",
            "parakeet: deepgram_not_configured",
        ),
        (
            situation(policy=BY_LENGTH, duration_seconds=5.0 * SECONDS_PER_HOUR),
            "deepgram: long_file",
            "parakeet: deepgram_not_configured",
        ),
        (
            situation(policy=replace(NO_FALLBACK, cost_optimization=False), duration_seconds=5.0 * SECONDS_PER_HOUR),
            "deepgram: long_file",
            "parakeet: deepgram_not_configured",
        ),
    ],
)
def test_a_route_that_cannot_be_taken_becomes_the_nearest_one_or_an_error(
    case: Situation, with_key: str | type[Exception], without_key: str | type[Exception], has_key: bool
) -> None:
    expected = with_key if has_key else without_key

    try:
        found = feasible(route(case), case, paid_configured=has_key)
        outcome: str | type[Exception] = f"{found.method}: {found.reason}"
    except WorkerError as exc:
        outcome = type(exc)

    assert outcome == expected


def test_where_no_model_is_loaded_no_language_is_missing_in_it() -> None:
    found = route(situation(policy=NO_GPU, model_languages=frozenset()))

    assert found == Route(method="deepgram", reason="gpu_disabled")


@st.composite
def any_situation(draw: st.DrawFn) -> Situation:
    policy = RoutingPolicy(
        method=draw(st.sampled_from(Method)),
        gpu_enabled=draw(st.booleans()),
        rollout_percent=draw(st.sampled_from([0, 50, 100])),
        cost_optimization=draw(st.booleans()),
    )
    forced, language = draw(st.sampled_from(Method)), draw(st.sampled_from(["en", "en-GB", "fr"]))
    return situation(
        job=job(force_method=forced.value, language=language),
        policy=policy,
        gpu_healthy=draw(st.booleans()),
        duration_seconds=draw(st.none() | st.floats(0, 50_000)),
    )


@given(case=any_situation(), has_key=st.booleans())
def test_whatever_the_situation_the_route_is_one_that_the_worker_may_take(case: Situation, has_key: bool) -> None:
    try:
        found = feasible(route(case), case, paid_configured=has_key)
    except (ParakeetDisabled, DeepgramNotConfigured, GpuNotAvailable):
        return

    assert case.policy.gpu_enabled or found.method == "deepgram"
    assert has_key or found.method == "parakeet"
