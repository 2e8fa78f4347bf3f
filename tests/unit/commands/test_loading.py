"""Modules that a command loads before its first call: unlike seconds, they do not depend on the machine."""

import subprocess
import sys

import pytest

ENGINES = {"deepgram", "nemo", "numpy", "opentelemetry.sdk", "torch", "worker.app.worker", "worker.app.engines"}


def loaded_by(program: str) -> set[str]:
    ending = "import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"{program}; {ending}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("command", ["check", "dlq", "submit"])
def test_a_command_that_asks_google_loads_no_engine_and_no_exporter_before_its_first_call(command: str) -> None:
    loaded = loaded_by(f"import worker.commands.{command}")

    assert "google.pubsub_v1" in loaded or "worker.client" in loaded
    assert not ENGINES & loaded


def test_help_and_usage_errors_load_nothing_but_the_command_line() -> None:
    loaded = loaded_by(
        "from contextlib import suppress; from worker.cli.main import app\n"
        "with suppress(SystemExit): app(['run', '--nope'])\n"
        "with suppress(SystemExit): app(['--help'])\n"
        "pass"
    )

    assert "worker.cli" in loaded
    assert not {"google", "numpy", "pydantic", "structlog", "worker.settings"} & loaded
