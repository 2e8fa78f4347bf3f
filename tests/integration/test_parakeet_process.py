"""The engine around its process: a real child with real pipes and signals that runs a scripted program, no model."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.support.engines.scripted_engine import PATIENT, Act, Refusal, Stage, window
from tests.support.wait import eventually, wait_until
from worker.adapters.parakeet.engine import EngineState, ParakeetEngine
from worker.errors import EngineFailure, GpuMemoryError, GpuNotAvailable, ModelLoadingError, TranscriptionTimeout

ROOT = Path(__file__).parents[2]

PARENT = """
import asyncio, sys
from pathlib import Path
from tests.support.engines.scripted_engine import Act, Stage, window
from worker.telemetry import configure_logging

configure_logging("json")  # to stderr: stdout is read by the test

async def work(folder):
    async with Stage(folder).engine() as engine:
        print(engine.pid, flush=True)
        await engine.recognise(window(Act[sys.argv[2]]), "job")
        await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1])))
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def number_of(engine: ParakeetEngine, act: Act = Act.SPEAK, number: int = 7) -> int:
    recognition = await engine.recognise(window(act, number), "job")
    (word,) = recognition.words
    return int(word.text)


def pid_of(engine: ParakeetEngine) -> int:
    assert engine.pid is not None
    return engine.pid


async def test_windows_come_back_to_who_asked_for_them(stage: Stage) -> None:
    async with stage.engine() as engine:
        numbers = await asyncio.gather(*(number_of(engine, number=number) for number in range(20)))

    assert numbers == list(range(20))


async def test_an_engine_reports_its_facts_and_its_condition(stage: Stage) -> None:
    async with stage.engine() as engine:
        await number_of(engine)

        assert engine.facts.model_name == "scripted"
        assert engine.health.state is EngineState.READY
        assert engine.health.restarts == 0
        assert engine.health.heartbeat_age_seconds is not None
        assert engine.health.device_memory_bytes == 4096


async def test_an_engine_that_is_not_entered_yet_is_loading(stage: Stage) -> None:
    health = stage.engine().health

    assert health.state is EngineState.LOADING
    assert health.heartbeat_age_seconds is None


async def test_a_process_that_was_started_before_is_the_one_that_serves(stage: Stage) -> None:
    engine = stage.engine()
    engine.start()
    engine.start()
    await eventually(lambda: asyncio.sleep(0, bool(stage.starts)), 60)
    early = stage.starts

    async with engine:
        assert await number_of(engine) == 7
        assert stage.starts == early == [pid_of(engine)]


def test_a_process_that_was_started_and_never_used_ends_with_the_worker(stage: Stage) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.support.engines.scripted_engine import Stage;"
        "engine = Stage(Path(sys.argv[1])).engine(); engine.start(); print(engine._prestarted.process.pid)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script, str(stage.folder)], cwd=ROOT, check=True, capture_output=True, text=True
    )

    wait_until(lambda: not psutil.pid_exists(int(ended.stdout)))


async def test_leaving_ends_the_process_and_refuses_what_waits(stage: Stage) -> None:
    async with stage.engine() as engine:
        pid = pid_of(engine)
        waiting = asyncio.create_task(number_of(engine, Act.HANG))
        await eventually(lambda: asyncio.sleep(0, stage.hanging))

    with pytest.raises(EngineFailure, match="closed"):
        await waiting
    assert not psutil.pid_exists(pid)


async def test_a_process_killed_in_the_middle_of_a_batch_is_replaced_and_the_batch_answered_once(stage: Stage) -> None:
    async with stage.engine() as engine:
        waiting = [asyncio.create_task(number_of(engine, Act.HANG_ONCE, number)) for number in range(6)]
        await eventually(lambda: asyncio.sleep(0, stage.hanging))

        os.kill(pid_of(engine), signal.SIGKILL)

        assert await asyncio.gather(*waiting) == list(range(6))
        assert engine.health.restarts == 1
        assert engine.health.state is EngineState.READY


async def test_a_stopped_process_is_noticed_by_its_silence_and_replaced(stage: Stage) -> None:
    async with stage.engine(patience=replace(PATIENT, silence_seconds=1)) as engine:
        stopped = pid_of(engine)

        os.kill(stopped, signal.SIGSTOP)

        assert await number_of(engine) == 7
        assert engine.health.restarts >= 1
        assert not psutil.pid_exists(stopped)


async def test_a_batch_that_takes_too_long_is_a_timeout_after_its_second_process(stage: Stage) -> None:
    async with stage.engine(patience=replace(PATIENT, batch_seconds=0.5)) as engine:
        with pytest.raises(TranscriptionTimeout):
            await number_of(engine, Act.HANG)

        assert engine.health.restarts >= 1


@pytest.mark.parametrize("act", [Act.DIE, Act.RAISE])
async def test_a_window_that_ends_every_process_fails_alone(stage: Stage, act: Act) -> None:
    async with stage.engine() as engine:
        acts = [Act.SPEAK, act, Act.SPEAK, Act.SPEAK]

        answers = await asyncio.gather(*(number_of(engine, act) for act in acts), return_exceptions=True)

    assert [answer for answer in answers if answer != 7] == [answers[1]]
    assert isinstance(answers[1], EngineFailure)
    assert ("illegal memory access" in str(answers[1])) == (act is Act.RAISE)


async def test_a_window_that_does_not_fit_is_a_memory_error_and_no_reason_to_replace_the_process(stage: Stage) -> None:
    async with stage.engine() as engine:
        with pytest.raises(GpuMemoryError):
            await number_of(engine, Act.FILL_THE_MEMORY)

        assert await number_of(engine) == 7
        assert engine.health.restarts == 0


async def test_signals_meant_for_the_worker_do_not_end_the_process(stage: Stage) -> None:
    async with stage.engine() as engine:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid_of(engine), number)

        assert await number_of(engine) == 7
        assert engine.health.restarts == 0


async def test_the_process_inherits_no_secret_and_no_file_but_its_pipe(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets = {"DEEPGRAM_API_KEY": "key", "HF_TOKEN": "token", "GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}
    for name, value in {**secrets, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    with (tmp_path / "inheritable").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        async with stage.engine() as engine:
            await number_of(engine)
    environment, files = stage.inherited()

    assert not secrets.keys() & environment.keys()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert not any("inheritable" in name for name in files)
    assert sum(name.startswith("socket:") for name in files) <= 1


@pytest.mark.parametrize(
    ("refusal", "error"),
    [("model", ModelLoadingError), ("gpu", GpuNotAvailable), ("library", ModelLoadingError)],
)
async def test_an_engine_that_cannot_start_says_why_and_leaves_no_process(
    stage: Stage, refusal: Refusal, error: type[Exception]
) -> None:
    stage.refuse(1, refusal)

    with pytest.raises(error, match="as the test has it"):
        async with stage.engine():
            pass

    assert not any(psutil.pid_exists(pid) for pid in stage.starts)


async def test_a_start_that_takes_too_long_is_given_up(stage: Stage) -> None:
    with pytest.raises(ModelLoadingError, match="not ready within"):
        async with stage.engine(patience=replace(PATIENT, start_seconds=0.001)):
            pass

    assert not any(psutil.pid_exists(pid) for pid in stage.starts)


async def test_a_replacement_is_tried_again_until_it_starts(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.refuse(2)

        os.kill(pid_of(engine), signal.SIGKILL)

        assert await number_of(engine) == 7
        assert len(stage.starts) == 4


async def test_windows_are_refused_while_no_replacement_starts_and_taken_once_one_does(stage: Stage) -> None:
    async with stage.engine(patience=replace(PATIENT, starts_to_fail=1, first_backoff_seconds=0.1)) as engine:
        stage.change_the_model()
        os.kill(pid_of(engine), signal.SIGKILL)
        await eventually(lambda: asyncio.sleep(0, engine.health.state is EngineState.FAILED), 60)

        with pytest.raises(GpuNotAvailable, match="changed under the running worker"):
            await number_of(engine)
        failing = engine.health.failing_seconds

        stage.keep_the_model()
        await eventually(lambda: asyncio.sleep(0, engine.health.state is EngineState.READY), 60)
        assert await number_of(engine) == 7
        assert (failing > 0, engine.health.failing_seconds) == (True, 0)


async def test_a_window_cancelled_while_it_waits_never_reaches_the_process(stage: Stage) -> None:
    async with stage.engine() as engine:
        blocking = asyncio.create_task(number_of(engine, Act.HANG_ONCE))
        await eventually(lambda: asyncio.sleep(0, stage.hanging))
        deadly = asyncio.create_task(number_of(engine, Act.DIE))
        await asyncio.sleep(0)

        deadly.cancel()
        os.kill(pid_of(engine), signal.SIGKILL)

        assert await blocking == 7
        assert await number_of(engine) == 7
        assert engine.health.restarts == 1


async def test_a_window_without_samples_has_no_words_and_costs_nothing(stage: Stage) -> None:
    async with stage.engine() as engine:
        recognition = await engine.recognise(window(Act.DIE)[:0], "job")

    assert recognition.words == ()
    assert recognition.engine_seconds == 0


@pytest.mark.parametrize("act", [Act.SPEAK, Act.HANG])
def test_a_killed_worker_leaves_no_process_idle_or_busy(stage: Stage, act: Act) -> None:
    arguments = [sys.executable, "-c", PARENT, str(stage.folder), act.name]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout
        first_line = parent.stdout.readline()
        family = psutil.Process(parent.pid).children(recursive=True)
        if act is Act.HANG:
            wait_until(lambda: stage.hanging)

        parent.kill()

        wait_until(lambda: not any(process.is_running() for process in family))
    assert int(first_line) in [process.pid for process in family], "stdout is the worker's alone"


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("worker.adapters.parakeet.engine", {"torch", "nemo"}),
        ("worker.commands.run", {"torch", "google.cloud", "opentelemetry.sdk", "httpx", "starlette"}),
        ("worker.commands.transcribe", {"torch", "google", "rich.progress", "worker.core", "worker.adapters.audio"}),
        ("worker.commands.local_files", {"torch", "google.cloud", "opentelemetry.sdk", "httpx", "starlette", "jinja2"}),
        ("worker.adapters.parakeet.child_process.serve", {"torch", "pydantic_settings", "google.cloud", "httpx"}),
        ("worker.adapters.parakeet.child_process.model", {"nemo", "transformers", "pandas", "google.cloud", "httpx"}),
    ],
    ids=[
        "the worker",
        "the command run",
        "the command transcribe",
        "its files",
        "the process",
        "the process with its model",
    ],
)
def test_a_start_imports_nothing_that_it_does_not_need(module: str, others: set[str]) -> None:
    check = f"import sys, {module}; sys.exit(' '.join({others} & set(sys.modules)))"

    finished = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)

    assert finished.stderr.strip() == ""
