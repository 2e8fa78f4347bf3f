"""`submit --wait` after a failure."""

from dataclasses import dataclass

import pytest

from tests.support.hostile_text import HOSTILE, is_visible
from tests.support.jobs.messages import failed_event
from worker.commands.submit import advise


@dataclass(frozen=True)
class Case:
    remedy: str
    letter: str


def printed(case: Case, capsys: pytest.CaptureFixture[str]) -> list[str]:
    event = failed_event()
    error = event.error.model_copy(update={"suggested_action": case.remedy, "support_reference": case.letter})
    advise(event.model_copy(update={"error": error}))
    return capsys.readouterr().out.splitlines()


def test_a_failure_is_followed_by_what_to_do_and_its_dead_letter(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(Case("upload the audio", "51c6e9a0" * 4), capsys)

    assert lines == ["what to do   upload the audio", "dead letter  klipstream-worker dlq show 51c6e9a0"]


@pytest.mark.parametrize("text", HOSTILE)
def test_advice_is_text(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(map(is_visible, printed(Case(text, text), capsys)))
