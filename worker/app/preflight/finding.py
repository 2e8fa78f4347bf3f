"""Result of one check, and the worker's decision on all of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from worker.errors import WorkerError

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


async def require_all(findings: AsyncIterator[Finding]) -> None:
    """Log every finding. Raises `NotReady` with all that failed."""
    failed = []
    async for finding in findings:
        log_finding(finding)
        if not finding.ok:
            failed.append(finding)
    if failed:
        raise NotReady(tuple(failed))


def with_action(error: WorkerError) -> str:
    """Return the error and its remedy as a sentence."""
    return f"{error}: {error.suggested_action}"
