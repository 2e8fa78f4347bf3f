"""Values of options and arguments that are nearly right: each is refused by name, before anything is done."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import Result

from tests.support.workers.console import run
from worker.commands.health_port import address_of, own_url

AWAY = {
    "PUBSUB_EMULATOR_HOST": "127.0.0.1:1",
    "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1",
    "STATE_BUCKET": "some-state",
    "COLUMNS": "300",
}
JOB = "submit gs://some-bucket/a.mp3"


def refused(line: str, **environment: str) -> str:
    """Run a command line; return its error as one line."""
    done: Result = run(*line.split(" "), environment={**AWAY, **environment})
    assert done.exit_code == 2, (line, done.output)
    assert "Traceback" not in done.output
    assert done.stdout == ""
    return " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e999", "five", ""])
@pytest.mark.parametrize(
    "line",
    [
        f"{JOB} --wait --timeout",
        "watch --until-done --timeout",
        "validate gs://some-bucket/a.mp3 --timeout",
        "validate --bucket some-bucket --hours",
        "top --once --interval",
        "dlq list --older-than",
        "dlq list --newer-than",
        "dlq replay --rate",
        "dlq replay --limit",
        "dlq replay --max-replays",
        "dlq list --most",
        "validate --copies",
        "page --port",
    ],
)
def test_a_number_that_is_none_is_refused(line: str, value: str) -> None:
    assert line.rpartition(" ")[2] in refused(f"{line} {value}")


@pytest.mark.parametrize("value", ["65536", "-1", "1.5", "http"])
@pytest.mark.parametrize("line", ["page --port", "emulators --pubsub-port", "emulators --storage-port", "dev --port"])
def test_a_port_that_is_none_is_refused(line: str, value: str) -> None:
    assert line.rpartition(" ")[2] in refused(f"{line} {value}")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("submit ", "AUDIO is empty"),
        (f"{JOB} --job-id ", "job_id:"),
        (f"{JOB} --video-id ", "video_id:"),
        (f"{JOB} --keyterm ", "--keyterm:"),
        ("watch --until-done ", ".journal: there is no such journal"),
        ("watch ", "FILE"),
        ("job ", "'': no job has such an id"),
        ("health ", "URL: must be http://host:port (got '')"),
        ("top --once ", "URL: must be http://host:port (got '')"),
        ("costs --since ", "--since"),
        ("canary --table ", "--table"),
        ("dlq replay --set ", "--set"),
    ],
)
def test_an_empty_text_as_from_an_unset_variable_is_not_taken_for_a_missing_one(line: str, named: str) -> None:
    assert named in refused(line)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (f"{JOB} --dry-run", "--dry-run: is for many jobs"),
        (f"{JOB} --again", "--again: is for many jobs"),
        (f"{JOB} --rate 5/s", "--rate: is for many jobs"),
        (f"{JOB} --journal x", "--journal: is for many jobs"),
        (f"{JOB} --video-id-from path", "--video-id-from: is for many jobs"),
        ("submit gs://some-bucket/* --job-id a", "--job-id: is for one job"),
        ("submit gs://some-bucket/* --video-id ", "--video-id: is for one job"),
        ("submit gs://some-bucket/* --dry-run --wait", "--wait: has nothing to wait for"),
        ("dlq list --older-than 5 --newer-than 1", "--newer-than: leaves nothing"),
        ("canary --by group --old parakeet --file {events}", "must be two of them (got parakeet for both)"),
        ("transcribe {events} --embed-audio", "--embed-audio: goes with --output html"),
        ("emulators --env --storage-port 0", "--env: needs the ports"),
    ],
)
def test_options_that_contradict_each_other_are_refused(line: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("")

    assert named in refused(line.format(events=tmp_path / "events.jsonl"))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://10.0.0.5:8080/", "http://10.0.0.5:8080"),
        ("10.0.0.5:8080", "http://10.0.0.5:8080"),
        ("localhost:8080/health", "http://localhost:8080"),
        ("http://[::1]:8080/live/", "http://[::1]:8080"),
        ("https://worker.example/w1", "https://worker.example/w1"),
    ],
)
def test_an_address_may_lack_its_scheme_or_have_a_page(url: str, address: str) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url", ["http://", "ftp://h:1", "http://h:x", "http://h:70000", "http://h:0", "http://[::1", ":8080"]
)
def test_an_address_that_is_none_is_named(url: str) -> None:
    for line in (f"health {url}", f"top --once {url}", f"page --no-browser --port 0 {url}"):
        assert f"URL: must be http://host:port (got {url!r})" in refused(line)


@pytest.mark.parametrize(
    ("host", "address"),
    [("::", "http://[::1]:9"), ("[::1]", "http://[::1]:9"), ("0.0.0.0", "http://127.0.0.1:9")],  # noqa: S104
)
def test_the_own_address_follows_the_settings(host: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEALTH_PORT", "9")
    monkeypatch.setenv("HEALTH_HOST", host)

    assert own_url() == address


@pytest.mark.parametrize("port", ["abc", "70000", "-1", "'8080'", "80.5"])
def test_a_health_port_that_is_none_is_named(port: str) -> None:
    for line in ("health", "top --once"):
        assert "HEALTH_PORT: must be a port number" in refused(line, HEALTH_PORT=port)


@pytest.mark.parametrize(
    "line", ["transcribe {file}", "accuracy --manifest {file}", "validate gs://some-bucket/a.mp3", "dlq list"]
)
@pytest.mark.parametrize("folder", ["nowhere", "jobs.csv"])
def test_a_folder_for_temporary_files_that_is_none_is_named(line: str, folder: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("")
    wrong = str(tmp_path / folder)

    assert f"TEMP_DIR: must be a folder that can be written to (got {wrong!r})" in refused(
        line.format(file=tmp_path / "jobs.csv"), TEMP_DIR=wrong
    )


@pytest.mark.parametrize(
    "bucket", ["gs://some-bucket", "'some-bucket'", "some-bucket/folder", "Some-Bucket", "some bucket"]
)
def test_a_bucket_that_is_none_is_named_before_anything_is_uploaded(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"x")

    for line in (f"submit {tmp_path / 'a.mp3'}", "validate --hours 1"):
        assert "--bucket: must be the name of a bucket alone" in refused(line, AUDIO_BUCKET=bucket)


def test_ids_are_read_before_a_file_is_uploaded(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"x")

    assert "job_id:" in refused(f"submit {tmp_path / 'a.mp3'} --job-id a/b", AUDIO_BUCKET="some-bucket")


@pytest.mark.parametrize("words", ["job {long}", "submit gs://some-bucket/a --job-id {long}", "health http://{long}:1"])
def test_a_very_long_id_is_not_repeated_whole(words: str) -> None:
    done = run(*words.format(long="x" * 100_000).split(), environment=AWAY)

    assert done.exit_code in {1, 2}
    assert len(done.output) < 2_000


class _OtherServer(BaseHTTPRequestHandler):
    """A server that is no worker: the path names the status and the body."""

    def do_GET(self) -> None:
        _, status, body, *_ = self.path.split("/") if self.path[1:4].isdecimal() else ("", "500", "none")
        self.send_response(int(status))
        self.end_headers()
        self.wfile.write({"html": b"<html>", "json": b'{"status": "ok"}', "deep": b"[" * 200_000, "none": b""}[body])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _OtherServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("body", ["html", "json", "deep", "none"])
@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_what_is_no_worker_is_not_healthy(status: int, body: str, other: str) -> None:
    url = f"{other}/{status}/{body}"
    for options in ([], ["--json"], ["--live"]):
        done = run("health", url, *options, environment={})

        assert (done.exit_code, done.stdout) == (1, "")
        assert f"does not answer as a worker does (HTTP {status})" in done.stderr
    seen = run("top", "--once", "--json", url, environment={})
    assert seen.exit_code == 1
    assert json.loads(seen.stdout)["workers"][0]["health"] is None


@pytest.mark.parametrize("line", ["job some-job", "costs"])
def test_a_retry_is_logged_beside_the_json(line: str, other: str) -> None:
    done = run(*line.split(), "--json", environment={**AWAY, "STORAGE_EMULATOR_HOST": other})

    assert (done.exit_code, done.stdout) == (1, "")
    assert "asked again" in done.stderr or "retry" in done.stderr
