import json
from pathlib import Path

import pytest

from tests.support.deploy.project import Project
from tests.support.deploy.scripts import DEPLOY, IMAGE, FakeGcloud, dry_run, flag, script

ENVIRONMENTS = ["staging", "production"]
AGENT = "serviceAccount:service-${PROJECT_NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"
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


def test_no_bucket_is_public_and_all_but_state_can_be_undeleted_for_a_week() -> None:
    buckets = creations("storage buckets create")

    for words in buckets.values():
        assert {"--uniform-bucket-level-access", "--public-access-prevention"} <= set(words)
    assert flag(buckets["gs://klipstream-worker-state"], "soft-delete-duration") == "0"
    assert flag(buckets["gs://klipstream-audio"], "soft-delete-duration") == "7d"


def test_checkpoints_go_after_a_week_and_claims_and_results_after_90_days_at_the_earliest() -> None:
    rules = [rule["condition"] for rule in json.loads((DEPLOY / "lifecycle" / "state.json").read_text())["rule"]]

    ages = {prefix: rule["age"] for rule in rules if rule["isLive"] for prefix in rule["matchesPrefix"]}
    updates = creations("storage buckets update")

    assert ages == {"checkpoints/": 7, "claims/": 90, "results/": 90, "budget/": 90}
    assert flag(updates["gs://klipstream-worker-state"], "lifecycle-file") == str(DEPLOY / "lifecycle" / "state.json")


def test_a_deleted_or_overwritten_result_comes_back_for_a_week_and_claims_do_not_pile_up() -> None:
    rules = [rule["condition"] for rule in json.loads((DEPLOY / "lifecycle" / "state.json").read_text())["rule"]]

    days = {
        tuple(rule.get("matchesPrefix", ())): rule["daysSinceNoncurrentTime"] for rule in rules if not rule["isLive"]
    }

    assert days == {("checkpoints/", "claims/"): 1, (): 7}
    assert "--versioning" in creations("storage buckets update")["gs://klipstream-worker-state"]


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
        ("klipstream", "roles/serviceusage.serviceUsageConsumer"),
    }


def test_the_build_account_reads_the_source_it_builds_and_writes_what_it_made() -> None:
    builder = "serviceAccount:transcription-build@klipstream.iam.gserviceaccount.com"

    assert grants(builder) == {
        ("gs://klipstream_cloudbuild", "roles/storage.objectUser"),
        ("klipstream", "roles/logging.logWriter"),
        ("klipstream", "roles/logging.viewer"),
        ("klipstream", "roles/run.developer"),
        ("klipstream", "roles/artifactregistry.writer"),
        ("klipstream", "roles/cloudquotas.viewer"),
        ("klipstream", "roles/ondemandscanning.admin"),
        ("transcription-worker@klipstream.iam.gserviceaccount.com", "roles/iam.serviceAccountUser"),
    }
    assert "gs://klipstream_cloudbuild" in creations("storage buckets create")


def test_people_on_call_may_do_what_the_runbook_asks_of_them() -> None:
    people = "group:on-call@x.org"

    granted = {role for _, role in grants(people, OPERATORS_MEMBER=people)}

    assert {
        "roles/logging.viewer",
        "roles/monitoring.viewer",
        "roles/run.developer",
        "roles/iam.serviceAccountUser",
        "roles/secretmanager.secretVersionManager",
        "roles/cloudquotas.viewer",
        "roles/bigquery.jobUser",
        "roles/bigquery.dataViewer",
    } <= granted


def test_without_the_fallback_no_secret_is_made_or_granted() -> None:
    printed = script("provision.sh", "production", "--dry-run", ENABLE_FALLBACK="false").stdout

    assert "deepgram-api-key" not in printed


def test_what_is_not_known_everywhere_yet_is_tried_again(tmp_path: Path) -> None:
    slow = [1, "ERROR: INVALID_ARGUMENT: the Pub/Sub service account lacks permission on the table", 2]
    project = Project(tmp_path, faults={"subscriptions create transcription-costs": slow})

    said = project.done("provision.sh", "production", "--only", "apis,pubsub,costs")

    assert "# not yet (attempt 2 of 12): INVALID_ARGUMENT" in said
    assert "transcription-costs" in project.state["kept"]["pubsub subscriptions"]


def test_what_never_becomes_known_ends_the_script_with_its_reason(tmp_path: Path) -> None:
    refused = [1, "ERROR: PERMISSION_DENIED: not yours"]
    project = Project(tmp_path, faults={"topics add-iam-policy-binding": refused})

    line = project.refused("provision.sh", "production")

    assert line == "error: PERMISSION_DENIED: not yours"


def test_a_bucket_name_taken_by_another_project_is_named(tmp_path: Path) -> None:
    taken = [1, "ERROR: (gcloud.storage.buckets.create) HTTPError 409: The requested bucket name is not available"]
    project = Project(tmp_path, faults={"storage buckets create gs://klipstream-audio": taken})

    line = project.refused("provision.sh", "production")

    assert "gs://klipstream-audio cannot be made" in line
    assert "deploy/env/production.env" in line


def test_audit_logs_are_switched_on_only_when_they_are_asked_for(tmp_path: Path) -> None:
    project = Project(tmp_path)

    project.done("provision.sh", "production")
    unasked = [call for call in project.calls if "set-iam-policy" in call]
    project.done("provision.sh", "production", "--only", "audit")

    assert unasked == []
    assert [call for call in project.calls if "set-iam-policy" in call] != []


def test_provisioning_twice_makes_nothing_twice(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("provision.sh", "production", BILLING_ACCOUNT="0-0-0")
    first = project.state["kept"]

    project.done("provision.sh", "production", BILLING_ACCOUNT="0-0-0")

    made = {group: sorted(names) for group, names in project.state["kept"].items()}
    assert made == {group: sorted(names) for group, names in first.items()}


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
        ("gs://klipstream-audio", "roles/storage.objectUser"),
        ("gs://klipstream-transcripts", "roles/storage.objectViewer"),
    }


def test_no_member_receives_a_basic_role() -> None:
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

    assert made["staging"] & made["production"] == {
        "transcription",
        "transcription-build",
        "gs://klipstream_cloudbuild",
    }


def test_a_name_from_the_callers_environment_wins() -> None:
    commands = dry_run("provision.sh", "staging", "--only", "pubsub", JOBS_TOPIC="mine")

    assert ["gcloud", "pubsub", "topics", "create", "mine"] in [words[:5] for words in commands]


@pytest.mark.parametrize(
    "name", ["provision.sh", "deploy.sh", "rollback.sh", "destroy.sh", "autoscale.sh", "monitor.sh"]
)
def test_a_dry_run_calls_nothing(name: str, tmp_path: Path) -> None:
    gcloud = FakeGcloud(tmp_path, {})
    options = ["--image", IMAGE] if name == "deploy.sh" else []

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


@pytest.mark.parametrize("confirmed", [(), ("--yes",), ("--yes=",), ("--yes=transcription-worker-staging",)])
def test_destroying_takes_the_name_of_the_pool(confirmed: tuple[str, ...], tmp_path: Path) -> None:
    project = Project(tmp_path)

    line = project.refused("destroy.sh", "production", "--with-data", *confirmed)

    assert "--yes=" in line
    assert project.calls == []


def test_what_was_made_is_gone_after_destroying_it_with_its_data(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for name in ("provision.sh", "monitor.sh", "autoscale.sh"):
        project.done(name, "staging", BILLING_ACCOUNT="0-0-0")
    project.done("deploy.sh", "staging", "--image", IMAGE)

    project.done("destroy.sh", "staging", "--with-data", "--yes=transcription-worker-staging", BILLING_ACCOUNT="0-0-0")

    left = {group: list(names) for group, names in project.state["kept"].items() if names}
    assert left == {
        "artifacts repositories": ["transcription"],
        "iam service-accounts": ["transcription-build@klipstream.iam.gserviceaccount.com"],
        "logging metrics": sorted(path.stem for path in (DEPLOY / "monitoring" / "log-metrics").iterdir()),
        "storage buckets": ["gs://klipstream_cloudbuild"],
        "artifacts docker tags": [f"{IMAGE.split('@')[0]}:staging"],
    }


def test_everything_that_is_made_for_an_environment_is_destroyed_again() -> None:
    made = [words for words in dry_run("provision.sh", "staging") if words[3:4] == ["create"]]
    names = {words[4].removeprefix("gs://").split("@")[0] for words in made}

    destroyed = script("destroy.sh", "staging", "--with-data", "--dry-run").stdout

    shared = {"transcription", "transcription-build", "klipstream_cloudbuild"}
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
    project = Project(tmp_path)
    project.done("monitor.sh", "staging")
    made = {
        one["title"] for group in ("monitoring policies", "monitoring dashboards") for one in standing(project, group)
    }

    project.done("destroy.sh", "staging", "--yes=transcription-worker-staging")

    assert made == titles("staging")
    assert [*standing(project, "monitoring policies"), *standing(project, "monitoring dashboards")] == []


def standing(project: Project, group: str) -> list[dict[str, str]]:
    return list(project.state["kept"].get(group, {}).values())


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


URGENT = "transcription-jobs-urgent"


def test_the_urgent_subscription_is_made_like_the_plain_one_with_its_filter_where_it_has_a_name() -> None:
    subscriptions = creations("pubsub subscriptions create", JOBS_SUBSCRIPTION_URGENT=URGENT)
    plain, urgent = subscriptions["transcription-jobs-worker"], subscriptions[URGENT]

    assert flag(urgent, "message-filter") == 'attributes.priority = "urgent"'
    assert [word for word in urgent if URGENT not in word and "message-filter" not in word] == [
        word for word in plain if word != "transcription-jobs-worker"
    ]
    assert URGENT not in creations("pubsub subscriptions create")
    for member in (WORKER, AGENT):
        granted = grants(member, JOBS_SUBSCRIPTION_URGENT=URGENT)
        assert {role for name, role in granted if name == URGENT} == {
            role for name, role in granted if name == "transcription-jobs-worker"
        }


def test_the_urgent_subscription_is_made_once_and_its_filter_is_never_updated(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for _ in range(2):
        project.done("provision.sh", "production", "--only", "apis,pubsub", JOBS_SUBSCRIPTION_URGENT=URGENT)

    updates = [call for call in project.calls if f"subscriptions update {URGENT}" in call]
    assert len(updates) == 1
    assert "message-filter" not in updates[0]


def test_an_urgent_subscription_with_another_filter_is_refused_with_what_to_do(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("provision.sh", "production", "--only", "apis,pubsub", JOBS_SUBSCRIPTION_URGENT=URGENT)
    kept = project.state["kept"]
    kept["pubsub subscriptions"][URGENT]["message-filter"] = "attributes:priority"
    project.change(kept=kept)

    line = project.refused("provision.sh", "production", "--only", "pubsub", JOBS_SUBSCRIPTION_URGENT=URGENT)

    assert "has the filter 'attributes:priority'" in line
    assert f"gcloud pubsub subscriptions delete {URGENT}" in line
