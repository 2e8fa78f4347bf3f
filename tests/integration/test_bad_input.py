"""Bad input of every kind that applies, to every command: a clear line, the right exit code, and no traceback.

`ROWS` names all commands: a new command fails the first test until it has a row.
"""

import os
import shlex
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest import mock

import pytest
import typer.main
from google.pubsub_v1 import SubscriberClient
from typer.testing import Result

from tests.support.jobs.messages import failed_event
from tests.support.wait import wait_until
from tests.support.workers.cloud import Cloud
from tests.support.workers.console import run as in_process
from tests.support.workers.forked_commands import run_forked
from worker.cli.main import app
from worker.client.connections import publisher_client, subscriber_client
from worker.embedded.local_cloud import COMPLETION_TOPIC
from worker.embedded.samples import tiny_model

ROOT = Path(__file__).parents[2]
PUBSUB, STORAGE, GPU, MODEL, WORKER = "Pub/Sub", "Cloud Storage", "a GPU", "a model", "a worker's health port"
CLOSED_PORT = 1
AUDIO = ROOT / "worker" / "app" / "sample" / "speech.opus"
MOST_SECONDS = 2.0

pytestmark = pytest.mark.long


@dataclass(frozen=True, kw_only=True)
class Row:
    """A command line of a command, what it needs, and how it takes files and folders."""

    words: str = ""
    """The command line without the command: {file} is audio, {lines} a file of JSON lines, {folder} an empty folder."""
    more: tuple[str, ...] = ()
    """Other forms of it, which need the same."""
    needs: frozenset[str] = frozenset()
    reads: tuple[str, ...] = ()
    """Command lines whose file is {what}."""
    writes: str = ""
    """A command line that writes below {what}, which is a file; where it needs no server."""


def needs(*things: str) -> frozenset[str]:
    return frozenset(things)


ROWS: Mapping[str, Row] = {
    "run": Row(needs=needs(PUBSUB, STORAGE, GPU, MODEL)),
    "check": Row(needs=needs(PUBSUB, STORAGE, GPU, MODEL)),
    "health": Row(words="http://127.0.0.1:1", needs=needs(WORKER)),
    "top": Row(words="http://127.0.0.1:1 --once", needs=needs(WORKER)),
    "demo": Row(words="--out {folder}/out", needs=needs(GPU, MODEL), reads=("{what}",), writes="--out {what}"),
    "emulators": Row(writes="--root {what} --pubsub-port 0 --storage-port 0"),
    "dev": Row(
        words="--root {folder}/out --pubsub-port 0 --storage-port 0 --no-browser",
        needs=needs(GPU, MODEL),
        writes="--root {what} --pubsub-port 0 --storage-port 0",
    ),
    "page": Row(words="--port 0 --no-browser"),
    "submit": Row(
        words="gs://some-bucket/audio.mp3 --wait",
        more=("{file} --bucket some-bucket", "--from {jobs}", "gs://some-bucket/folder/*"),
        needs=needs(PUBSUB),
        reads=("{what} --bucket some-bucket", "--from {what}"),
    ),
    "watch": Row(more=("--until-done",), needs=needs(PUBSUB)),
    "job": Row(words="job-1", needs=needs(STORAGE)),
    "validate": Row(words="gs://some-bucket/audio.mp3", needs=needs(PUBSUB)),
    "transcribe": Row(
        words="{file} --out {folder}/out",
        needs=needs(GPU, MODEL),
        reads=("{what} --out {folder}/out",),
        writes="{file} --out {what}",
    ),
    "accuracy": Row(words="--manifest {lines}", needs=needs(GPU, MODEL), reads=("--manifest {what}",)),
    "prepare": Row(words="/nowhere/model.nemo {folder}/out.nemo", needs=needs(MODEL)),
    "costs": Row(needs=needs(STORAGE), reads=("--file {what}",), writes="--file {events} --html {what}/page.html"),
    "canary": Row(words="--file {lines} --by group", reads=("--file {what}",)),
    "dlq list": Row(needs=needs(PUBSUB)),
    "dlq show": Row(words="0123abcd", needs=needs(PUBSUB)),
    "dlq replay": Row(words="--execute", needs=needs(PUBSUB)),
    "dlq drop": Row(words="--export {folder}/dropped.jsonl --execute", needs=needs(PUBSUB)),
    "dlq triage": Row(),  # asks on a terminal alone; see below
}


def commands(group: Any = None, names: tuple[str, ...] = ()) -> Iterator[str]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*names, name))
        else:
            yield " ".join((*names, name))


def with_need(*things: str) -> list[str]:
    """Return the command lines, places unfilled, of the commands that need one of the things."""
    rows = [(name, row) for name, row in ROWS.items() if row.needs & set(things)]
    return [f"{name} {words}".strip() for name, row in rows for words in (row.words, *row.more)]


def test_every_command_has_a_row() -> None:
    assert set(commands()) == set(ROWS)


@pytest.fixture
def places(tmp_path: Path) -> Mapping[str, Path]:
    (tmp_path / "empty").mkdir()
    (tmp_path / "jobs.csv").write_text("job_id,video_id,audio_uri\nj-1,v-1,gs://some-bucket/1.mp3\n")
    (tmp_path / "events.jsonl").write_text("")
    (tmp_path / "lines.jsonl").write_text('{"audio_filepath": "lost.wav", "text": "a"}\n')
    return {
        "file": AUDIO,
        "events": tmp_path / "events.jsonl",
        "lines": tmp_path / "lines.jsonl",
        "jobs": tmp_path / "jobs.csv",
        "folder": tmp_path / "empty",
    }


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


class _Greeter(socketserver.BaseRequestHandler):
    """Greets as a server of gRPC or of HTTP does, and does no more."""

    def handle(self) -> None:
        is_grpc = self.request.recv(100).startswith(b"PRI")
        self.request.sendall(b"\0\0\0\4" + bytes(5) if is_grpc else b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def greeting() -> Iterator[str]:
    """The address of a server that looks like one of Pub/Sub and of Cloud Storage."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Greeter) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "{}:{}".format(*server.server_address)
        server.shutdown()


def surroundings(folder: Path, **more: str) -> dict[str, str]:
    """An environment with buckets, and with nothing of this machine's own."""
    buckets = dict.fromkeys(("OUTPUT_BUCKET", "STATE_BUCKET", "AUDIO_BUCKET"), "some-bucket")
    home = {"HOME": str(folder), "CLOUDSDK_CONFIG": str(folder), "HF_HOME": str(folder), "TEMP_DIR": str(folder)}
    return {**buckets, **home, "PATH": "", "NO_GCE_CHECK": "true", "COLUMNS": "80", "HEALTH_PORT": "0", **more}


def servers(address: str) -> dict[str, str]:
    return {"PUBSUB_EMULATOR_HOST": address, "STORAGE_EMULATOR_HOST": f"http://{address}"}


def words_of(line: str, places: Mapping[str, Path], **more: Path) -> list[str]:
    return shlex.split(line.format(**places, **more))


def told(done: Result) -> str:
    """Return what was printed as one line, whatever the width of the terminal."""
    assert "Traceback" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return " ".join(done.output.replace("│", " ").split())


class _OwnTime:
    """Seconds that this thread took or waited, less those in which it was ready and the machine was busy."""

    def __enter__(self) -> Self:
        self._began = time.monotonic() - self._queued()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._queued() - self._began

    @staticmethod
    def _queued() -> float:
        schedule = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        return int(schedule.read_text().split()[1]) / 1e9 if schedule.exists() else 0.0


@pytest.mark.parametrize("columns", ["80", "40"])
@pytest.mark.parametrize("line", with_need(PUBSUB, STORAGE))
def test_without_servers_it_says_so_at_once(
    line: str, columns: str, places: Mapping[str, Path], tmp_path: Path
) -> None:
    environment = surroundings(tmp_path, COLUMNS=columns, PARAKEET_DEVICE="cpu", **servers(f"127.0.0.1:{CLOSED_PORT}"))

    with _OwnTime() as took:
        done = in_process(*words_of(line, places), environment=environment)

    assert done.exit_code == 1
    assert f"nothing listens on 127.0.0.1:{CLOSED_PORT}" in told(done)
    assert "klipstream-worker emulators" in told(done)
    assert len(done.stderr.splitlines()) <= 1
    assert took.seconds < MOST_SECONDS
    assert list(places["folder"].iterdir()) == []


@pytest.mark.parametrize("line", [line for line in with_need(PUBSUB, STORAGE) if line != "run"])
def test_a_server_that_says_nothing_is_not_waited_for(
    line: str, listening: str, places: Mapping[str, Path], tmp_path: Path
) -> None:
    # a worker is not ended by it: it asks again by itself
    environment = surroundings(tmp_path, PARAKEET_DEVICE="cpu", COLUMNS="300", **servers(listening))

    with _OwnTime() as took:
        done = in_process(*words_of(line, places), environment=environment)

    assert done.exit_code == 1
    assert f"what listens on {listening} is not what" in told(done)
    assert "no answer within" in told(done)
    assert took.seconds < MOST_SECONDS or line == "check"  # which looks for all of them
    assert list(places["folder"].iterdir()) == []


@pytest.mark.parametrize("line", with_need(PUBSUB, STORAGE))
def test_addresses_of_servers_that_were_confused_are_named(
    line: str, cloud: Cloud, places: Mapping[str, Path], tmp_path: Path
) -> None:
    swapped = {
        "PUBSUB_EMULATOR_HOST": cloud.environment["STORAGE_EMULATOR_HOST"].removeprefix("http://"),
        "STORAGE_EMULATOR_HOST": f"http://{cloud.environment['PUBSUB_EMULATOR_HOST']}",
    }

    done = in_process(
        *words_of(line, places), environment={**surroundings(tmp_path, COLUMNS="300"), **cloud.environment, **swapped}
    )

    assert done.exit_code == 1
    assert "it speaks another protocol" in told(done)
    assert "EMULATOR_HOST is for" in told(done)


@pytest.mark.parametrize("line", with_need(PUBSUB, STORAGE))
def test_without_credentials_it_says_how_to_sign_in(line: str, places: Mapping[str, Path], tmp_path: Path) -> None:
    with _OwnTime() as took:
        done = in_process(*words_of(line, places), environment=surroundings(tmp_path))

    assert done.exit_code == 1
    assert "gcloud auth application-default login" in told(done)
    assert len(done.stderr.splitlines()) <= 1
    assert took.seconds < MOST_SECONDS


def test_a_file_of_credentials_that_does_not_exist_is_named(tmp_path: Path) -> None:
    lost = str(tmp_path / "key.json")

    done = in_process("watch", environment=surroundings(tmp_path, GOOGLE_APPLICATION_CREDENTIALS=lost, COLUMNS="300"))

    assert done.exit_code == 1
    assert f"there is no file {lost}" in told(done)


@pytest.mark.parametrize("line", with_need(GPU))
def test_without_a_gpu_it_says_so_before_it_imports_torch(
    line: str, places: Mapping[str, Path], greeting: str, tmp_path: Path
) -> None:
    gone = {"PARAKEET_MODEL_NAME": str(tiny_model()), "PARAKEET_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": "-1"}
    addresses = servers(greeting if line == "run" else f"127.0.0.1:{CLOSED_PORT}")

    with _OwnTime() as took:
        done = in_process(*words_of(line, places), environment=surroundings(tmp_path, **addresses, **gone))

    assert done.exit_code == 1
    assert "CUDA_VISIBLE_DEVICES hides every GPU; PARAKEET_DEVICE=cpu runs without one" in told(done)
    assert took.seconds < MOST_SECONDS
    assert list(places["folder"].iterdir()) == []


@pytest.mark.parametrize("model", ["/nowhere/model.nemo", "some/model", "nonsense"])
@pytest.mark.parametrize("line", with_need(MODEL))
def test_without_a_model_it_says_so_before_it_imports_torch(
    line: str, model: str, places: Mapping[str, Path], greeting: str, tmp_path: Path
) -> None:
    gone = {"PARAKEET_MODEL_NAME": model, "PARAKEET_DEVICE": "cpu", "HF_ENDPOINT": "http://127.0.0.1:1"}
    addresses = servers(greeting if line == "run" else f"127.0.0.1:{CLOSED_PORT}")
    words = [model if word == "/nowhere/model.nemo" else word for word in words_of(line, places)]

    with _OwnTime() as took:
        done = in_process(*words, environment=surroundings(tmp_path, **addresses, **gone))

    assert done.exit_code == 1
    assert f"cannot load the model {model!r}" in told(done)
    assert took.seconds < MOST_SECONDS
    assert list(places["folder"].iterdir()) == []


@pytest.mark.parametrize("words", [["run"], ["check"], ["job", "job-1"]])
def test_a_whole_process_says_so_within_two_seconds_of_a_processor(words: list[str], tmp_path: Path) -> None:
    away = servers(f"127.0.0.1:{CLOSED_PORT}")
    environment = surroundings(
        tmp_path, PARAKEET_MODEL_NAME="/nowhere/model.nemo", PARAKEET_DEVICE="cpu", PYTHONPATH=str(ROOT), **away
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)

    assert process.returncode == 1
    assert used.ru_utime + used.ru_stime < MOST_SECONDS


@pytest.mark.parametrize("line", with_need(WORKER))
def test_where_no_worker_answers_it_ends_with_1(line: str, places: Mapping[str, Path], tmp_path: Path) -> None:
    done = in_process(*words_of(line, places), environment=surroundings(tmp_path))

    assert done.exit_code == 1
    assert "no answer" in told(done)


@pytest.mark.parametrize("line", [f"{name} {line}" for name, row in ROWS.items() for line in row.reads])
@pytest.mark.parametrize("what", ["a directory", "no file"])
def test_a_file_that_is_none_is_an_error_of_usage(
    line: str, what: str, places: Mapping[str, Path], tmp_path: Path
) -> None:
    wrong = places["folder"] if what == "a directory" else tmp_path / "lost"

    done = in_process(*words_of(line, places, what=wrong), environment=surroundings(tmp_path, COLUMNS="300"))

    assert done.exit_code == 2
    assert str(wrong) in told(done)
    assert list(places["folder"].iterdir()) == []


def test_output_that_cannot_be_written_is_named_by_every_command_that_writes(
    places: Mapping[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    environment = surroundings(
        tmp_path, PARAKEET_DEVICE="cpu", PARAKEET_MODEL_NAME=str(tiny_model()), PATH="/usr/bin:/bin", COLUMNS="300"
    )
    lines = {name: f"{name} {row.writes}" for name, row in ROWS.items() if row.writes}
    cases = [words_of(line, places, what=tmp_path / "taken") for line in lines.values()]

    answers = run_forked([{"words": words, "environment": environment} for words in cases])

    for name, answer in zip(lines, answers, strict=True):
        assert answer["code"] in {1, 2}, (name, answer)
        assert "Traceback" not in answer["out"] + answer["err"], (name, answer)
        assert str(tmp_path / "taken") in answer["out"] + answer["err"], (name, answer)


def test_a_port_that_is_taken_is_named_by_every_command_that_serves(listening: str, tmp_path: Path) -> None:
    port = listening.partition(":")[2]
    folder = ["--root", str(tmp_path / "root")]
    cases = [
        ["page", "--port", port, "--no-browser"],
        ["emulators", "--pubsub-port", port, "--storage-port", "0", *folder],
        ["emulators", "--pubsub-port", "0", "--storage-port", port, *folder],
        ["dev", "--pubsub-port", port, "--storage-port", "0", "--no-browser", *folder],
    ]

    answers = run_forked([{"words": words, "environment": surroundings(tmp_path, COLUMNS="200")} for words in cases])

    for words, answer in zip(cases, answers, strict=True):
        assert answer["code"] == 1, (words, answer)
        assert "Traceback" not in answer["err"], (words, answer)
        assert port in answer["err"], (words, answer)
        assert "address already in use" in answer["err"].lower(), (words, answer)


def test_ctrl_c_at_the_start_of_every_command_ends_it_with_130(places: Mapping[str, Path], tmp_path: Path) -> None:
    cases = [
        {
            "words": words_of(f"{name} {row.words}", places),
            "environment": surroundings(tmp_path, PARAKEET_DEVICE="cpu"),
            "interrupt_at": "worker.commands.",
        }
        for name, row in ROWS.items()
    ]

    answers = run_forked(cases)

    for name, answer in zip(ROWS, answers, strict=True):
        assert (answer["code"], answer["err"]) == (130, "stopped by Ctrl-C\n"), (name, answer)
    assert list(places["folder"].iterdir()) == []


@pytest.mark.parametrize("module", ["typer", "typer.rich_utils"])
def test_ctrl_c_before_the_command_line_is_there_ends_without_a_traceback(module: str) -> None:
    program = f"""
import signal, sys
class Interrupter:
    def find_spec(self, name, *_):
        if name == "{module}":
            signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupter())
from worker.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C\n")


def test_a_reader_that_has_gone_ends_every_command_without_a_word(places: Mapping[str, Path], tmp_path: Path) -> None:
    lines = {name: [*name.split(), "--help"] for name in ROWS} | {
        "itself": ["--help"],
        "version": ["--version"],
        "top once": ["top", "--once", "http://127.0.0.1:1"],
        "check all": ["check"],
        "costs of a file": ["costs", "--file", str(places["events"])],
        "costs as JSON": ["costs", "--file", str(places["events"]), "--json"],
        "prices": ["costs", "--explain"],
        "exports": ["emulators", "--env"],
    }
    away = servers(f"127.0.0.1:{CLOSED_PORT}")
    environment = surroundings(tmp_path, PARAKEET_DEVICE="cpu", PARAKEET_MODEL_NAME="/nowhere/model.nemo", **away)

    answers = run_forked(
        [{"words": words, "environment": environment, "pipe_closed": True} for words in lines.values()]
    )

    for name, answer in zip(lines, answers, strict=True):
        assert (answer["code"], answer["err"]) == (141, ""), (name, answer)


def test_output_in_ascii_escapes_what_it_cannot_hold(tmp_path: Path) -> None:
    environment = surroundings(tmp_path, PYTHONPATH=str(ROOT), PYTHONIOENCODING="ascii")
    done = subprocess.run(
        [sys.executable, "-m", "worker", "top", "--once", "http://127.0.0.1:1/\u00fc"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "-----" in done.stdout
    assert r"http://127.0.0.1:1/\xfc" in done.stdout
    assert "Traceback" not in done.stderr


def test_output_that_a_full_disk_does_not_take_is_an_error_of_one_line(tmp_path: Path) -> None:
    for words in (["--version"], ["--help"], ["emulators", "--env"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "worker", *words],
                env=surroundings(tmp_path, PYTHONPATH=str(ROOT)),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )

        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "closed", "code"),
    [
        ("--version", ">&-", 0),
        ("--help", ">&- 2>&-", 0),
        ("nonsense", "2>&-", 2),
        ("dlq triage", "<&-", 2),
        ("health http://127.0.0.1:1", "<&- >&- 2>&-", 1),
        ("top --once http://127.0.0.1:1", ">&- 2>&-", 1),
        ("submit --from {jobs} --dry-run", "<&- >&- 2>&-", 0),
        ("emulators --env", "<&- >&-", 0),
    ],
)
def test_streams_that_the_caller_has_closed_change_nothing(
    words: str, closed: str, code: int, places: Mapping[str, Path], tmp_path: Path
) -> None:
    line = f"{shlex.quote(sys.executable)} -m worker {words.format(**places)} {closed}"

    done = subprocess.run(
        ["/bin/sh", "-c", line],
        env=surroundings(tmp_path, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code, done
    assert "Traceback" not in done.stdout + done.stderr


def test_a_file_is_not_taken_for_a_closed_stream(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("")
    line = f"{shlex.quote(sys.executable)} -m worker costs --file events.jsonl --html page.html <&- >&- 2>&-"

    done = subprocess.run(
        ["/bin/sh", "-c", line], env=surroundings(tmp_path, PYTHONPATH=str(ROOT)), cwd=tmp_path, check=False
    )

    page = (tmp_path / "page.html").read_text("utf-8")
    assert (done.returncode, page[:15], page[-8:]) == (0, "<!doctype html>", "</html>\n")


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", [*ROWS, "dlq", ""])
def test_help_fits_its_terminal(name: str, columns: int, tmp_path: Path) -> None:
    for option in ("--help", "-h"):
        done = in_process(*name.split(), option, environment=surroundings(tmp_path, COLUMNS=str(columns)))

        assert done.exit_code == 0
        assert max(map(len, done.output.splitlines())) <= columns
        assert "Usage: klipstream-worker" in told(done) or "Usage: root" in told(done)


@pytest.mark.parametrize(
    ("words", "violations"),
    [
        ("gs://some-bucket/o.mp3 --video-id 'a b'", ["video_id:"]),
        ("gs://b/o.mp3", ["audio_uri:"]),
        ("gs://some-bucket/o.mp3 --job-id 'a b'", ["job_id:"]),
    ],
)
def test_only_what_was_typed_is_refused_and_before_a_server_is_looked_for(
    words: str, violations: list[str], tmp_path: Path
) -> None:
    away = servers(f"127.0.0.1:{CLOSED_PORT}")

    done = in_process("submit", *shlex.split(words), environment=surroundings(tmp_path, COLUMNS="300", **away))

    assert done.exit_code == 2
    assert [name for name in ("job_id:", "video_id:", "audio_uri:") if name in told(done)] == violations


def test_what_asks_a_person_refuses_to_run_without_a_terminal(tmp_path: Path) -> None:
    done = in_process("dlq", "triage", environment=surroundings(tmp_path))

    assert done.exit_code == 2
    assert "terminal" in told(done)


def test_a_name_that_is_nearly_a_command_is_suggested(tmp_path: Path) -> None:
    for words in (["submitt"], ["dlq", "lst"]):
        done = in_process(*words, environment=surroundings(tmp_path))

        assert done.exit_code == 2
        assert "Did you mean" in told(done)


@pytest.mark.parametrize(
    ("words", "variable"),
    [
        ("costs", "STATE_BUCKET"),
        ("job job-1", "STATE_BUCKET"),
        ("submit {file} --bucket no-such-bucket", ""),
        ("submit gs://some-bucket/audio.mp3", "JOBS_TOPIC"),
        ("watch", "COMPLETION_TOPIC"),
        ("validate gs://some-bucket/audio.mp3", "COMPLETION_TOPIC"),
        ("dlq list", "DEAD_LETTER_SUBSCRIPTION"),
        ("dlq show 0123abcd", "DEAD_LETTER_SUBSCRIPTION"),
        ("dlq replay", "DEAD_LETTER_SUBSCRIPTION"),
        ("dlq drop --export {folder}/dropped.jsonl", "DEAD_LETTER_SUBSCRIPTION"),
    ],
)
def test_a_bucket_topic_or_subscription_that_does_not_exist_is_named(
    words: str, variable: str, cloud: Cloud, places: Mapping[str, Path], tmp_path: Path
) -> None:
    wrong = {variable: "no-such-bucket"} if variable else {}
    environment = {**surroundings(tmp_path, COLUMNS="400"), **cloud.environment, **wrong}

    done = in_process(*shlex.split(words.format(**places)), environment=environment)

    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no-such-bucket" in told(done)


@pytest.mark.parametrize(
    ("command", "line", "code"),
    [
        ("page --port 0 --no-browser", "page http", 0),
        ("emulators --root {folder} --pubsub-port 0 --storage-port 0", "# serving", 0),
        ("watch", " failed ", 0),
        ("submit gs://local-audio/audio.mp3 --wait", "published", 130),
    ],
)
def test_ctrl_c_in_the_middle_leaves_nothing_behind(
    command: str, line: str, code: int, cloud: Cloud, tmp_path: Path
) -> None:
    environment = {**surroundings(tmp_path), **cloud.environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    words = shlex.split(command.format(folder=tmp_path / "served"))
    with mock.patch.dict(os.environ, cloud.environment), subscriber_client(None) as reader:
        before = subscriptions(reader, cloud)
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, *words], env=environment, stdout=-1, stderr=-1, text=True
        )
        if command == "watch":
            wait_until(lambda: subscriptions(reader, cloud) - before)
            publish_an_event(cloud)
        assert process.stdout is not None
        assert any(line in printed for printed in process.stdout)

        process.send_signal(signal.SIGINT)
        _, problems = process.communicate(timeout=60)

        assert process.returncode == code, problems
        assert "Traceback" not in problems
        assert subscriptions(reader, cloud) == before


def test_a_reader_that_goes_in_the_middle_ends_watch_and_its_subscription(cloud: Cloud, tmp_path: Path) -> None:
    environment = {**surroundings(tmp_path), **cloud.environment, "PYTHONPATH": str(ROOT)}
    with mock.patch.dict(os.environ, cloud.environment), subscriber_client(None) as reader:
        before = subscriptions(reader, cloud)
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "watch", "--json"], env=environment, stdout=-1, stderr=-1, text=True
        )
        assert process.stdout is not None
        process.stdout.close()
        wait_until(lambda: subscriptions(reader, cloud) - before)

        publish_an_event(cloud)

        assert process.stderr is not None
        with process.stderr as problems:
            assert (problems.read(), process.wait(60)) == ("", 141)
        assert subscriptions(reader, cloud) == before


INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test's own parent may ignore it
from worker.__main__ import main
main()
"""


def subscriptions(reader: SubscriberClient, cloud: Cloud) -> set[str]:
    return {each.name for each in reader.list_subscriptions(project=f"projects/{cloud.project}")}


def publish_an_event(cloud: Cloud) -> None:
    with publisher_client(None) as publisher:
        data = failed_event().model_dump_json().encode()
        publisher.publish(f"projects/{cloud.project}/topics/{COMPLETION_TOPIC}", data).result(timeout=60)
