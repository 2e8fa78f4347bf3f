"""The service's filter language over attributes, compiled to a predicate.

`attributes:k`, `attributes.k = "v"`, `attributes.k != "v"`, `hasPrefix(attributes.k, "v")`, joined by AND or OR
(both in one expression only with parentheses), negated by NOT or `-`. A key with other characters than letters, digits,
`_` and `-` is quoted. A message without the attribute satisfies `!=`.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from worker.embedded.pubsub.refusal import Refused, invalid

Filter: TypeAlias = Callable[[Mapping[str, str]], bool]

_MAX_FILTER_BYTES = 256
_TOKEN = re.compile(
    r"""\s*(?:(?P<word>[A-Za-z0-9_][A-Za-z0-9_-]*) | (?P<string>"(?:[^"\\]|\\.)*") | (?P<sign>!=|[=:.,()-]))""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)")


def compile_filter(expression: str) -> Filter:
    """Return the predicate; an empty expression matches every message. Raises `Refused` when it does not parse."""
    if not expression.strip():
        return lambda _: True
    if len(expression.encode()) > _MAX_FILTER_BYTES:
        raise invalid(f"The filter is longer than {_MAX_FILTER_BYTES} bytes")
    return _Parser(expression).parse()


class _Parser:
    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = self._tokenise()

    def parse(self) -> Filter:
        predicate = self._expression_()
        if self._tokens:
            raise self._error(f"unexpected {self._tokens[0]!r}")
        return predicate

    def _expression_(self) -> Filter:
        terms = [self._term()]
        operator = self._tokens[0] if self._tokens and self._tokens[0] in {"AND", "OR"} else None
        while operator and self._accept(operator):
            terms.append(self._term())
        if self._tokens and self._tokens[0] in {"AND", "OR"}:
            raise self._error("AND and OR need parentheses to be combined")
        return _all_of(terms) if operator == "AND" else _any_of(terms)

    def _term(self) -> Filter:
        if self._accept("NOT") or self._accept("-"):
            return _negated(self._term())
        if self._accept("("):
            inner = self._expression_()
            self._expect(")")
            return inner
        return self._has_prefix() if self._accept("hasPrefix") else self._comparison()

    def _has_prefix(self) -> Filter:
        self._expect("(")
        self._expect("attributes")
        self._expect(".")
        key = self._key()
        self._expect(",")
        prefix = self._string()
        self._expect(")")
        return lambda attributes: key in attributes and attributes[key].startswith(prefix)

    def _comparison(self) -> Filter:
        self._expect("attributes")
        if self._accept(":"):
            present = self._key()
            return lambda attributes: present in attributes
        self._expect(".")
        key, negated = self._key(), self._accept("!=")
        if not negated:
            self._expect("=")
        value = self._string()
        if negated:
            return lambda attributes: attributes.get(key) != value
        return lambda attributes: attributes.get(key) == value

    def _key(self) -> str:
        token = self._next()
        if token.startswith('"'):
            return _unquoted(token)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", token):
            raise self._error(f"{token!r} is no attribute key")
        return token

    def _string(self) -> str:
        token = self._next()
        if not token.startswith('"'):
            raise self._error(f"{token!r} is no quoted string")
        return _unquoted(token)

    def _next(self) -> str:
        if not self._tokens:
            raise self._error("it ends early")
        return self._tokens.pop(0)

    def _accept(self, token: str) -> bool:
        if not self._tokens or self._tokens[0] != token:
            return False
        del self._tokens[0]
        return True

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            found = repr(self._tokens[0]) if self._tokens else "the end"
            raise self._error(f"{token!r} expected, found {found}")

    def _tokenise(self) -> list[str]:
        text, tokens, position = self._expression.rstrip(), [], 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._error(f"unexpected character at {position}")
            tokens.append(match[0].strip())
            position = match.end()
        return tokens

    def _error(self, what: str) -> Refused:
        return invalid(f"Invalid filter {self._expression!r}: {what}")


def _all_of(terms: list[Filter]) -> Filter:
    return lambda attributes: all(term(attributes) for term in terms)


def _any_of(terms: list[Filter]) -> Filter:
    return lambda attributes: any(term(attributes) for term in terms)


def _negated(term: Filter) -> Filter:
    return lambda attributes: not term(attributes)


def _unquoted(token: str) -> str:
    return _ESCAPE.sub(r"\1", token[1:-1])
