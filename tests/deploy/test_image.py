"""Contents of the image. Building and running it takes minutes and a container engine: see deploy/smoke.sh."""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deploy.scripts import DEPLOY, ROOT, FakeGcloud, rendered
from worker.adapters.parakeet.engine import Patience
from worker.embedded.samples import tiny_model

DOCKERFILE = (ROOT / "Dockerfile.gpu").read_text()
BIN = DEPLOY / "image" / "bin"
NEMO_LOCK = "deploy/requirements-nemo.txt"


def pins(name: str) -> dict[str, str]:
    """Package and version of every line of a lock file; fails where a line has no hash."""
    blocks = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
    locked = [block for block in blocks if not block.startswith("#")]
    assert [block for block in locked if "--hash=sha256:" not in block] == []
    return dict(re.match(r"([\w.-]+)==(\S+)", block).groups() for block in locked)  # type: ignore[union-attr]


def test_every_base_is_pinned_by_digest() -> None:
    images = re.findall(r"^ARG \w+_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE)
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)

    assert len(images) == 2
    assert all(re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image) for image in images)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    assert set(bases) - stages == {"${CUDA_IMAGE}", "${PYTHON_IMAGE}", "packages-${NEMO}", "weights-${WEIGHTS}"}


def test_torch_is_the_same_version_everywhere_and_its_lock_completes_the_workers() -> None:
    torch, others = pins("deploy/requirements-torch-cuda.txt"), pins("requirements-worker.txt")
    makefile = re.search(r"torch==(\S+)", (ROOT / "Makefile").read_text())

    assert makefile is not None
    assert torch["torch"] == makefile[1]
    assert set(torch) & set(others) == set(torch) & set(pins(NEMO_LOCK)) == set()


def test_the_lock_for_older_drivers_has_a_torch_of_cuda_12_and_completes_the_workers() -> None:
    torch, others = pins("deploy/requirements-torch-cu12.txt"), pins("requirements-worker.txt")

    assert torch["nvidia-cuda-runtime-cu12"].startswith("12.")
    assert not [name for name in torch if name.endswith("-cu13")]
    assert set(torch) & set(others) == set(torch) & set(pins(NEMO_LOCK)) == set()


@pytest.mark.parametrize(
    ("cuda", "lock"), [("", "torch-cuda.txt"), ("13", "torch-cuda.txt"), ("12", "torch-cu12.txt"), ("11", None)]
)
def test_the_lock_of_the_cuda_that_was_asked_for_is_installed(cuda: str, lock: str | None, tmp_path: Path) -> None:
    (tmp_path / "python3").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **({"CUDA": cuda} if cuda else {})}
    command = ["sh", DEPLOY / "image" / "install-torch.sh", DEPLOY, tmp_path / "torch"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode == 0) is (lock is not None)
    if lock:
        assert f"--require-hashes --target {tmp_path}/torch -r {DEPLOY}/requirements-{lock}" in done.stdout


def test_the_workers_packages_are_those_beside_nemo_and_nemo_is_no_part_of_them() -> None:
    worker, with_nemo = pins("requirements-worker.txt"), pins(NEMO_LOCK)

    assert worker.items() < with_nemo.items()
    judges = {"nemo-toolkit", "transformers", "pandas", "pyarrow", "wandb", "llvmlite", "scipy", "lightning"}
    assert judges <= set(with_nemo)
    assert not judges & set(worker)
    assert with_nemo.items() <= pins("requirements-dev.txt").items()


def test_the_image_has_nemo_only_where_it_is_asked_for() -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))

    assert re.search(r"^ARG NEMO=0$", DOCKERFILE.split("FROM ")[0], re.MULTILINE)
    assert "FROM packages-${NEMO} AS packages\n" in DOCKERFILE
    assert "-r /build/requirements-worker.txt" in stages["packages-0"]
    assert "-r /build/requirements-nemo.txt" in stages["packages-1"]
    assert "COPY --from=packages /opt/packages" in stages["runtime"]


def test_no_image_is_made_without_the_judgement_of_its_tokens() -> None:
    runtime = DOCKERFILE.split(" AS runtime\n")[1].split("\nFROM ")[0]

    assert "COPY --from=judge /build/judged.json /opt/" in runtime
    assert "FROM packages-1 AS judge" in DOCKERFILE


@pytest.mark.parametrize("nemo", ["0", "1"])
@pytest.mark.parametrize(("cuda", "lock"), [("13", "torch-cuda.txt"), ("12", "torch-cu12.txt")])
def test_the_bill_of_materials_is_complete(cuda: str, lock: str, nemo: str, tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py", reason="not installed yet: make install")
    command = ["sh", DEPLOY / "image" / "sbom.sh", cuda, nemo, tmp_path / "sbom.json", sys.executable]

    subprocess.run(command, check=True, capture_output=True)

    bill = json.loads((tmp_path / "sbom.json").read_text())
    listed = {part["name"]: part["version"] for part in bill["components"]}
    packages = pins(NEMO_LOCK if nemo == "1" else "requirements-worker.txt")
    assert listed == packages | pins(f"deploy/requirements-{lock}")
    for part in bill["components"]:
        (reference,) = part["externalReferences"]
        assert {one["alg"] for one in reference["hashes"]} == {"SHA-256"}


def test_every_builder_is_pinned_by_digest() -> None:
    builders = {step["name"] for step in yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())["steps"]}

    assert len(builders) == 2
    assert [name for name in builders if not re.search(r"@sha256:[0-9a-f]{64}$", name)] == []


@pytest.mark.parametrize(
    ("stops_at", "found", "status"),
    [("CRITICAL", "LOW\nCRITICAL\n", 1), ("CRITICAL", "LOW\nHIGH\n", 0), ("", "CRITICAL\n", 0), ("CRITICAL", "", 0)],
)
def test_the_scan_stops_the_build_at_the_severity_that_is_set(
    stops_at: str, found: str, status: int, tmp_path: Path
) -> None:
    (step,) = (step for step in cloudbuild_steps() if step["id"] == "scan")
    text = step["args"][-1].replace("${_SCAN_STOPS_AT}", stops_at).replace("$$", "$")
    text = text.replace("/workspace", str(tmp_path))
    (tmp_path / "image").write_text("an-image")
    answers = {"gcloud artifacts docker images scan": "scan-1\n", "gcloud artifacts docker images list-v": found}
    gcloud = FakeGcloud(tmp_path, answers)

    done = subprocess.run(
        ["bash", *step["args"][:-1], text], env={"PATH": gcloud.path}, capture_output=True, text=True, check=False
    )

    assert done.returncode == status, done.stderr


def cloudbuild_steps() -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())["steps"]


def test_no_package_index_is_named() -> None:
    files = [ROOT / "Dockerfile.gpu", ROOT / "cloudbuild.yaml", *(ROOT.glob("requirements-*.txt")), *DEPLOY.rglob("*")]
    texts = {path.name: path.read_text() for path in files if path.is_file() and path.suffix != ".pyc"}
    index = re.compile(r"pypi\.|pythonhosted|download\.pytorch|find-links")

    assert [name for name, text in texts.items() if index.search(text)] == []


def test_where_the_build_tests_itself_alerts_are_judged_by_prometheus_itself() -> None:
    test_stage = DOCKERFILE.split(" AS test\n")[1].split("\nFROM ")[0]

    assert "install -y --no-install-recommends git make prometheus" in test_stage
    assert "CI_REQUIRE_PROMTOOL=true" in test_stage


def test_the_image_runs_unprivileged_and_never_contacts_the_hub() -> None:
    runtime = DOCKERFILE.split(" AS runtime\n")[1].split("\nFROM ")[0]

    assert re.findall(r"^USER (.*)$", runtime, re.MULTILINE) == ["10001:10001"]
    assert "HF_HUB_OFFLINE=1" in runtime
    assert "apt-get" not in runtime


def test_nothing_that_python_brings_is_left_to_be_compiled_at_every_start() -> None:
    version = re.search(r"^ARG PYTHON_IMAGE=\S+/python:(\d+\.\d+)-", DOCKERFILE, re.MULTILINE)
    runtime = DOCKERFILE.split(" AS runtime\n")[1].split("\nFROM ")[0]

    assert version is not None
    assert f"compileall -q /usr/local/lib/python{version[1]} " in runtime


def test_the_note_of_the_model_is_no_part_of_the_models_layer() -> None:
    runtime = DOCKERFILE.split(" AS runtime\n")[1].split("\nFROM ")[0]

    assert re.findall(r"^COPY --from=weights (\S+) /models$", runtime, re.MULTILINE) == ["/models", "/prepared"]
    assert "RUN python3 /build/checksum_note.py /models/parakeet.nemo /prepared\n" in DOCKERFILE


def test_the_build_checks_the_image_before_it_pushes_it() -> None:
    steps = [step["id"] for step in yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())["steps"]]

    assert steps == ["build", "build-test", "test", "sbom", "smoke", "push", "scan", "deploy"]


def test_the_package_is_known_by_name_and_version(tmp_path: Path) -> None:
    command = [sys.executable, DEPLOY / "image" / "write_metadata.py", ROOT / "pyproject.toml", tmp_path]
    subprocess.run(command, check=True)

    (found,) = importlib.metadata.distributions(path=[str(tmp_path)])

    assert found.name == "klipstream-worker"
    assert found.version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def fetch(target: Path, **arguments: str) -> "subprocess.CompletedProcess[str]":
    folder = target.parent.parent
    shutil.copy(DEPLOY / "image" / "fetch_model.py", folder)
    shutil.copy(tiny_model(), folder / "tiny-parakeet-tdt.nemo")
    return subprocess.run(
        [sys.executable, folder / "fetch_model.py", target],
        env={**os.environ, **arguments},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tiny_model_is_baked_where_it_is_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "models" / "parakeet.nemo"

    fetch(target, MODEL="tiny").check_returncode()

    assert target.read_bytes() == tiny_model().read_bytes()


def test_without_a_model_there_is_a_folder_to_mount_one_on(tmp_path: Path) -> None:
    target = tmp_path / "models" / "parakeet.nemo"

    fetch(target, MODEL="none").check_returncode()

    assert list(target.parent.iterdir()) == []


HUB = """
from pathlib import Path
def hf_hub_download(repository, name, revision, local_dir):
    path = Path(local_dir, name)
    path.write_text(f"{repository} at {revision}")
    return str(path)
"""


@pytest.mark.parametrize(
    ("sha256", "status"),
    [("fd40db03bb0a9ab9cd35fdbbdc9e6ac5f8aa3c06ba8a44b6ac4e4b0d5a8a2b3c", 1), (None, 0)],
    ids=["another file", "the expected one"],
)
def test_a_model_with_another_checksum_ends_the_build(tmp_path: Path, sha256: str | None, status: int) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "huggingface_hub.py").write_text(HUB)
    target = tmp_path / "models" / "parakeet.nemo"
    expected = sha256 or hashlib.sha256(b"a/model at abc").hexdigest()

    done = fetch(
        target,
        PYTHONPATH=str(tmp_path / "hub"),
        MODEL="hub",
        MODEL_REPOSITORY="a/model",
        MODEL_FILE="its.nemo",
        MODEL_REVISION="abc",
        MODEL_SHA256=expected,
    )

    assert done.returncode == status, done.stderr
    assert target.exists() == (status == 0)


DRIVER = """
int cuInit(unsigned flags) {{ return {code}; }}
int cuDriverGetVersion(int *version) {{ *version = {version}; return 0; }}
"""


def driver(folder: Path, version: int, code: int = 0) -> Path:
    """A library that answers as a CUDA driver does."""
    folder.mkdir()
    (folder / "cuda.c").write_text(DRIVER.format(version=version, code=code))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "cuda.c"], check=True)
    return folder


def started_with(
    tmp_path: Path, host: Path | None, compat: Path, device: str = "cuda", torch_cuda: str | None = "13.0"
) -> str:
    """The library path that a command sees behind with-cuda-driver, where torch was built with that CUDA."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(f"debug = False\ncuda: Optional[str] = {torch_cuda!r}\n")
    start = tmp_path / "with-cuda-driver"
    start.write_text((BIN / "with-cuda-driver").read_text().replace("compat=/opt/cuda-compat", f"compat={compat}"))
    start.chmod(0o755)
    environment = {"PATH": f"{BIN}:{Path(sys.executable).parent}:{os.environ['PATH']}", "PARAKEET_DEVICE": device}
    environment["PYTHONPATH"] = str(tmp_path)
    if host:
        environment["LD_LIBRARY_PATH"] = str(host)
    done = subprocess.run(
        [start, "sh", "-c", "echo ${LD_LIBRARY_PATH:-}"], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for stand-in driver libraries")


@needs_cc
def test_a_driver_that_is_new_enough_is_left_alone(tmp_path: Path) -> None:
    host, compat = driver(tmp_path / "host", 13_010), driver(tmp_path / "compat", 13_000)

    assert started_with(tmp_path, host, compat) == str(host)


@needs_cc
def test_a_torch_of_cuda_12_takes_driver_535_as_it_is(tmp_path: Path) -> None:
    host, compat = driver(tmp_path / "host", 12_020), driver(tmp_path / "compat", 13_000)

    assert started_with(tmp_path, host, compat, torch_cuda="12.8") == str(host)


@needs_cc
def test_a_torch_without_cuda_asks_for_no_driver(tmp_path: Path) -> None:
    host, compat = driver(tmp_path / "host", 11_040), driver(tmp_path / "compat", 13_000)

    assert started_with(tmp_path, host, compat, torch_cuda=None) == str(host)


@needs_cc
def test_the_compatibility_library_replaces_an_older_driver(tmp_path: Path) -> None:
    host, compat = driver(tmp_path / "host", 12_020), driver(tmp_path / "compat", 13_000)

    assert started_with(tmp_path, host, compat) == f"{compat}:{host}"


@needs_cc
def test_the_compatibility_library_replaces_a_driver_that_does_not_start(tmp_path: Path) -> None:
    host, compat = driver(tmp_path / "host", 13_000, code=803), driver(tmp_path / "compat", 13_000)

    assert started_with(tmp_path, host, compat) == f"{compat}:{host}"


@needs_cc
def test_nothing_is_tried_for_a_cpu(tmp_path: Path) -> None:
    compat = driver(tmp_path / "compat", 13_000)

    assert started_with(tmp_path, None, compat, device="cpu") == ""


def test_the_command_runs_without_any_driver_and_says_so_itself(tmp_path: Path) -> None:
    (tmp_path / "compat").mkdir()

    assert started_with(tmp_path, None, tmp_path / "compat") == str(tmp_path / "compat")


def test_the_registry_keeps_the_last_ten_images_and_whatever_serves() -> None:
    rules = json.loads((DEPLOY / "registry-cleanup.json").read_text())

    assert {"name": "keep-ten", "action": {"type": "Keep"}, "mostRecentVersions": {"keepCount": 10}} in rules
    kept = [rule["condition"]["tagPrefixes"] for rule in rules if rule["name"] == "keep-what-serves"]
    assert kept == [["production", "staging"]]


def test_a_model_that_does_not_load_is_reported_before_the_probe_ends_the_instance() -> None:
    pool = yaml.safe_load(rendered("production"))
    probe = pool["spec"]["template"]["spec"]["containers"][0]["startupProbe"]

    window = probe["periodSeconds"] * probe["failureThreshold"]

    assert window - Patience().start_seconds >= 10


def test_the_image_that_the_build_tests_has_every_file_that_its_tests_read() -> None:
    """The context of the build is what .dockerignore lets in: entries of the root, by name or by a star at the end."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [rule.removeprefix("!").removesuffix("*.txt") for rule in rules if rule.startswith("!")]
    targets = (ROOT / "Makefile").read_text()
    sources = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    read = {name for path in sources for name in re.findall(r'\bROOT / "([^"/]+)"', path.read_text())}

    assert "mkdocs build" in targets  # with mkdocs.yml, whose name it does not say
    left_out = [
        name
        for name in {*read, "mkdocs.yml", ".ci"} - {".git"}
        if (ROOT / name).exists() and not name.startswith(tuple(let_in))
    ]

    assert left_out == []


def test_tests_that_need_git_find_it_in_the_image() -> None:
    users = [path.name for path in (ROOT / "tests").rglob("*.py") if '["git"' in path.read_text()]
    stage = (ROOT / "Dockerfile.gpu").read_text().split(" AS test\n")[1]

    assert users != []
    assert re.search(r"apt-get install [^&]*\bgit\b", stage)
