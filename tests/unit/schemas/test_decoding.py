import pytest

from schemas.decoding import load_object


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
