"""Nothing secret reaches the inference process, and all that its libraries read does."""

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.parakeet.child import passed_on

SECRETS = [
    "DEEPGRAM_API_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "HUGGINGFACE_HUB_TOKEN",
    "HF_HUB_AUTH",
    "NVIDIA_API_KEY",
    "TORCH_PASSWORD",
    "PGPASSWORD",
    "DATABASE_URL",
    "SENTRY_DSN",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "SSH_AUTH_SOCK",
    "JOBS_SUBSCRIPTION",
]
NEEDED = [
    "PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "HF_HOME",
    "TORCH_HOME",
    "PYTORCH_CUDA_ALLOC_CONF",
    "NUMBA_CACHE_DIR",
    "MPLCONFIGDIR",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "LC_ALL",
    "TMPDIR",
    "PYTHONDONTWRITEBYTECODE",
    "SSL_CERT_FILE",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_and_what_the_worker_alone_reads_stay_with_the_worker(name: str) -> None:
    assert name not in passed_on({name: "x"})


@pytest.mark.parametrize("name", NEEDED)
def test_what_libraries_read_is_passed_on(name: str) -> None:
    assert passed_on({name: "x"})[name] == "x"


@given(st.text(min_size=1), st.sampled_from(["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIALS"]))
def test_no_name_that_sounds_like_a_secret_is_passed_on_whatever_it_begins_with(name: str, sound: str) -> None:
    names = {f"{begin}{name}{sound}": "x" for begin in ("", "CUDA_", "HF_", "PYTHON", "LD_")}

    assert set(passed_on(names)) == {"PYTHONPATH"}


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_passed_on_unless_its_address_holds_a_password(name: str) -> None:
    assert passed_on({name: "http://proxy:3128"})[name] == "http://proxy:3128"
    assert name not in passed_on({name: "http://me:secret@proxy:3128"})


def test_modules_are_found_where_the_worker_finds_them() -> None:
    folders = passed_on({"PYTHONPATH": "/elsewhere"})["PYTHONPATH"].split(os.pathsep)

    assert [folder for folder in sys.path if folder] == [folder for folder in folders if folder in sys.path]
