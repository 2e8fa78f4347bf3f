"""The network and its loader on a bare machine: torch, numpy, sentencepiece and PyYAML, and nothing else."""

import subprocess
import sys

HEAVY = ("nemo", "transformers", "structlog", "pydantic", "opentelemetry", "omegaconf", "librosa", "google.cloud")


def test_the_network_and_its_loader_import_nothing_that_a_bare_machine_lacks() -> None:
    program = (
        "import sys\n"
        "import worker.adapters.parakeet.network.transcriber, worker.adapters.parakeet.loading.model_files\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert imported.stdout == "[]\n"
