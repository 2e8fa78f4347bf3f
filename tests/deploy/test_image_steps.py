"""The image without a container engine: its files made by its steps, its environment, its command, and one job.

The packages are those of the environment that runs the tests, which came from a lock file as well; another user and a
tree that cannot be written even by root are deploy/smoke.sh's to try.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.deploy.scripts import DEPLOY, ROOT
from tests.support.workers.cloud import Cloud, cloud_in
from tests.support.workers.worker_process import WorkerProcess
from worker.embedded.samples import samples, tiny_model

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

SIGKILL_FOLLOWS_SECONDS = 10
EXIT_SECONDS = 8
COMPILED = shutil.ignore_patterns("__pycache__")


def image_in(folder: Path) -> Path:
    """The tree of the runtime stage, with the tiny model baked in and nothing that can be written."""
    build, image = DEPLOY / "image", folder / "image"
    for name, source in {"worker": ROOT / "worker", "schemas": ROOT / "schemas", "bin": build / "bin"}.items():
        shutil.copytree(source, image / "opt" / "app" / name, ignore=COMPILED)
    (folder / "build").mkdir()
    shutil.copy(build / "fetch_model.py", folder / "build")
    shutil.copy(tiny_model(), folder / "build" / "tiny-parakeet-tdt.nemo")
    ran(folder / "build" / "fetch_model.py", image / "models" / "parakeet.nemo", MODEL="tiny")
    ran(
        ROOT / "worker/adapters/parakeet/loading/checksum_note.py", image / "models" / "parakeet.nemo", image / "models"
    )
    ran(build / "write_metadata.py", ROOT / "pyproject.toml", image / "opt" / "app")
    ran("-m", "compileall", "-q", image / "opt" / "app")
    for path in [image, *image.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    return image


def ran(*arguments: str | Path, **environment: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, env={**os.environ, **environment})


def environment_of(image: Path, tmp: Path) -> Mapping[str, str]:
    """Return the environment of the Dockerfile's runtime stage, with its folders replaced by local ones."""
    text = (ROOT / "Dockerfile.gpu").read_text().split(" AS runtime\n")[1]
    (block,) = re.findall(r"^ENV (PATH=.*?[^\\])$", text, re.MULTILINE | re.DOTALL)
    python = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    here = {"${PATH}": python, "${PARAKEET_DEVICE}": "cpu", "/opt/": f"{image}/opt/", "/models/": f"{image}/models/"}
    for there, found in {"/tmp": str(tmp), **here}.items():  # noqa: S108 - the path in the image
        block = block.replace(there, found)
    named = dict(word.split("=", 1) for word in shlex.split(block.replace("\\\n", " ")))
    return {**named, "PYTHONSAFEPATH": "1", "TEMP_DIR": str(tmp)}


def contents(image: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in image.rglob("*")}


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with cloud_in(tmp_path) as cloud:
        yield cloud


async def test_the_images_steps_make_a_worker_that_gets_ready_does_a_job_and_stops(cloud: Cloud) -> None:
    image, tmp = image_in(cloud.folder), cloud.folder / "tmp"
    tmp.mkdir()
    made = contents(image)
    environment = {**cloud.environment, **environment_of(image, tmp)}
    command = [image / "opt" / "app" / "bin" / "with-cuda-driver", "klipstream-worker", "run"]

    with WorkerProcess(cloud.folder / "worker.log", environment, command) as worker:
        worker.wait_ready()
        started = " ".join(word for member in worker.family() for word in member.cmdline())
        async with cloud.pipeline() as pipeline:
            await pipeline.submit(await pipeline.upload(samples()[0].path))
            completed = (await pipeline.ending(seconds=120)).completed
        told_at = time.monotonic()
        worker.send(signal.SIGTERM)
        status = worker.wait(SIGKILL_FOLLOWS_SECONDS)
        stopped_after = time.monotonic() - told_at

    assert f"{image}/opt/app/bin/klipstream-worker" in started
    assert completed.transcription_metadata.words_count > 0
    assert completed.transcription_metadata.model_name == f"{image}/models/parakeet.nemo"
    assert (status, stopped_after < EXIT_SECONDS) == (0, True)
    assert contents(image) == made
    assert [path for path in tmp.rglob("*") if path.suffix in {".mp3", ".wav", ".opus", ".m4a"}] == []
