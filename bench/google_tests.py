"""Google's own tests of its Pub/Sub client for Python, run against the embedded server.

Needs the sources of googleapis/python-pubsub: a checkout, or the sdist of google-cloud-pubsub, which holds the system
tests alone. Neither is part of this repository. The tests' own dependencies come from PyPI by `uv run`.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from worker.embedded.own_thread import in_thread
from worker.embedded.pubsub import EmbeddedPubSub

CLIENT = f"google-cloud-pubsub=={version('google-cloud-pubsub')}"
NOT_AT_HAND = f"""{{}} is neither a checkout of python-pubsub nor an sdist of its package. Get one of them by
  git clone https://github.com/googleapis/python-pubsub
  pip download --no-deps --no-binary google-cloud-pubsub {CLIENT}"""

PACKAGES = (
    CLIENT,
    "avro",
    "backoff",
    "flaky",
    "google-cloud-bigquery",
    "google-cloud-storage",
    "google-cloud-testutils",
    "mock",
    "opentelemetry-sdk",
    "psutil",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
)
CREDENTIALS = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
"""The tests want some; the client sends none to an emulator."""

LIMIT_SECONDS = 400
"""Time limit of one test: `receive_messages_with_exactly_once_delivery_enabled` listens for 200 s in any case."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A file of tests below the sources, and why some of its tests cannot pass here.

    `processes` is 0, the test runner's own, where tests rely on what those before them made.
    """

    file: str
    processes: int
    left_out: Mapping[str, str]


PUSH = "needs push subscriptions: the server would call an address on the internet"
SUITES = (
    Suite(file="tests/system.py", processes=4, left_out={"rest": "the server speaks gRPC, not REST"}),
    Suite(
        file="samples/snippets/subscriber_test.py",
        processes=0,
        left_out={
            "test_create_push_subscription": PUSH,
            "test_update_push_subscription": PUSH,
            "test_create_push_no_wrapper_subscription": PUSH,
            "test_create_subscription_with_smt": "needs message transforms: the server would run JavaScript",
            "test_create_bigquery_subscription": "needs BigQuery",
            "test_create_cloudstorage_subscription": "needs a Cloud Storage that Pub/Sub writes to",
        },
    ),
    Suite(
        file="samples/snippets/publisher_test.py",
        processes=0,
        left_out={
            "ingestion": "needs topics that read from other services",
            "test_update_topic_type": "needs topics that read from other services",
            "test_detach_subscription": "detaching is not served, for nothing here does it",
        },
    ),
    Suite(file="samples/snippets/iam_test.py", processes=0, left_out={}),
    Suite(file="samples/snippets/quickstart/quickstart_test.py", processes=0, left_out={}),
)


def main(
    sources: Annotated[Path, typer.Argument(help="a checkout of python-pubsub, or google_cloud_pubsub-*.tar.gz")],
) -> None:
    """Run each suite that the sources hold. Exit 1 unless every test passes that can, 2 without sources."""
    with unpacked(sources) as folder, tempfile.TemporaryDirectory() as scratch:
        if not (folder / SUITES[0].file).is_file():
            typer.echo(f"NOT RUN: {NOT_AT_HAND.format(sources)}", err=True)
            raise typer.Exit(2)
        credentials = Path(scratch) / "credentials.json"
        credentials.write_text(json.dumps(CREDENTIALS))
        with in_thread(EmbeddedPubSub()) as server:
            environment = {
                **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                "PUBSUB_EMULATOR_HOST": server.target,
                "GOOGLE_CLOUD_PROJECT": "local",
                "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
            }
            failed = [suite.file for suite in SUITES if not _passes(suite, folder, environment)]
    if failed:
        typer.echo(f"FAILED: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


@contextmanager
def unpacked(sources: Path) -> Iterator[Path]:
    """Yield the folder of the sources; an sdist is unpacked for the length of the context."""
    if not (sources.is_file() and tarfile.is_tarfile(sources)):
        yield sources
        return
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(sources) as sdist:
        sdist.extractall(scratch, filter="data")
        yield next(Path(scratch).iterdir())


def _passes(suite: Suite, folder: Path, environment: Mapping[str, str]) -> bool:
    file = folder / suite.file
    typer.echo(f"\n== {suite.file}")
    if not file.is_file():
        typer.echo("SKIPPED: these sources do not hold it (an sdist has no samples)")
        return True
    for name, reason in suite.left_out.items():
        typer.echo(f"left out: {name}: {reason}")
    return subprocess.run(_command(suite, file), cwd=file.parent, env=environment, check=False).returncode == 0


def _command(suite: Suite, file: Path) -> Sequence[str]:
    packages = [part for package in PACKAGES for part in ("--with", package)]
    uv = [
        sys.executable,
        "-m",
        "uv",
        "run",
        "--quiet",
        "--no-project",
        "--isolated",
        "--python",
        sys.executable,
        *packages,
    ]
    chosen = ["-k", " and ".join(f"not {name}" for name in suite.left_out)] if suite.left_out else []
    options = [
        "-q",
        "-rfEs",
        f"--timeout={LIMIT_SECONDS}",
        f"--numprocesses={suite.processes}",
        "-p",
        "no:cacheprovider",
    ]
    return [*uv, "--", "python", "-m", "pytest", file.name, *options, *chosen]


if __name__ == "__main__":
    typer.run(main)
