import json

import pytest

from schemas.job import JobRejected, encode_job, parse_job
from tests.support.jobs.messages import job_document


def keyterms(terms: object) -> tuple[str, ...]:
    return parse_job(json.dumps(job_document(keyterms=terms)).encode())[0].keyterms


@pytest.mark.parametrize(
    ("terms", "kept"),
    [
        ([], ()),
        (None, ()),
        (["KlipStream"], ("KlipStream",)),
        (["x" * 60], ("x" * 60,)),
        (["e\u0301" * 60], ("\u00e9" * 60,)),
        (["Cafe\u0301", "caf\u00e9"], ("Caf\u00e9",)),
        (["a b c d e f"], ("a b c d e f",)),
        (["  Zoë   Ångström "], ("Zoë Ångström",)),
        (["b", "A", "c"], ("A", "b", "c")),
        (["KlipStream", "Zed", "KlipStream"], ("KlipStream", "Zed")),
        (["zed", "ZED", "Zed"], ("zed",)),
        (["a|b", ".*", "(?P<x>", "C++", "[a-z]+$"], ("(?P<x>", ".*", "[a-z]+$", "a|b", "C++")),
        (["a"] * 100, ("a",)),
        (["名前", "🎮"], ("名前", "🎮")),
    ],
)
def test_terms_are_taken_literally_sorted_and_each_once(terms: object, kept: tuple[str, ...]) -> None:
    assert keyterms(terms) == kept


@pytest.mark.parametrize(
    ("terms", "violation"),
    [
        ([""], "keyterms.0: must not be empty (got '')"),
        (["ok", "   "], "keyterms.1: must not be empty (got '   ')"),
        (["x" * 61], "keyterms.0: must have at most 60 characters, not 61 (got 'xxx"),
        (["a b c d e f g"], "keyterms.0: must have at most 6 words, not 7 (got 'a b c d e f g')"),
        (["abcdefghij " * 7], "keyterms.0: must have at most 60 characters, not 76 and at most 6 words, not 7"),
        (["a\nb"], "keyterms.0: must not contain control characters (got 'a\\nb')"),
        (["a\tb"], "keyterms.0: must not contain control characters"),
        (["a\x00"], "keyterms.0: must not contain control characters"),
        (["\x1b[31mred"], "keyterms.0: must not contain control characters"),
        (["a\u2028b"], "keyterms.0: must not contain control characters"),
        ([7], "keyterms.0: must be a string (got 7)"),
        ([None], "keyterms.0: must be a string (got null)"),
        ([["a"]], "keyterms.0: must be a string (got ['a'])"),
        ([True], "keyterms.0: must be a string (got true)"),
        ("KlipStream", "keyterms: must be a list (got 'KlipStream')"),
        ({"a": 1}, "keyterms: must be a list"),
        (7, "keyterms: must be a list (got 7)"),
        (["a"] * 101, "keyterms: must have at most 100 items, not 101"),
    ],
)
def test_what_is_no_keyterm_is_a_violation_that_names_the_item(terms: object, violation: str) -> None:
    with pytest.raises(JobRejected) as caught:
        keyterms(terms)

    (found,) = caught.value.violations
    assert found.startswith(violation)


def test_each_bad_item_is_a_violation_of_its_own() -> None:
    with pytest.raises(JobRejected) as caught:
        keyterms(["", "fine", 7])

    assert [found.split(":")[0] for found in caught.value.violations] == ["keyterms.0", "keyterms.2"]


def test_an_encoded_job_has_its_keyterms() -> None:
    job, _ = parse_job(json.dumps(job_document(keyterms=["b", "a"])).encode())

    assert json.loads(encode_job(job))["keyterms"] == ["a", "b"]
