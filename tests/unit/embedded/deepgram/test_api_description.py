"""The stand-in and our requests against Deepgram's own public description of its API.

`DEEPGRAM_OPENAPI` names the file `openapi.yml` of github.com/deepgram/deepgram-api-specs; without it this is skipped.
"""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker

from tests.support.services.deepgram import chatter, deepgram
from worker.adapters.memory.recogniser import words_in
from worker.embedded.deepgram.parameters import PARAMETERS
from worker.embedded.deepgram.transcript import listen_response

DESCRIPTION = os.environ.get("DEEPGRAM_OPENAPI")

pytestmark = pytest.mark.skipif(
    not DESCRIPTION, reason="DEEPGRAM_OPENAPI does not name Deepgram's public API description"
)


@pytest.fixture(scope="module")
def api() -> Any:
    return yaml.load(Path(DESCRIPTION or "").read_text("utf-8"), Loader=yaml.CSafeLoader)


@pytest.fixture(scope="module")
def parameters(api: Any) -> dict[str, Any]:
    described = api["paths"]["/v1/listen"]["post"]["parameters"]
    return {each["name"]: each["schema"] for each in described if each["in"] == "query"}


def validator(api: Any, schema: Any) -> Draft202012Validator:
    """For `schema` among the description's components.

    Their `oneOf` is read as `anyOf`: a known model name is both of "one of these names" and "any string".
    """
    text = json.dumps({**schema, "components": api["components"]}).replace('"oneOf"', '"anyOf"')
    return Draft202012Validator(json.loads(text), format_checker=FormatChecker())


def test_the_development_server_knows_exactly_the_parameters_of_the_api(parameters: dict[str, Any]) -> None:
    assert set(PARAMETERS) == set(parameters)


def test_flags_numbers_and_closed_sets_are_the_described_ones(api: Any, parameters: dict[str, Any]) -> None:
    for name, schema in parameters.items():
        described = api["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
        pattern = PARAMETERS[name].pattern
        assert (described.get("type") == "boolean") == (pattern == "true|false"), name
        assert (described.get("type") == "number") == (pattern == r"\d+(\.\d+)?"), name
        if "enum" in described:
            assert sorted(pattern.split("|")) == sorted(described["enum"]), name


async def test_every_parameter_that_we_send_is_described_and_of_the_right_type(
    api: Any, parameters: dict[str, Any]
) -> None:
    async with deepgram() as pair:
        await pair.recogniser.recognise(chatter(1), language="en", job_id="job")

    for name, value in pair.server.receipts[0].query:
        typed = value == "true" if re.fullmatch("true|false", value) else value
        assert list(validator(api, parameters[name]).iter_errors(typed)) == [], name


@pytest.mark.parametrize("seconds", [0.1, 20])
@pytest.mark.parametrize("query", [{}, {"model": "nova-3", "smart_format": "true", "paragraphs": "true"}])
def test_the_development_servers_answers_match_the_api_description(
    api: Any, query: dict[str, str], seconds: float
) -> None:
    answer = listen_response(
        list(words_in(chatter(seconds))),
        query=query,
        request_id="876add31-03d8-5106-abf3-93417c5047bb",
        created=datetime(2026, 11, 22, tzinfo=UTC),
        duration_seconds=seconds,
        body=b"audio",
    )

    faults = validator(api, {"$ref": "#/components/schemas/ListenV1Response"}).iter_errors(answer)

    assert [fault.message for fault in faults] == []
