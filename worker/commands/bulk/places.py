"""Names of journals, and of the topics that their jobs went to."""

import re
from pathlib import Path

from worker.settings import CloudSettings

MOST_NAME = 60
SUFFIX = ".journal"


def journal_of(source: str) -> Path:
    """Return the default path of a source's journal."""
    if not source.startswith("gs://"):
        return Path(source) if source.endswith(SUFFIX) else Path(source + SUFFIX)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.removeprefix("gs://")).strip("-.")[:MOST_NAME]
    return Path(name + SUFFIX)


def place_of(cloud: CloudSettings) -> str:
    """Return the name of the topic that jobs are published to, and of its server."""
    return f"{cloud.pubsub_emulator_host or 'google'}/{cloud.project_id}/{cloud.jobs_topic}"
