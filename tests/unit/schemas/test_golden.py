"""Messages of version 1 stay readable: files are added to tests/golden/v1, never changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.dead_letter import encode_dead_letter, parse_dead_letter
from schemas.events import encode, event_attributes, parse_event
from schemas.job import JobRejected, encode_job, parse_job

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
NEWER_FIELDS = {"speaker_hints", "beam_size"}


def golden(kind: str) -> list[Any]:
    return [pytest.param(path.read_bytes(), id=path.stem) for path in sorted((GOLDEN / kind).glob("*.json"))]


def known(document: Any) -> Any:
    """The document as version 1 understands it: without nulls at the top, without a newer publisher's fields."""
    return {
        name: known(value) if name == "transcription_config" else value
        for name, value in document.items()
        if value is not None and name not in NEWER_FIELDS
    }


def assert_holds(whole: Any, part: Any) -> None:
    """Everything in `part` is in `whole`, which may have grown fields since."""
    if not isinstance(part, dict):
        assert whole == part
        return
    for name, value in part.items():
        assert_holds(whole[name], value)


@pytest.mark.parametrize("data", golden("jobs"))
def test_a_job_keeps_its_meaning(data: bytes) -> None:
    job, _ = parse_job(data)

    assert_holds(json.loads(encode_job(job)), known(json.loads(data)))


@pytest.mark.parametrize("data", golden("invalid_jobs"))
def test_what_was_no_job_still_is_none(data: bytes) -> None:
    case = json.loads(data)

    with pytest.raises(JobRejected) as caught:
        parse_job(case["message"].encode())

    found = caught.value.violations
    assert caught.value.code == case["code"]
    assert len(found) == len(case["violations"])
    assert all(map(str.startswith, found, case["violations"]))
    assert (caught.value.job.job_id, caught.value.job.video_id) == (case["job_id"], case["video_id"])


@pytest.mark.parametrize("data", golden("events"))
def test_an_event_keeps_its_meaning(data: bytes) -> None:
    event = parse_event(data)

    assert_holds(json.loads(encode(event)), json.loads(data))
    assert event_attributes(event)["event_type"] == json.loads(data)["event_type"]


@pytest.mark.parametrize("data", golden("dead_letters"))
def test_a_dead_letter_keeps_its_meaning(data: bytes) -> None:
    letter = parse_dead_letter(data)

    assert_holds(json.loads(encode_dead_letter(letter)), json.loads(data))
