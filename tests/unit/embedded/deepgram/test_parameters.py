import pytest

from worker.embedded.deepgram.parameters import violations


@pytest.mark.parametrize(
    "query",
    [
        (),
        (("model", "nova-3"), ("language", "en-US"), ("smart_format", "true"), ("utt_split", "0.8")),
        (("tag", "one"), ("tag", "two"), ("summarize", "v2")),
        (("model", "nova-3"), ("keyterm", "KlipStream")),
        (("model", "nova-2"), ("keywords", "KlipStream:2")),
    ],
)
def test_a_right_query_has_nothing_wrong(query: tuple[tuple[str, str], ...]) -> None:
    assert violations(query) == ()


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ((("smart-format", "true"),), "unknown parameter: smart-format"),
        ((("punctuate", "True"),), "punctuate may not be 'True'"),
        ((("utt_split", "-1"),), "utt_split may not be '-1'"),
        ((("language", ""),), "language may not be ''"),
        ((("callback_method", "GET"),), "callback_method may not be 'GET'"),
        ((("model", "a"), ("model", "b")), "model occurs more than once"),
        ((("model", "nova-3"), ("keywords", "x")), "keywords are not supported for nova-3: use keyterm"),
        ((("model", "nova-2"), ("keyterm", "x")), "keyterm is supported for nova-3 only"),
    ],
)
def test_each_fault_is_named(query: tuple[tuple[str, str], ...], fault: str) -> None:
    assert violations(query) == (fault,)
