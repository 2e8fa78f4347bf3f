"""Subscription filters over attributes, compiled to predicates: a part of the service's language.

`attributes:k`, `attributes.k = "v"` and `attributes.k != "v"`, negated by NOT, joined by AND, in parentheses. A key
with other characters than letters, digits, `_` and `-` is quoted. A message without the attribute satisfies `!=`.
The service's OR and hasPrefix are refused.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from worker.embedded.pubsub.refusal import invalid

Filter: TypeAlias = Callable[[Mapping[str, str]], bool]

_MAX_FILTER_BYTES = 256
_STRING = r'"(?:[^"\\]|\\.)*"'
_KEY = rf"{_STRING}|[A-Za-z0-9_-]+"
_COMPARISON = re.compile(
    rf"\s*attributes\s*(?::\s*(?P<present>{_KEY})|\.\s*(?P<key>{_KEY})\s*(?P<sign>!?=)\s*(?P<value>{_STRING}))"
)
_NOT, _AND = re.compile(r"\s*NOT(?=[\s(])"), re.compile(r"\s*AND(?=[\s(])")
_OPEN, _CLOSE, _END = re.compile(r"\s*\("), re.compile(r"\s*\)"), re.compile(r"\s*$")


def compile_filter(expression: str) -> Filter:
    """Return the predicate; an empty expression matches every message. Raises `Refused` when it does not parse."""
    if not expression.strip():
        return lambda _: True
    if len(expression.encode()) > _MAX_FILTER_BYTES:
        raise invalid(f"The filter is longer than {_MAX_FILTER_BYTES} bytes")
    parser = _Parser(expression)
    predicate = parser.conjunction()
    parser.expect(_END)
    return predicate


class _Parser:
    """Recursive descent over conjunctions, terms and comparisons."""

    def __init__(self, expression: str) -> None:
        self._expression, self._position = expression, 0

    def conjunction(self) -> Filter:
        terms = [self._term()]
        while self._accept(_AND):
            terms.append(self._term())
        return lambda attributes: all(term(attributes) for term in terms)

    def expect(self, pattern: re.Pattern[str]) -> re.Match[str]:
        if match := self._accept(pattern):
            return match
        raise invalid(f"Invalid filter {self._expression!r}: unexpected {self._expression[self._position :]!r}")

    def _term(self) -> Filter:
        if self._accept(_NOT):
            negated = self._term()
            return lambda attributes: not negated(attributes)
        if self._accept(_OPEN):
            inner = self.conjunction()
            self.expect(_CLOSE)
            return inner
        return _comparison(self.expect(_COMPARISON))

    def _accept(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if match := pattern.match(self._expression, self._position):
            self._position = match.end()
        return match


def _comparison(match: re.Match[str]) -> Filter:
    if match["present"]:
        present = _unquoted(match["present"])
        return lambda attributes: present in attributes
    key, value, equal = _unquoted(match["key"]), _unquoted(match["value"]), match["sign"] == "="
    return lambda attributes: (attributes.get(key) == value) == equal


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1]) if token.startswith('"') else token
