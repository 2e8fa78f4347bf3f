"""`klipstream-worker dev` as a newcomer meets it: one command, a file dropped on the page, a transcript to click on."""

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.support.wait import wait_until
from worker.embedded.samples import samples

START_SECONDS = 120.0
SAMPLE = samples()[-1].path

pytestmark = [pytest.mark.model, pytest.mark.timeout(400)]

DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0)), transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  document.querySelector("#drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""


@dataclass(frozen=True, kw_only=True)
class Terminal:
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    def printed(self, pattern: str) -> str:
        found = re.search(pattern, self.text)
        assert found is not None, self.text
        return found[1]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "worker", *words]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """The command in a terminal of its own, from its first line to Ctrl-C."""
    folder = tmp_path_factory.mktemp("dev")
    words = ("--root", str(folder / "dev"), "--port", "0", "--pubsub-port", "0", "--storage-port", "0", "--no-browser")
    with (folder / "terminal.log").open("wb") as output:
        process = subprocess.Popen(command("dev", *words), stdout=output, stderr=subprocess.STDOUT)
    terminal = Terminal(process=process, log=folder / "terminal.log")
    try:
        wait_until(lambda: "worker ready" in terminal.text or process.poll() is not None, START_SECONDS)
        yield terminal
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert terminal.text.rstrip().endswith("stopped")
        assert [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        process.kill()


def test_a_dropped_file_becomes_a_transcript_whose_words_can_be_played(dev: Terminal, visit: Visit) -> None:
    visit.page.goto(dev.printed(r"page (http\S+)"))
    visit.page.evaluate(DROP, [SAMPLE.name, base64.b64encode(SAMPLE.read_bytes()).decode()])
    visit.page.locator("#upload a").click()
    words = visit.page.locator("#words [data-t]")
    expect(words.first).to_be_visible(timeout=120_000)

    words.nth(20).click()

    expect(words.nth(20)).to_have_class(re.compile("now"))
    assert visit.page.evaluate("document.querySelector('audio').currentTime") > 0
    assert "Content Security Policy" not in " ".join(visit.problems)


def test_a_file_submitted_from_another_terminal_appears_on_the_page(dev: Terminal, visit: Visit) -> None:
    exported = dev.printed(r'eval "\$\(klipstream-worker (emulators [^)]+)\)"').split()
    lines = subprocess.run(command(*exported), capture_output=True, text=True, check=True).stdout.splitlines()
    environment = dict(line.removeprefix("export ").split("=", 1) for line in lines)

    submitted = subprocess.run(
        command("submit", str(SAMPLE), "--video-id", "from-afar", "--wait"),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    visit.page.goto(dev.printed(r"page (http\S+)"))

    assert submitted.returncode == 0, submitted.stderr
    assert " completed " in submitted.stdout
    expect(visit.page.locator("#recent").get_by_role("link", name="from-afar")).to_be_visible()


def test_a_file_that_is_no_audio_shows_its_failure_and_what_to_do(dev: Terminal, visit: Visit) -> None:
    visit.page.goto(dev.printed(r"page (http\S+)"))
    visit.page.evaluate(DROP, ["notes.mp3", base64.b64encode(b"not audio" * 100).decode()])
    visit.page.locator("#upload a").click()

    expect(visit.page.get_by_text("Failed: AUDIO_UNDECODABLE.")).to_be_visible(timeout=60_000)
    expect(visit.page.locator(".notice code")).to_contain_text("klipstream-worker dlq replay")
