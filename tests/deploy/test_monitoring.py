import ast
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
import structlog

from tests.support.deploy.monitoring import MONITORING, alerts, judged, loaded, panels, policies, queries
from tests.support.deploy.project import Project
from tests.support.deploy.scripts import ROOT, dry_run, rendered
from worker.telemetry import configure_logging
from worker.telemetry.register import REGISTER, Histogram, Metric

NAMED = {metric.name: metric for metric in REGISTER}
SERIES = {
    f"{metric.name}{suffix}": metric
    for metric in REGISTER
    for suffix in (("_bucket", "_sum", "_count") if isinstance(metric, Histogram) else ("",))
}
# Of Google's own metrics: https://cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-pubsub
GOOGLES = {
    "pubsub_googleapis_com:subscription_num_undelivered_messages",
    "pubsub_googleapis_com:subscription_oldest_unacked_message_age",
}
SELECTOR = re.compile(r"\b((?:klipstream_|\w+_googleapis_com:)\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)!?="([^"]*)"')
LABELS_OF_THE_RESOURCE = {"namespace", "instance", "le", "monitored_resource", "subscription_id", "worker_pool_name"}
LABELS_OF_THE_RESOURCE |= {"service_name", "job_id"}

PANELS_ASKED_FOR = {
    "speed": "klipstream_job_audio_seconds_total",
    "GPU utilisation": "klipstream_gpu_utilisation_ratio",
    "GPU memory": "klipstream_gpu_memory_used_bytes",
    "cost": "klipstream_cost_usd_total",
    "success": "klipstream_jobs_total",
    "fallback by reason": "sum by (reason) (increase(klipstream_fallbacks_total",
    "backlog": "subscription_num_undelivered_messages",
    "oldest job": "subscription_oldest_unacked_message_age",
    "dead letters": "klipstream_dead_letters_total",
    "queue wait": "klipstream_queue_seconds_bucket",
    "stage times": "klipstream_stage_seconds_bucket",
}

JOBS = 'namespace="production",outcome'
WAITING = (
    'pubsub_googleapis_com:subscription_num_undelivered_messages{monitored_resource="pubsub_subscription",'
    'subscription_id="%s"}'
)
OLDEST = WAITING.replace("num_undelivered_messages", "oldest_unacked_message_age") % "jobs"
HERE = '{namespace="production",instance="w-1"%s}'
LOGGED = "logging_googleapis_com:user_klipstream_"
POOL = '{monitored_resource="cloud_run_worker_pool",worker_pool_name="pool"}'
SCALER = '{monitored_resource="cloud_run_revision",service_name="scaler"}'
SCHEDULER = '{monitored_resource="cloud_scheduler_job",job_id="scaler"}'
# For each alert: what must let it fire, and what must not. A value a minute, for 120 minutes.
MADE: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "success-rate": (
        {
            f'klipstream_jobs_total{{{JOBS}="completed"}}': "0+9x120",
            f'klipstream_jobs_total{{{JOBS}="failed"}}': "0+1x120",
        },
        {
            f'klipstream_jobs_total{{{JOBS}="completed"}}': "0+300x120",
            f'klipstream_jobs_total{{{JOBS}="failed"}}': "0+1x120",
        },
    ),
    "fallback-rate": (
        {
            "klipstream_fallbacks_total" + HERE % ',reason="GPU_MEMORY_ERROR"': "0+1x120",
            "klipstream_chunks_total" + HERE % ',engine="parakeet",outcome="heard"': "0+9x120",
        },
        {
            "klipstream_fallbacks_total" + HERE % ',reason="GPU_MEMORY_ERROR"': "0+1x120",
            "klipstream_chunks_total" + HERE % ',engine="parakeet",outcome="heard"': "0+30x120",
        },
    ),
    "cost": (
        {"klipstream_cost_usd_total" + HERE % ',engine="idle"': "0+1x120"},
        {"klipstream_cost_usd_total" + HERE % ',engine="idle"': "0+0.01x120"},
    ),
    "fallback-budget": (
        {"klipstream_budget_spent" + HERE % "": "1x120"},
        {"klipstream_budget_spent" + HERE % "": "0x120"},
    ),
    "deepgram-down": (
        {"klipstream_deepgram_down" + HERE % "": "1x120"},
        {"klipstream_deepgram_down" + HERE % "": "0x60 1x3 0x60"},
    ),
    "gpu-memory": (
        {"klipstream_gpu_memory_used_bytes" + HERE % ',gpu="0"': f"{21 * 1024**3}x120"},
        {"klipstream_gpu_memory_used_bytes" + HERE % ',gpu="0"': f"{20 * 1024**3}x120"},
    ),
    "speed": (
        {
            "klipstream_job_audio_seconds_total" + HERE % "": "0+390x120",
            "klipstream_job_seconds_sum" + HERE % "": "0+10x120",
        },
        {
            "klipstream_job_audio_seconds_total" + HERE % "": "0+410x120",
            "klipstream_job_seconds_sum" + HERE % "": "0+10x120",
        },
    ),
    "oldest-message": ({OLDEST: "0+60x120"}, {OLDEST: "1800x120"}),
    "dead-letters": ({WAITING % "dead": "1x120"}, {WAITING % "dead": "0x120", WAITING % "jobs": "9x120"}),
    "no-worker": (
        {WAITING % "jobs": "3x120", "klipstream_ready" + HERE % "": "0x120"},
        {WAITING % "jobs": "3x120", "klipstream_ready" + HERE % "": "1x120"},
    ),
    "fuse-open": (
        {"klipstream_fuse_state" + HERE % ',state="open"': "1x120"},
        {
            "klipstream_fuse_state" + HERE % ',state="open"': "0x120",
            "klipstream_fuse_state" + HERE % ',state="testing"': "1x120",
        },
    ),
    "worker-died": (
        {f"{LOGGED}worker_deaths{POOL}": "0x115 1x5"},
        {f"{LOGGED}worker_deaths{POOL}": "4x120"},
    ),
    "slo-success-fast": (
        {
            f'klipstream_jobs_total{{{JOBS}="completed"}}': "0+4x120",
            f'klipstream_jobs_total{{{JOBS}="failed"}}': "0+1x120",
        },
        {
            f'klipstream_jobs_total{{{JOBS}="completed"}}': "0+9x120",
            f'klipstream_jobs_total{{{JOBS}="failed"}}': "0+1x120",
        },
    ),
    "slo-success-slow": (
        {
            f'klipstream_jobs_total{{{JOBS}="completed"}}': "0+9x120",
            f'klipstream_jobs_total{{{JOBS}="failed"}}': "0+1x120",
        },
        # An hour ago it was bad; it is over.
        {
            f'klipstream_jobs_total{{{JOBS}="completed"}}': "0+9x120",
            f'klipstream_jobs_total{{{JOBS}="failed"}}': "0+2x60 120x59",
        },
    ),
    "slo-fallback-fast": (
        {
            "klipstream_fallbacks_total" + HERE % ',reason="GPU_MEMORY_ERROR"': "0+9x120",
            "klipstream_chunks_total" + HERE % ',engine="deepgram",outcome="heard"': "0+10x120",
        },
        {
            "klipstream_fallbacks_total" + HERE % ',reason="GPU_MEMORY_ERROR"': "0+7x120",
            "klipstream_chunks_total" + HERE % ',engine="deepgram",outcome="heard"': "0+10x120",
        },
    ),
    "slo-fallback-slow": (
        {
            "klipstream_fallbacks_total" + HERE % ',reason="GPU_MEMORY_ERROR"': "0+4x120",
            "klipstream_chunks_total" + HERE % ',engine="deepgram",outcome="heard"': "0+10x120",
        },
        {
            "klipstream_fallbacks_total" + HERE % ',reason="GPU_MEMORY_ERROR"': "0+4x60 240x59",
            "klipstream_chunks_total" + HERE % ',engine="deepgram",outcome="heard"': "0+10x120",
        },
    ),
    "slo-queue-wait": (
        {
            "klipstream_queue_seconds_bucket" + HERE % ',le="720"': "0+9x120",
            "klipstream_queue_seconds_bucket" + HERE % ',le="1800"': "0+10x120",
            "klipstream_queue_seconds_bucket" + HERE % ',le="+Inf"': "0+10x120",
        },
        {
            "klipstream_queue_seconds_bucket" + HERE % ',le="720"': "0+99x120",
            "klipstream_queue_seconds_bucket" + HERE % ',le="1800"': "0+100x120",
            "klipstream_queue_seconds_bucket" + HERE % ',le="+Inf"': "0+100x120",
        },
    ),
    "crash-loop": (
        {f"{LOGGED}worker_starts{POOL}": "0+0.3x120"},
        {f"{LOGGED}worker_starts{POOL}": "0+0.3x120", f"{LOGGED}worker_readies{POOL}": "0+0.3x120"},
    ),
    "platform-errors": ({f"{LOGGED}platform_errors{POOL}": "0+1x120"}, {f"{LOGGED}platform_errors{POOL}": "0+0.1x120"}),
    "metrics-stopped": (
        {f"{LOGGED}jobs_ended{POOL}": "0+1x120", f'klipstream_jobs_total{{{JOBS}="completed"}}': "7x120"},
        {f"{LOGGED}jobs_ended{POOL}": "0+1x120", f'klipstream_jobs_total{{{JOBS}="completed"}}': "0+1x120"},
    ),
    "letters-wait": (
        {f"{LOGGED}letters_not_adopted{POOL}": "0+0.2x120"},
        {f"{LOGGED}letters_not_adopted{POOL}": "0x60 1x59"},
    ),
    "quarantine": (
        {f"{LOGGED}windows_quarantined{POOL}": "0x100 1x19"},
        {f"{LOGGED}windows_quarantined{POOL}": "3x120"},
    ),
    "autoscaler": (
        {f"{LOGGED}scaler_failures{SCALER}": "0+1x120"},
        {f"{LOGGED}scaler_failures{SCALER}": "0x110 1x9"},
    ),
    "scheduler": (
        {f"{LOGGED}scheduler_failures{SCHEDULER}": "0+1x120"},
        {f"{LOGGED}scheduler_failures{SCHEDULER}": "0x110 1x9"},
    ),
}


def selectors() -> list[tuple[str, dict[str, str]]]:
    """Every series that a query names, and what its labels must be."""
    return [
        (name, dict(MATCHER.findall(matchers))) for query in queries() for name, matchers in SELECTOR.findall(query)
    ]


def log_metrics() -> dict[str, str]:
    return {path.stem: loaded(path)["filter"] for path in (MONITORING / "log-metrics").glob("*.yaml")}


@contextmanager
def logging_json() -> Iterator[None]:
    """Log JSON lines as a worker does, for the length of the block."""
    before = structlog.get_config()
    configure_logging("json")
    try:
        yield
    finally:
        structlog.configure(**before)


def logged_events() -> set[str]:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "worker").rglob("*.py")]
    return {
        call.args[0].value
        for tree in trees
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant)
        if isinstance(call.args[0].value, str)
    }


def test_every_metric_of_a_panel_or_alert_is_emitted() -> None:
    known = SERIES.keys() | GOOGLES | {f"logging_googleapis_com:user_{name}" for name in log_metrics()}

    assert {name for name, _ in selectors()} - known == set()


def test_labels_are_matched_by_values_that_the_register_declares() -> None:
    for name, matchers in selectors():
        metric: Metric | None = SERIES.get(name)
        for label, value in matchers.items():
            if label not in LABELS_OF_THE_RESOURCE:
                assert metric is not None, (name, label)
                assert value in metric.labels[label], (name, label, value)


def test_staging_and_production_are_never_added_up() -> None:
    for name, matchers in selectors():
        if name in SERIES:
            assert matchers["namespace"] == "production", name


def test_the_worker_pool_sets_the_labels_that_queries_filter_environments_by() -> None:
    assert '"service.namespace=staging,' in rendered("staging")


def test_every_metric_of_the_register_can_be_seen() -> None:
    shown = {SERIES[name].name for name, _ in selectors() if name in SERIES}

    unseen = NAMED.keys() - shown

    assert unseen == {
        "klipstream_deliveries_total",
        "klipstream_engine_memory_bytes",
        "klipstream_engine_state",
        "klipstream_gpu_memory_total_bytes",
    }


@pytest.mark.parametrize("subject", PANELS_ASKED_FOR)
def test_the_dashboard_has_what_was_asked_for(subject: str) -> None:
    assert any(PANELS_ASKED_FOR[subject] in query for of_one in panels().values() for query in of_one)


def test_log_based_metrics_count_events_that_the_worker_logs() -> None:
    counted = {name: re.findall(r'"(\w+\.\w+)"', filter_text) for name, filter_text in log_metrics().items()}

    assert {event for events in counted.values() for event in events} - logged_events() == set()
    assert {name for name, events in counted.items() if not events} == {
        "klipstream_platform_errors",
        "klipstream_scaler_failures",
        "klipstream_scheduler_failures",
    }


@pytest.mark.parametrize("event", ["consumer.died", "job.done", "no.sentence"])
def test_filters_on_events_name_the_field_that_keeps_the_name_in_a_log_line(
    event: str, capsys: pytest.CaptureFixture[str]
) -> None:
    links = [unquote(policy["documentation"]["links"][1]["url"]) for policy in policies().values()]
    asked = re.findall(r'jsonPayload\.(\w+)=\(?"\w+\.\w+"', " ".join([*log_metrics().values(), *links]))

    with logging_json():
        structlog.get_logger().error(event, where="intake")

    (field,) = set(asked)
    assert json.loads(capsys.readouterr().err)[field] == event


def test_every_log_based_metric_has_an_alert_and_names_the_resource_that_it_is_of() -> None:
    named = {name: matchers for name, matchers in selectors() if name.startswith("logging_googleapis_com:")}

    assert {name.split(":user_")[1] for name in named} == set(log_metrics())
    for name, matchers in named.items():
        assert "monitored_resource" in matchers, name


def anchors() -> set[str]:
    """The headings of the runbook, as its pages link to them."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / "operate" / "runbook.md").read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", sorted(policies()))
def test_an_alert_leads_to_the_runbook_the_log_and_the_dashboards(name: str) -> None:
    documentation = policies()[name]["documentation"]
    links = {link["displayName"]: link["url"] for link in documentation["links"]}

    assert list(links) == ["Runbook", "Log", "Dashboards"]
    assert links["Runbook"].split("#")[1] in anchors()
    assert "project=klipstream" in links["Log"]
    assert "/health" not in documentation["content"]


def test_the_log_query_of_an_alert_is_of_this_pool_and_names_events_that_the_worker_logs() -> None:
    queries_of_links = [unquote(policy["documentation"]["links"][1]["url"]) for policy in policies().values()]

    events = {event for query in queries_of_links for event in re.findall(r'"(\w+\.\w+)"', query)}
    assert events - logged_events() == set()
    assert sum('worker_pool_name="pool"' in query for query in queries_of_links) == len(queries_of_links) - 2


@pytest.mark.parametrize(
    ("given", "channels"),
    [
        ({"NOTIFICATION_CHANNELS": "projects/p/notificationChannels/1"}, "projects/p/notificationChannels/1"),
        ({"ALERT_EMAIL": "on-call@x.org"}, "monitoring/channels/1"),
    ],
)
def test_alerts_notify_the_named_channels_or_one_made_for_the_address(
    given: dict[str, str], channels: str, tmp_path: Path
) -> None:
    project = Project(tmp_path)

    project.done("monitor.sh", "staging", **given)
    project.done("monitor.sh", "staging", **given)

    told = {
        word
        for call in project.calls
        if "monitoring policies" in call
        for word in call.split()
        if "notification" in word
    }
    assert {flag.split("=", 1)[1] for flag in told} == {channels}
    assert len(project.state["kept"].get("monitoring channels", {})) == ("ALERT_EMAIL" in given)


def test_alerts_without_a_channel_cause_a_warning(tmp_path: Path) -> None:
    ended = Project(tmp_path).run("monitor.sh", "staging")

    assert ended.returncode == 0
    assert "WARNING: neither NOTIFICATION_CHANNELS nor ALERT_EMAIL is set" in ended.stderr


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]

    done = judged(tmp_path, "check", "rules", "rules.yaml", rules={"groups": [{"name": "all", "rules": rules}]})

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_series_to_try_it_on() -> None:
    assert MADE.keys() == alerts().keys()


@pytest.mark.parametrize("name", sorted(MADE))
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "stays-silent"])
def test_an_alert_fires_when_it_should_and_only_then(name: str, fires: bool, tmp_path: Path) -> None:
    condition = alerts()[name]
    rule = {"alert": name, "expr": condition["query"], "for": condition["duration"]}
    made = MADE[name][0 if fires else 1]
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in made.items()],
                # Only whether there is a sample counts here: an alert that is firing has one of value 1.
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                        "eval_time": "118m",
                        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                    }
                ],
            }
        ],
    }

    done = judged(
        tmp_path, "test", "rules", "test.yaml", rules={"groups": [{"name": "all", "rules": [rule]}]}, test=test
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_monitoring_is_applied_file_by_file(tmp_path: Path) -> None:
    commands = dry_run("monitor.sh", "staging", TMPDIR=str(tmp_path))

    created = [word for words in commands for word in words if word.startswith(("--policy-from-file", "--config-from"))]
    assert len(created) == len(alerts()) + len(log_metrics()) + 1
    policy = (tmp_path / f"klipstream-staging-{os.getuid()}" / "no-worker.yaml").read_text()
    assert 'subscription_id="transcription-jobs-worker-staging"' in policy
    assert 'namespace="staging"' in policy


@pytest.mark.parametrize(
    ("origin", "page"),
    [
        ("https://github.com/acme/worker.git", "https://github.com/acme/worker"),
        ("https://ci:token@gitlab.example.com/group/team/worker", "https://gitlab.example.com/group/team/worker"),
        ("git@github.com:acme/worker.git", "https://github.com/acme/worker"),
        ("ssh://git@git.example.org:2222/acme/worker.git", "https://git.example.org/acme/worker"),
        ("/srv/git/worker.git", None),
        ("../worker", None),
        ("file:///srv/git/worker", None),
        ("", None),
    ],
)
def test_the_runbook_is_read_where_the_repository_was_cloned_from(origin: str, page: str | None) -> None:
    command = ["bash", "-c", 'source deploy/lib.sh && runbook_of "$1"', "-", origin]

    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert answer == (f"{page}/blob/HEAD/docs/operate/runbook.md\n" if page else "")
