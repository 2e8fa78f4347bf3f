import pytest

from worker.embedded.pubsub.filters import compile_filter
from worker.embedded.pubsub.refusal import Refused

MESSAGE = {"status": "failed", "event_type": "transcription.failed", "iana.org/tag": "en", "empty": "", "2nd": "b"}


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "attributes:status",
        "attributes:empty",
        'attributes.status = "failed"',
        'attributes.status="failed"',
        'attributes.status != "completed"',
        'attributes.absent != "completed"',
        'attributes."iana.org/tag" = "en"',
        'attributes.2nd = "b"',
        "NOT attributes:absent",
        'attributes:status AND NOT attributes.status = "completed"',
        '(attributes:status AND attributes:empty)AND(NOT attributes.status = "x")',
        "NOT (attributes:status AND attributes:missing)",
        r'NOT attributes.status = "a \"quoted\" word"',
    ],
)
def test_an_expression_that_holds_matches(expression: str) -> None:
    assert compile_filter(expression)(MESSAGE)


@pytest.mark.parametrize(
    "expression",
    [
        "attributes:absent",
        'attributes.status = "Failed"',
        'attributes.status != "failed"',
        'attributes.absent = ""',
        "NOT attributes:status",
        "attributes:status AND attributes:absent",
        "NOT (attributes:empty AND attributes:status)",
    ],
)
def test_an_expression_that_does_not_hold_does_not_match(expression: str) -> None:
    assert not compile_filter(expression)(MESSAGE)


@pytest.mark.parametrize(
    "expression",
    [
        "status",
        'status = "failed"',
        "attributes",
        "attributes.status",
        "attributes.status = failed",
        'attributes.status == "failed"',
        'attributes.status = "failed',
        'attributes."status = "failed"',
        'attributes.= = "failed"',
        "(attributes:status",
        "attributes:status)",
        "attributes:status attributes:empty",
        "attributes:status and attributes:empty",
        "attributes:status AND",
        "attributes:a OR attributes:b",
        'hasPrefix(attributes.status, "f")',
        "NOTattributes:absent",
        "attributes:status & attributes:empty",
        "attributes:" + 245 * "k" + "~",
    ],
)
def test_an_expression_outside_the_language_is_refused(expression: str) -> None:
    with pytest.raises(Refused):
        compile_filter(expression)
