import json
from functools import cache

from hypothesis import given, settings
from jsonschema import Draft202012Validator

from schemas.events import Event, encode
from schemas.generate import FOLDER, schema_files
from schemas.job import TranscriptionJob, encode_job
from tests.support.jobs.messages import events, jobs


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema_files()[f"{name}.schema.json"]))


def test_the_committed_json_schemas_are_those_of_the_models() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}

    assert committed == dict(schema_files()), "run: python -m schemas.generate"


@settings(derandomize=True, max_examples=25)
@given(jobs)
def test_any_encoded_job_satisfies_its_json_schema(job: TranscriptionJob) -> None:
    validator("transcription_job").validate(json.loads(encode_job(job)))


@settings(derandomize=True, max_examples=25)
@given(events)
def test_any_encoded_event_satisfies_its_json_schema(event: Event) -> None:
    validator(event.event_type.value.replace(".", "_")).validate(json.loads(encode(event)))
