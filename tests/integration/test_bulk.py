"""Thousands of jobs on the development servers: submitted, killed, submitted again, awaited."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.wait import wait_until
from tests.support.workers.cloud import Cloud
from tests.support.workers.console import command, run
from worker.adapters.gcs import store
from worker.client.connections import subscriber_client
from worker.embedded.local_cloud import JOBS_SUBSCRIPTION

JOBS = 5_000
BEGUN_BYTES = 100_000
"""Size of the journal after some batches."""


def published(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Take every message off the jobs topic; return how many each job id has."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", cloud.local.pubsub_target)
    path = f"projects/{cloud.project}/subscriptions/{JOBS_SUBSCRIPTION}"
    found = Counter[str]()
    with subscriber_client(None) as client:
        while len(found) < JOBS:
            messages = client.pull(request={"subscription": path, "max_messages": 1_000}, timeout=30).received_messages
            found.update(json.loads(each.message.data)["job_id"] for each in messages)
            client.acknowledge(request={"subscription": path, "ack_ids": [each.ack_id for each in messages]})
    return found


def bulk_file(tmp_path: Path) -> Path:
    file = tmp_path / "jobs.csv"
    lines = [f"{number},gs://local-audio/{number}.mp3,srt\r\n" for number in range(JOBS)]
    file.write_text("video_id,audio_uri,outputs\r\n" + "".join(lines))
    return file


def test_a_file_that_is_killed_half_way_and_submitted_again_makes_every_job_once(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = bulk_file(tmp_path)
    words = [sys.executable, "-m", "worker", "submit", "--from", str(file), "--rate", "4000/s"]
    first = subprocess.Popen(words, env={**os.environ, **cloud.environment}, stdout=subprocess.DEVNULL)
    log = tmp_path / "jobs.csv.journal-wal"
    wait_until(lambda: log.exists() and log.stat().st_size > BEGUN_BYTES)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL

    again = run("submit", "--from", str(file), "--json", environment=cloud.environment)
    third = run("submit", "--from", str(file), environment=cloud.environment)

    summary = json.loads(again.stdout.splitlines()[-1])["summary"]
    counted = published(cloud, monkeypatch)
    assert (again.exit_code, summary["bad"]) == (0, 0)
    assert summary["submitted"] < JOBS, "the first command was killed before its first batch"
    assert summary["submitted"] + summary["known"] == JOBS
    assert len(counted) == JOBS
    assert sum(count - 1 for count in counted.values()) <= 500, "more than the batch that the kill cut off"
    assert f"0 submitted, {JOBS:,} already there, 0 bad" in third.stdout


async def test_audio_of_a_folder_is_submitted_and_awaited_with_its_failures(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAGE_OBJECTS", 2)  # so that the folder has several pages
    environment = {**cloud.environment, "COLUMNS": "80"}
    journal = ("--journal", str(tmp_path / "vods.journal"))
    audio = riff_wav(speech(20).astype("<i2").tobytes())
    async with cloud.pipeline() as pipeline:
        for name in ("vods/1/a.wav", "vods/2/a.wav", "vods/2/notes.txt", "other/b.wav"):
            await pipeline.upload(audio, name)
        await pipeline.upload(b"no audio", "vods/3/a.wav")
    by_name = await command("submit", "gs://local-audio/vods/", *journal, "--dry-run", environment=environment)
    nothing = await command("submit", "gs://local-audio/empty/", *journal, environment=environment)
    above = await command("submit", "gs://local-audio/*", *journal, environment=environment)

    with cloud.process(PARAKEET_MODEL_NAME="null") as worker:
        worker.wait_ready()
        words = ("submit", "gs://local-audio/vods/**", *journal, "--video-id-from", "folder")
        done = await command(*words, "--wait", "--timeout", "60", environment=environment)
        later = await command("watch", "--until-done", journal[1], "--json", environment=environment)
        begun = await command("watch", "--until-done", environment=environment)

    assert by_name.exit_code == 1
    assert "1 valid, 0 already there, 2 bad" in by_name.stdout
    assert "gs://local-audio/vods/2/a.wav: video_id: must be given, since the name makes it 'a'" in by_name.stderr
    assert nothing.exit_code == 1
    assert "no audio is there; 0 other objects match" in nothing.stderr
    assert "gs://local-audio/ takes everything below it" in " ".join(above.stderr.split())
    assert "3 submitted, 0 already there, 0 bad" in done.stdout
    assert "left out, since they are no audio: 1 .txt" in done.stderr
    assert done.exit_code == 1
    assert "2 completed, 1 failed (1 AUDIO_UNDECODABLE), 0 not ended" in done.stdout
    assert json.loads(later.stdout)["summary"] == {
        "completed": 2,
        "failed": 1,
        "open": 0,
        "codes": {"AUDIO_UNDECODABLE": 1},
    }
    assert later.exit_code == 1
    assert (begun.exit_code, begun.stdout) == (0, "0 completed, 0 failed, 0 not ended\n")


@pytest.mark.parametrize("stops_at", ["submit", "watch"])
def test_ctrl_c_ends_a_bulk_command_with_its_numbers(cloud: Cloud, tmp_path: Path, stops_at: str) -> None:
    file = bulk_file(tmp_path)
    words = ["submit", "--from", str(file), "--rate", "100/s"]
    if stops_at == "watch":
        environment = {**os.environ, **cloud.environment}
        subprocess.run([sys.executable, "-m", "worker", *words[:-2]], env=environment, check=True)
        words = ["watch", "--until-done", str(file)]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", *words],
            env={**os.environ, **cloud.environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    log, output = tmp_path / "jobs.csv.journal-wal", tmp_path / "out"
    if stops_at == "submit":
        wait_until(lambda: log.exists() and log.stat().st_size > BEGUN_BYTES)
    else:
        wait_until(lambda: "waiting for 5,000 jobs" in output.read_text())

    process.send_signal(signal.SIGINT)

    assert process.wait(20) == 130
    told = output.read_text()
    assert "Traceback" not in told
    assert ("the same command again goes on from there" if stops_at == "submit" else "5,000 not ended") in told


def test_a_terminal_gets_a_bar_that_makes_room_for_a_bad_row(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "jobs.csv"
    rows = (f"gs://local-audio/{number}.mp3,{'doc' if number == 700 else 'srt'}\n" for number in range(1_500))
    file.write_text("audio_uri,outputs\n" + "".join(rows))
    terminal, its_end = pty.openpty()
    environment = {**os.environ, **cloud.environment, "COLUMNS": "80", "TERM": "xterm-256color"}

    words = [sys.executable, "-m", "worker", "submit", "--from", str(file)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=its_end, text=True) as process:
        os.close(its_end)
        shown = b""
        with suppress(OSError):  # a terminal without a process at its other end
            while part := os.read(terminal, 1 << 16):
                shown += part
        os.close(terminal)
        printed, _ = process.communicate()

    assert process.returncode == 1
    assert b"\x1b[2K\x1b[31mbad\x1b[0m row 702: outputs.0: must be 'srt' or 'vtt' (got 'doc')\r\n" in shown
    assert "1,499 submitted, 0 already there, 1 bad" in printed
