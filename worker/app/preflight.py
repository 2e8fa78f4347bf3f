"""Checks of Google Cloud before the first pull: each says what it found, or what to do."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

import structlog
import tenacity

from schemas.job import URGENT_FILTER
from worker.app.cloud import Cloud
from worker.app.parts import cloud_parts
from worker.core.delivery.fitness import Part
from worker.errors import (
    ObjectForbidden,
    ObjectNotFound,
    QueueServiceError,
    SubscriptionNotFound,
    Undiagnosed,
    WorkerError,
)
from worker.ports import SubscriptionFacts
from worker.settings import CloudSettings

# A pull that was cut off may have taken messages; they come back after this.
LONGEST_ACK_DEADLINE_SECONDS = 60

PATIENCE_SECONDS = 25.0
"""Time for which a start waits for a service that does not answer. A refusal is final."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one check. `detail` is the fact that was found, or the fault and its remedy."""

    name: str
    ok: bool
    detail: str
    advice: bool = False
    """Not needed to run, but worth an operator's attention."""


class NotReady(Exception):
    """The worker refuses to start; `findings` are the checks that failed."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        super().__init__("not ready to run: " + "; ".join(f"{finding.name}: {finding.detail}" for finding in findings))


def log_finding(finding: Finding) -> None:
    """Log a finding; as a warning where an operator should do something."""
    say = log.info if finding.ok and not finding.advice else log.warning
    say("check.done", check=finding.name, ok=finding.ok, detail=finding.detail)


async def require_all(*checks: AsyncIterator[Finding]) -> None:
    """Log every finding, check after check. Raises `NotReady` with all that failed."""
    failed = []
    for findings in checks:
        async for finding in findings:
            log_finding(finding)
            if not finding.ok:
                failed.append(finding)
    if failed:
        raise NotReady(tuple(failed))


def with_action(error: WorkerError) -> str:
    """Return the error and its remedy as a sentence."""
    return f"{error}: {error.suggested_action}"


def variable_findings(look_alikes: Mapping[str, str]) -> Iterator[Finding]:
    """Yield an advice for each variable that is ignored but resembles the setting that the mapping names."""
    for name, setting in look_alikes.items():
        detail = f"no setting has this name, so it is ignored; did you mean {setting}?"
        yield Finding(name=name, ok=True, advice=True, detail=detail)


async def cloud_findings(cloud: Cloud) -> AsyncIterator[Finding]:
    """Yield whether what the settings name exists and may be used: the probes of `worker.app.parts`."""
    async for finding in _subscriptions(cloud):
        yield finding
    for finding in bucket_findings(cloud.names):
        yield finding
    for part in cloud_parts(cloud):
        yield await _found(part)


def bucket_findings(names: CloudSettings) -> Iterator[Finding]:
    """Yield what is wrong with the buckets' settings, before any bucket is asked."""
    for variable, bucket in (("OUTPUT_BUCKET", names.output_bucket), ("STATE_BUCKET", names.state_bucket)):
        if not bucket:
            yield Finding(name=variable, ok=False, detail=f"{variable} is not set")
    if names.output_bucket and names.output_bucket not in names.writable_buckets:
        detail = f"it leaves out OUTPUT_BUCKET {names.output_bucket}: jobs without an output_uri_prefix are refused"
        yield Finding(name="OUTPUT_BUCKETS", ok=True, advice=True, detail=detail)


async def _subscriptions(cloud: Cloud) -> AsyncIterator[Finding]:
    plain = await _facts(cloud, cloud.names.jobs_subscription)
    for finding in _judged(cloud.names.jobs_subscription, plain):
        yield finding
    if isinstance(plain, SubscriptionFacts):
        own = {"COMPLETION_TOPIC": cloud.names.completion_topic, "DEAD_LETTER_TOPIC": cloud.names.dead_letter_topic}
        for finding in loop_findings(plain, {name: cloud.pubsub.topic(topic).path for name, topic in own.items()}):
            yield finding
    if not (name := cloud.names.jobs_subscription_urgent):
        return
    urgent = await _facts(cloud, name)
    for finding in _judged(name, urgent):
        yield finding
    if isinstance(plain, SubscriptionFacts) and isinstance(urgent, SubscriptionFacts):
        for finding in urgent_findings(plain, urgent):
            yield finding


def loop_findings(plain: SubscriptionFacts, own_topics: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the topics of the worker's own messages (paths by variable) that are the topic of the jobs."""
    for variable, path in own_topics.items():
        if path == plain.topic:
            detail = "it is the topic of the jobs: what the worker publishes there would come back as jobs, without end"
            yield Finding(name=f"{variable} {path}", ok=False, detail=detail)


def urgent_findings(plain: SubscriptionFacts, urgent: SubscriptionFacts) -> Iterator[Finding]:
    """Yield what is wrong with the pair of a plain and an urgent subscription."""
    name, wanted = f"JOBS_SUBSCRIPTION_URGENT {urgent.name}", "".join(URGENT_FILTER.split())
    if "".join(urgent.filter.split()) != wanted:
        has = f"the filter {urgent.filter}" if urgent.filter else "no filter"
        detail = (
            f"it has {has}, not {URGENT_FILTER}; a filter cannot be changed: delete the subscription and create it anew"
        )
        yield Finding(name=name, ok=False, detail=detail)
    if urgent.topic != plain.topic:
        yield Finding(name=name, ok=False, detail=f"its topic is {urgent.topic}, the plain one's is {plain.topic}")
    if plain.filter:
        detail = f"JOBS_SUBSCRIPTION has the filter {plain.filter}: jobs that it leaves out are never done"
        yield Finding(name=f"subscription {plain.name}", ok=True, advice=True, detail=detail)


async def _facts(cloud: Cloud, name: str) -> SubscriptionFacts | WorkerError:
    subscription = cloud.pubsub.subscription(name)
    try:
        facts = await subscription.facts()
        await subscription.verify()
    except (SubscriptionNotFound, QueueServiceError) as exc:
        return exc
    return facts


def _judged(subscription: str, facts: SubscriptionFacts | WorkerError) -> Iterator[Finding]:
    name = f"subscription {subscription}"
    if not isinstance(facts, SubscriptionFacts):
        yield Finding(name=name, ok=False, detail=with_action(facts))
        return
    deadline, exactly_once = facts.ack_deadline_seconds, "on" if facts.exactly_once else "off"
    yield Finding(name=name, ok=True, detail=f"ack deadline {deadline} s, exactly-once {exactly_once}")
    if deadline > LONGEST_ACK_DEADLINE_SECONDS:
        detail = (
            f"the ack deadline of {deadline} s delays redelivery: at most {LONGEST_ACK_DEADLINE_SECONDS} s is better"
        )
        yield Finding(name=name, ok=True, advice=True, detail=detail)
    if facts.dead_letter_topic is None:
        detail = "no dead-letter policy: a message that kills every worker would be delivered without end"
        yield Finding(name=name, ok=True, advice=True, detail=detail)


async def _found(part: Part) -> Finding:
    try:
        await _patiently(part)
    except ObjectNotFound:
        detail = f"there is no bucket {part.resource}: create it, or correct the setting that names it"
        return Finding(name=part.name, ok=False, detail=detail)
    except ObjectForbidden as exc:
        role = "roles/storage.objectViewer" if part.name.startswith("audio") else "roles/storage.objectUser"
        return Finding(name=part.name, ok=False, detail=f"{exc}: grant the worker's account {role}")
    except WorkerError as exc:
        return Finding(name=part.name, ok=False, detail=with_action(exc))
    return Finding(name=part.name, ok=True, detail="ok")


async def _patiently(part: Part) -> None:
    """Probe the part, again where the service did not answer: probes repeat nothing themselves."""
    tries = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_is_silence),
        wait=tenacity.wait_random_exponential(multiplier=0.3, max=4.0),
        stop=tenacity.stop_before_delay(PATIENCE_SECONDS),
        reraise=True,
    )
    await tries(part.probe)


def _is_silence(error: BaseException) -> bool:
    return isinstance(error, Undiagnosed) and not error.refused
