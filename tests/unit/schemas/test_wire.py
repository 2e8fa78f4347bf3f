import time

import pytest
from pydantic import BaseModel, ValidationError

from schemas.wire import (
    MAX_VALUE_CHARACTERS,
    MAX_VIOLATION_CHARACTERS,
    MAX_VIOLATIONS,
    load_object,
    shorten,
    violations,
)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b'{"a": "\xff"}', "is not valid JSON"),
        (b"\xef\xbb\xbf{}", "is not valid JSON"),
        ("{}".encode("utf-16"), "is not valid JSON"),
        (b'{"a": NaN}', "is not valid JSON"),
        (b'{"a": -Infinity}', "is not valid JSON"),
        (b'{"a": "\\ud800"}', "is not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON: recursion limit exceeded"),
        (b'{"a": 1e999}', "the number '1e999' is too large"),
        (b'{"a": 1} x', "is not valid JSON"),
        (b'{"a": {"b": 1, "b": 2}}', "the key 'b' stands twice in one object"),
        (b"null", r"must be a JSON object \(got null\)"),
        (b'"text"', r"must be a JSON object \(got 'text'\)"),
    ],
)
def test_what_is_no_json_object_is_refused_in_words(data: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_object(data)


def test_an_object_keeps_its_values() -> None:
    document = load_object('{"a": [1, 2.5, null, true, "ä👋\\ud83d\\udc4b"], "b": {}}'.encode())

    assert document == {"a": [1, 2.5, None, True, "ä👋👋"], "b": {}}


def test_a_doubled_key_is_found_in_one_pass_over_a_million_bytes() -> None:
    members = [f'"k{number:06d}":1' for number in range(80_000)]

    began = time.process_time()
    with pytest.raises(ValueError, match="the key 'k079999' stands twice"):
        load_object(("{" + ",".join([*members, members[-1]]) + "}").encode())

    assert time.process_time() - began < 5  # a pass for each key takes minutes


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        ["x" * 1_000] * 1_000,
        {f"{number}": "x" * 1_000 for number in range(100_000)},
        {"x" * 1_000_000: 1},
        [[[[[["x" * 50] * 6] * 6] * 6] * 6] * 6],
        10**4_000,
        "\x1b[2J" * 1_000,
    ],
)
def test_a_value_is_quoted_in_few_characters_whatever_it_is(value: object) -> None:
    assert 0 < len(shorten(value)) <= MAX_VALUE_CHARACTERS
    assert "\x1b" not in shorten(value)


class Sample(BaseModel):
    numbers: list[int]
    names: dict[str, int] = {}


def test_violations_are_bounded_in_number_and_length() -> None:
    with pytest.raises(ValidationError) as many:
        Sample.model_validate({"numbers": ["x"] * 1_000})
    with pytest.raises(ValidationError) as too_many:
        Sample.model_validate({"numbers": ["x"] * 100_000})
    with pytest.raises(ValidationError) as long:
        Sample.model_validate({"numbers": [], "names": {"x" * 100_000: "y" * 100_000}})

    assert len(violations(many.value)) == MAX_VIOLATIONS + 1
    assert violations(too_many.value) == ("message: 100000 values are wrong",)
    assert all(len(violation) <= MAX_VIOLATION_CHARACTERS for violation in violations(long.value))
