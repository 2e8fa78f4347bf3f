import json
from pathlib import Path

import pytest

from tests.support.deploying import DEPLOY, FakeGcloud, dry_run, flag, script

ENVIRONMENTS = ["staging", "production"]
AGENT = "serviceAccount:service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com"
WORKER = "serviceAccount:transcription-worker@klipstream.iam.gserviceaccount.com"


def creations(kind: str, **environment: str) -> dict[str, list[str]]:
    made = [words for words in dry_run("provision.sh", "production", **environment) if words[1:4] == [*kind.split()]]
    return {words[4]: words for words in made}


def grants(member: str, **environment: str) -> set[tuple[str, str]]:
    """(resource, role) of everything that is granted to the member."""
    bound = [words for words in dry_run("provision.sh", "production", **environment) if f"--member={member}" in words]
    return {(resource(words), flag(words, "role")) for words in bound}


def resource(words: list[str]) -> str:
    return words[-1] if words[0] == "bq" else words[words.index("add-iam-policy-binding") + 1]


def test_every_subscription_has_the_deadline_the_backoff_and_no_expiry() -> None:
    subscriptions = creations("pubsub subscriptions create")

    assert set(subscriptions) == {
        "transcription-jobs-worker",
        "transcription-dead-letters",
        "transcription-completions-pipeline",
        "transcription-costs",
    }
    for words in subscriptions.values():
        assert flag(words, "ack-deadline") == "60"
        assert flag(words, "expiration-period") == "never"
    del subscriptions["transcription-dead-letters"]
    for words in subscriptions.values():
        assert flag(words, "min-retry-delay") == "10s"
        assert flag(words, "max-retry-delay") == "600s"


def test_dead_letters_that_were_looked_at_come_back_without_a_backoff() -> None:
    words = creations("pubsub subscriptions create")["transcription-dead-letters"]

    assert not [word for word in words if "retry" in word]


def test_every_topic_has_a_subscription_for_one_without_loses_messages() -> None:
    subscriptions = creations("pubsub subscriptions create")

    assert set(creations("pubsub topics create")) == {flag(words, "topic") for words in subscriptions.values()}


def test_the_jobs_subscription_alone_forwards_dead_letters_after_100_attempts() -> None:
    subscriptions = creations("pubsub subscriptions create")

    words = subscriptions.pop("transcription-jobs-worker")

    assert flag(words, "dead-letter-topic") == "transcription-dead-letters"
    assert flag(words, "max-delivery-attempts") == "100"
    assert not [other for other in subscriptions.values() if any("dead-letter-topic" in word for word in other)]


def test_only_cost_events_reach_the_table() -> None:
    words = creations("pubsub subscriptions create")["transcription-costs"]

    assert flag(words, "message-filter") == 'attributes.event_type = "transcription.cost"'
    assert flag(words, "bigquery-table") == "klipstream:transcription.costs"
    assert {"--use-table-schema", "--drop-unknown-fields"} <= set(words)


def test_no_bucket_is_public_and_state_is_not_kept_twice() -> None:
    buckets = creations("storage buckets create")

    for words in buckets.values():
        assert {"--uniform-bucket-level-access", "--public-access-prevention"} <= set(words)
    assert flag(buckets["gs://klipstream-worker-state"], "soft-delete-duration") == "0"


def test_checkpoints_go_after_a_week_and_claims_and_results_after_90_days_at_the_earliest() -> None:
    rules = json.loads((DEPLOY / "lifecycle" / "state.json").read_text())["rule"]

    ages = {prefix: rule["condition"]["age"] for rule in rules for prefix in rule["condition"]["matchesPrefix"]}
    updates = creations("storage buckets update")

    assert ages == {"checkpoints/": 7, "claims/": 90, "results/": 90, "budget/": 90}
    assert all(rule["action"] == {"type": "Delete"} for rule in rules)
    assert flag(updates["gs://klipstream-worker-state"], "lifecycle-file") == str(DEPLOY / "lifecycle" / "state.json")


def test_the_worker_may_do_what_it_needs_and_nothing_else() -> None:
    assert grants(WORKER) == {
        ("transcription-jobs-worker", "roles/pubsub.subscriber"),
        ("transcription-jobs-worker", "roles/pubsub.viewer"),
        ("transcription-completions", "roles/pubsub.publisher"),
        ("transcription-completions", "roles/pubsub.viewer"),
        ("transcription-dead-letters", "roles/pubsub.publisher"),
        ("transcription-dead-letters", "roles/pubsub.viewer"),
        ("transcription-dead-letters", "roles/pubsub.subscriber"),
        ("gs://klipstream-audio", "roles/storage.objectViewer"),
        ("gs://klipstream-transcripts", "roles/storage.objectUser"),
        ("gs://klipstream-worker-state", "roles/storage.objectUser"),
        ("deepgram-api-key", "roles/secretmanager.secretAccessor"),
        ("klipstream", "roles/telemetry.writer"),
        ("klipstream", "roles/monitoring.viewer"),
    }


def test_pubsub_itself_may_forward_dead_letters_and_fill_the_table() -> None:
    assert grants(AGENT) == {
        ("transcription-dead-letters", "roles/pubsub.publisher"),
        ("transcription-jobs-worker", "roles/pubsub.subscriber"),
        ("klipstream:transcription.costs", "roles/bigquery.dataEditor"),
        ("klipstream:transcription.costs", "roles/bigquery.metadataViewer"),
    }


def test_the_pipeline_is_granted_its_side_where_it_is_named() -> None:
    pipeline = "serviceAccount:pipeline@klipstream.iam.gserviceaccount.com"

    assert grants(pipeline, PIPELINE_MEMBER=pipeline) == {
        ("transcription-jobs", "roles/pubsub.publisher"),
        ("transcription-completions-pipeline", "roles/pubsub.subscriber"),
        ("gs://klipstream-audio", "roles/storage.objectCreator"),
        ("gs://klipstream-transcripts", "roles/storage.objectViewer"),
    }


def test_nobody_is_granted_a_basic_role() -> None:
    printed = script("provision.sh", "production", "--dry-run").stdout

    assert "roles/owner" not in printed
    assert "roles/editor" not in printed


def test_a_budget_is_made_where_there_is_an_account_to_bill() -> None:
    (budget,) = creations("billing budgets create", BILLING_ACCOUNT="0-0-0").values()

    assert "--budget-amount=1500USD" in budget
    assert creations("billing budgets create") == {}


def test_environments_share_no_name_but_registry_and_build_account() -> None:
    made = {
        environment: {words[4] for words in dry_run("provision.sh", environment) if words[3:4] == ["create"]}
        for environment in ENVIRONMENTS
    }

    assert made["staging"] & made["production"] == {"transcription", "transcription-build"}


def test_a_name_from_the_callers_environment_wins() -> None:
    commands = dry_run("provision.sh", "staging", "--only", "pubsub", JOBS_TOPIC="mine")

    assert ["gcloud", "pubsub", "topics", "create", "mine"] in [words[:5] for words in commands]


@pytest.mark.parametrize(
    "name", ["provision.sh", "deploy.sh", "rollback.sh", "destroy.sh", "autoscale.sh", "monitor.sh"]
)
def test_a_dry_run_calls_nothing(name: str, tmp_path: Path) -> None:
    gcloud = FakeGcloud(tmp_path, {})
    options = ["--image", "an@sha256:1"] if name == "deploy.sh" else []

    done = script(name, "production", "--dry-run", *options, PATH=gcloud.path)

    assert done.returncode == 0, done.stderr
    assert gcloud.calls == []


@pytest.mark.parametrize(
    "name", ["provision.sh", "deploy.sh", "rollback.sh", "destroy.sh", "autoscale.sh", "monitor.sh"]
)
def test_without_an_environment_a_script_says_how_it_is_used(name: str) -> None:
    done = script(name)

    assert done.returncode == 2
    assert f"deploy/{name} ENVIRONMENT" in done.stdout


def test_an_environment_that_is_not_there_is_named() -> None:
    done = script("provision.sh", "prod", "--dry-run")

    assert done.returncode == 1
    assert "there is no environment prod" in done.stderr


def test_destroying_takes_a_yes() -> None:
    done = script("destroy.sh", "production")

    assert done.returncode == 2


def test_everything_that_is_made_for_an_environment_is_destroyed_again() -> None:
    made = [words for words in dry_run("provision.sh", "staging") if words[3:4] == ["create"]]
    names = {words[4].removeprefix("gs://").split("@")[0] for words in made}

    destroyed = script("destroy.sh", "staging", "--with-data", "--dry-run").stdout

    shared = {"transcription", "transcription-build"}
    assert [name for name in names - shared if name not in destroyed] == []
    assert "klipstream:transcription_staging" in destroyed


def test_the_autoscaler_and_its_configuration_are_destroyed_again() -> None:
    made = {" ".join(words[1:4]) for words in dry_run("autoscale.sh", "staging") if "create" in words}

    destroyed = {" ".join(words[1:4]) for words in dry_run("destroy.sh", "staging")}

    assert made == {
        "parametermanager parameters create",
        "parametermanager parameters versions",
        "scheduler jobs create",
    }
    assert {what.replace("create", "delete") for what in made} <= destroyed
    assert "run services delete" in destroyed


def test_every_alert_and_the_dashboard_are_found_by_their_titles_and_destroyed(tmp_path: Path) -> None:
    policies, dashboards = "gcloud alpha monitoring policies", "gcloud monitoring dashboards"
    standing = {f'{policies} list --filter=displayName="A day costs more than planned (staging)"': "policy-1\n"}
    gcloud = FakeGcloud(
        tmp_path,
        {
            f"{policies} list": "",
            **standing,
            f'{dashboards} list --filter=displayName="Transcription (staging)"': "board-1\n",
            f"{policies} delete": "",
            f"{dashboards} delete": "",
        },
    )

    done = script("destroy.sh", "staging", "--yes", PATH=gcloud.path)

    asked = {call.split("displayName=")[1].split(" --format")[0].strip('"') for call in gcloud.calls if "list" in call}
    assert done.returncode == 0, done.stderr
    assert asked == titles("staging")
    assert [call for call in gcloud.calls if "delete" in call] == [
        f"{policies} delete policy-1 --quiet",
        f"{dashboards} delete board-1 --quiet",
    ]


def titles(environment: str) -> set[str]:
    """The display names of what monitor.sh makes besides the log-based metrics, which environments share."""
    files = [*(DEPLOY / "monitoring" / "alerts").glob("*.yaml"), DEPLOY / "monitoring" / "dashboard.yaml"]
    return {
        line.split('"')[1].replace("${ENVIRONMENT}", environment)
        for file in files
        for line in file.read_text().splitlines()
        if line.startswith("displayName:")
    }


def test_the_budget_goes_where_the_billing_account_is_named() -> None:
    destroyed = [words[1:4] for words in dry_run("destroy.sh", "staging", BILLING_ACCOUNT="0-0-0")]

    assert ["billing", "budgets", "delete"] in destroyed


def test_without_a_word_on_data_the_data_stays() -> None:
    destroyed = script("destroy.sh", "staging", "--dry-run").stdout

    for kept in ("gs://", "dead-letters", "deepgram-api-key", "bq "):
        assert kept not in destroyed
