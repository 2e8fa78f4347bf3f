"""One specification: the scripts and Terraform make the resources, settings and grants of deploy/spec.yaml."""

import json
import re
from typing import Any

import pytest
import yaml

from schemas.job import URGENT_FILTER
from tests.support.deploy.scripts import DEPLOY, IMAGE, dry_run, flag, rendered, script

SPEC: dict[str, Any] = yaml.safe_load((DEPLOY / "spec.yaml").read_text())
TERRAFORM = DEPLOY / "terraform"
ACCOUNT = "serviceAccount:{}@klipstream.iam.gserviceaccount.com"
MEMBERS = {
    "worker": ACCOUNT.format("transcription-worker"),
    "scaler": ACCOUNT.format("transcription-scaler"),
    "pubsub": "serviceAccount:service-${PROJECT_NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com",
    "pipeline": "user:pipeline@x.org",
}
KINDS = {
    "pubsub topics": "topic",
    "pubsub subscriptions": "subscription",
    "storage buckets": "bucket",
    "secrets add-iam-policy-binding": "secret",
    "projects add-iam-policy-binding": "project",
    "iam service-accounts": "account",
}
SECONDS = {"d": 24 * 3600, "s": 1}


def printed(environment: str = "production") -> list[list[str]]:
    return dry_run("provision.sh", environment, PIPELINE_MEMBER=MEMBERS["pipeline"])


def made(kind: str) -> dict[str, list[str]]:
    return {words[4]: words for words in printed() if " ".join(words[1:4]) == f"{kind} create"}


def seconds(text: str) -> int:
    return int(text[:-1]) * SECONDS[text[-1]]


def flags(words: list[str]) -> dict[str, str]:
    return dict(([*word.removeprefix("--").split("=", 1), ""])[:2] for word in words if word.startswith("--"))


def test_the_scripts_make_the_topics_of_the_specification() -> None:
    found = {name: flags(words).get("message-retention-duration") for name, words in made("pubsub topics").items()}

    assert {name: seconds(kept) if kept else None for name, kept in found.items()} == {
        name: seconds(topic["retention"]) if topic["retention"] else None for name, topic in SPEC["topics"].items()
    }


def test_the_scripts_make_the_subscriptions_of_the_specification() -> None:
    found = made("pubsub subscriptions")
    costs, every = found.pop(SPEC["costs"]["name"]), SPEC["every_subscription"]

    assert {name: (flag(words, "topic"), flags(words).get("dead-letter-topic")) for name, words in found.items()} == {
        name: (one["topic"], one["forwards_to"]) for name, one in SPEC["subscriptions"].items()
    }
    assert (flag(costs, "topic"), flag(costs, "message-filter")) == (SPEC["costs"]["topic"], SPEC["costs"]["filter"])
    for name, words in {**found, "costs": costs}.items():
        backs_off = name == "costs" or SPEC["subscriptions"][name]["backs_off"]
        delays = (flags(words).get("min-retry-delay"), flags(words).get("max-retry-delay"))
        assert delays == ((every["first_backoff"], every["longest_backoff"]) if backs_off else (None, None))
        assert flag(words, "ack-deadline") == str(every["ack_seconds"])
        assert seconds(flag(words, "message-retention-duration")) == seconds(every["retention"])
    assert flag(found["transcription-jobs-worker"], "max-delivery-attempts") == str(every["attempts"])


def test_the_scripts_make_the_buckets_of_the_specification() -> None:
    found = {name.removeprefix("gs://klipstream-"): words for name, words in made("storage buckets").items()}
    found = {name: words for name, words in found.items() if not name.startswith("gs://")}
    updated = {words[4].removeprefix("gs://klipstream-"): words for words in printed() if words[3:4] == ["update"]}

    assert set(found) == set(SPEC["buckets"])
    for name, bucket in SPEC["buckets"].items():
        days = int(flag(found[name], "soft-delete-duration").removesuffix("d") or 0)
        assert days == bucket["soft_delete_days"]
        assert ("--versioning" in updated[name]) is bucket["versions"]
        lifecycle = flags(updated[name]).get("lifecycle-file")
        assert lifecycle == (str(DEPLOY / "lifecycle" / f"{bucket['lifecycle']}.json") if bucket["lifecycle"] else None)


def test_the_scripts_make_the_accounts_of_the_specification() -> None:
    found = {words[4] for words in printed() if words[1:4] == ["iam", "service-accounts", "create"]}

    assert found == {account["name"] for account in SPEC["accounts"].values()}


@pytest.mark.parametrize("to", MEMBERS)
def test_the_scripts_grant_what_the_specification_says_and_nothing_else(to: str) -> None:
    found = set()
    for words in printed():
        if f"--member={MEMBERS[to]}" in words and words[0] == "gcloud":
            kind = next(kind for group, kind in KINDS.items() if " ".join(words[1:]).startswith(group))
            name = words[words.index("add-iam-policy-binding") + 1].removeprefix("gs://klipstream-")
            of = {"project": "", "account": "worker"}.get(kind, name)
            found.add((kind, of, flag(words, "role")))

    wanted = {
        (grant["kind"], grant["of"], f"roles/{role}")
        for grant in SPEC["grants"]
        if grant["to"] == to
        for role in grant["roles"]
    }
    assert found == wanted


def variables(environment: str, **given: str) -> dict[str, str]:
    done = script("terraform/vars.sh", environment, **given)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["settings"]


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_terraforms_pool_has_every_setting_that_the_scripts_pool_has(environment: str) -> None:
    settings = variables(environment) | {"IMAGE": IMAGE, "INSTANCES": "1"}
    text = (DEPLOY / "worker-pool.yaml").read_text()

    filled = re.sub(r"\$\{([A-Z_]+)\}", lambda match: settings[match[1]], text)

    assert yaml.safe_load(filled) == yaml.safe_load(rendered(environment))


def test_terraforms_variables_take_what_the_shell_overrides() -> None:
    assert variables("staging", MAX_PARKED="9")["MAX_PARKED"] == "9"


def test_the_pools_file_can_be_read_as_a_template_by_terraform_too() -> None:
    found = re.findall(r"\$\{[^}]*\}|%\{", (DEPLOY / "worker-pool.yaml").read_text())

    assert [name for name in found if not re.fullmatch(r"\$\{[A-Z_]+\}", name)] == []


def test_terraform_is_made_from_the_specification_and_names_nothing_itself() -> None:
    text = (TERRAFORM / "main.tf").read_text()

    for part in ("spec.yaml", "worker-pool.yaml", "lifecycle/", "bigquery/costs.json"):
        assert f"../{part}" in text
    assert "transcription-" not in text.replace("klipstream-transcription", "")
    used = set(re.findall(r"local\.spec\.(\w+)", text))
    assert used == set(SPEC) - {"repository"} - ({"every_subscription"} - used)


def test_terraform_parses_and_has_every_kind_of_resource() -> None:
    hcl2 = pytest.importorskip("hcl2", reason="not installed yet: make install")

    with (TERRAFORM / "main.tf").open() as file:
        parsed = hcl2.load(file)

    kinds = {kind.strip('"') for resource in parsed["resource"] for kind in resource if not kind.startswith("__")}
    assert {
        "google_service_account",
        "google_pubsub_topic",
        "google_pubsub_subscription",
        "google_storage_bucket",
        "google_secret_manager_secret",
        "google_bigquery_table",
        "google_cloud_run_v2_worker_pool",
    } <= kinds
    granted = {kind for kind in kinds if kind.endswith("_iam_member")}
    by_kind = {"topic": "pubsub_topic", "subscription": "pubsub_subscription", "bucket": "storage_bucket"}
    by_kind |= {"secret": "secret_manager_secret", "project": "project", "account": "service_account"}
    assert {f"google_{by_kind[grant['kind']]}_iam_member" for grant in SPEC["grants"]} <= granted


def test_the_scripts_make_the_urgent_subscription_of_the_specification() -> None:
    urgent, like = SPEC["urgent"], SPEC["subscriptions"][SPEC["urgent"]["like"]]
    printed = dry_run("provision.sh", "production", JOBS_SUBSCRIPTION_URGENT="urgent")

    (words,) = [one for one in printed if one[1:5] == ["pubsub", "subscriptions", "create", "urgent"]]

    assert (flag(words, "topic"), flag(words, "dead-letter-topic")) == (like["topic"], like["forwards_to"])
    assert flag(words, "message-filter") == urgent["filter"] == URGENT_FILTER
