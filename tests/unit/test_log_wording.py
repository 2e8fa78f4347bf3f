import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.telemetry.logs import SHOWN
from worker.telemetry.sentences import MOST_CHARACTERS, SENTENCES, sentence

WORKER = Path(__file__).parents[2] / "worker"
METHODS = {"debug", "info", "warning", "error", "exception"}
COMPUTED = {
    "slower": ("audio.several_threads", "audio.each_frame"),
    "f'{service}.retry'": ("gcs.retry", "pubsub.retry"),
}
"""Names that are no literal where the event is logged."""
BOUND = {"job_id", "video_id", "message_id", "attempt", "deliveries"}
SPLAT = {
    "worker.usage": {"up_seconds", "idle_percent", "instance_usd"},
    "job.cost": {"usd", "savings_percent"},
    "job.done": {"method", "seconds", "audio_seconds", "speed", "words", "usd"},
    "job.failed": {"code", "reason", "suggested_action"},
    "chunk.gaps": {"found", "mended", "left"},
    "chunk.step": {"failed", "reason"},
}
"""Fields that are passed as `**fields`."""


def logged() -> Iterator[tuple[str, set[str]]]:
    """Every event that the worker's code logs, with the names of its fields, at each place."""
    for path in WORKER.rglob("*.py"):
        text = path.read_text()
        if "structlog.get_logger(" not in text:
            continue
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and call.args and _is_logging(call.func):
                fields = {keyword.arg for keyword in call.keywords if keyword.arg} - {"exc_info"}
                name = call.args[0]
                named = (name.value,) if isinstance(name, ast.Constant) else COMPUTED[ast.unparse(name)]
                yield from ((str(event), fields) for event in named)


def _is_logging(called: ast.expr) -> bool:
    if isinstance(called, ast.Name):
        return called.id == "say"
    return (
        isinstance(called, ast.Attribute)
        and called.attr in METHODS
        and ast.unparse(called.value).removeprefix("_") in {"log", "told", "structlog.get_logger()"}
    )


EVENTS = [(name, fields) for name, fields in logged() if "." in name]


def fields_of(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_every_event_has_a_sentence_and_every_sentence_an_event() -> None:
    assert {name for name, _ in EVENTS} - set(SENTENCES) == set(), "write them in worker/telemetry/sentences.py"
    assert set(SENTENCES) - {name for name, _ in EVENTS} == set(), "nothing logs them"


@pytest.mark.parametrize(("name", "fields"), EVENTS, ids=[name for name, _ in EVENTS])
def test_a_sentence_takes_only_fields_that_its_event_has(name: str, fields: set[str]) -> None:
    templates = SENTENCES.get(name, "")
    known = fields | BOUND | SPLAT.get(name, set())

    assert any(fields_of(each) <= known for each in ([templates] if isinstance(templates, str) else templates))


def test_rows_of_a_console_are_events_that_the_worker_logs() -> None:
    assert set(SENTENCES) >= SHOWN


def test_a_sentence_begins_with_the_job_where_there_is_one() -> None:
    event = {"event": "claim.taken_over", "job_id": "vod-1", "taken_from": "w-2", "stood_still_seconds": 31.4}

    assert sentence(event) == "vod-1: Taken over from w-2, whose claim had no heartbeat for 31 s"


def test_the_first_form_whose_fields_are_there_is_taken() -> None:
    assert sentence({"event": "delivery.nacked", "count": 2, "error": None}) == "Gave 2 messages back to the queue"


@pytest.mark.parametrize(
    ("count", "told"), [(1, "Extended 1 lease"), (2, "Extended 2 leases"), (1200, "Extended 1,200 leases")]
)
def test_a_number_agrees_with_its_noun(count: int, told: str) -> None:
    assert sentence({"event": "lease.extended", "leases": count}) == told


def test_an_empty_field_counts_as_missing() -> None:
    assert sentence({"event": "health.changed", "status": "healthy", "reason": ""}) == "The worker is healthy"


@pytest.mark.parametrize("fields", [{}, {"chunk": 1}, {"leases": None}])
def test_an_event_without_its_fields_or_without_a_sentence_keeps_its_name(fields: dict[str, object]) -> None:
    assert sentence({"event": "lease.extended", **fields}) == "lease.extended"
    assert sentence({"event": "of.a.test", **fields}) == "of.a.test"


def test_a_sentence_is_one_visible_line_of_bounded_length() -> None:
    told = sentence({"event": "delivery.failed", "reason": "a\x1b[2J\n" + "x" * 10_000})

    assert told.startswith("The attempt failed: a\\x1b[2J\\nxxx")
    assert len(told) < 2 * MOST_CHARACTERS
