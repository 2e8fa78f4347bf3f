"""Judges alert conditions where promtool is missing: the part of PromQL that ours are written in, over made series.

Not a Prometheus: ranges are not extrapolated, series never go stale, and what it does not know is an error. Where
promtool is there, the same conditions are judged by both.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

Labels: TypeAlias = frozenset[tuple[str, str]]
Vector: TypeAlias = dict[Labels, float]
Value: TypeAlias = float | Vector
Series: TypeAlias = Mapping[str, Mapping[Labels, list[float]]]
"""Samples by metric and labels, one a minute."""

TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?)|([A-Za-z_:][\w:]*)|(==|!=|>=|<=|[-+*/^<>(){},=]|\[\w+\]|\"[^\"]*\"))")
MINUTES = {"m": 1, "h": 60, "d": 1440}
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: left / right if right else float("nan"),
    "^": operator.pow,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
}
# From the loosest to the tightest.
LEVELS = (("unless", "and"), tuple(COMPARISONS), ("+", "-"), ("*", "/"), ("^",))
AGGREGATES: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max}
RANGES = frozenset({"increase", "rate"})


def made(written: Mapping[str, str]) -> Series:
    """Series as promtool's tests write them: `name{labels}` and `1+2x3 4x5`."""
    found: dict[str, dict[Labels, list[float]]] = {}
    for series, values in written.items():
        name, _, labels = series.partition("{")
        found.setdefault(name, {})[frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = list(_values(values))
    return found


def _values(text: str) -> Iterator[float]:
    for part in text.split():
        first, _, times = part.partition("x")
        start, _, step = first.partition("+")
        yield from (float(start) + float(step or 0) * number for number in range(int(times or 0) + 1))


def fires(query: str, for_minutes: int, series: Series, at_minute: int) -> bool:
    """Return True if an alert on the query fires, evaluated once a minute from the beginning."""
    since: dict[Labels, int] = {}
    for minute in range(at_minute + 1):
        found = _Judge(query, series, minute).judged()
        since = {labels: since.get(labels, minute) for labels in found}
    return any(at_minute - began >= for_minutes for began in since.values())


@dataclass
class _Tokens:
    text: str
    position: int = 0

    def peek(self) -> str:
        found = TOKEN.match(self.text, self.position)
        return found[0].strip() if found else ""

    def take(self, wanted: str | None = None) -> str:
        found = TOKEN.match(self.text, self.position)
        if found is None or wanted not in {None, found[0].strip()}:
            raise ValueError(f"expected {wanted or 'something'} at {self.text[self.position :]!r}")
        self.position = found.end()
        return found[0].strip()


class _Judge:
    """A query at one minute."""

    def __init__(self, query: str, series: Series, minute: int) -> None:
        self._tokens, self._series, self._minute = _Tokens(query), series, minute

    def judged(self) -> Vector:
        value = self._binary(0)
        if self._tokens.peek() or not isinstance(value, dict):
            raise ValueError(f"no condition: {self._tokens.text}")
        return value

    def _binary(self, level: int) -> Value:
        if level == len(LEVELS):
            return self._operand()
        left = self._binary(level + 1)
        while (sign := self._tokens.peek()) in LEVELS[level]:
            self._tokens.take()
            on = self._names() if self._accept("on") else None
            left = self._combined(sign, left, self._binary(level + 1), on)
        return left

    def _combined(self, sign: str, left: Value, right: Value, on: frozenset[str] | None) -> Value:
        if sign in {"and", "unless"}:
            assert isinstance(left, dict)
            assert isinstance(right, dict)
            known = {_kept(labels, on) for labels in right}
            return {key: value for key, value in left.items() if (_kept(key, on) in known) == (sign == "and")}
        if isinstance(left, float) and isinstance(right, float):
            return ARITHMETIC[sign](left, right)
        assert isinstance(left, dict)
        paired = {key: right if isinstance(right, float) else right[key] for key in left if _pairs(right, key)}
        if sign in COMPARISONS:
            return {key: left[key] for key, other in paired.items() if COMPARISONS[sign](left[key], other)}
        return {key: ARITHMETIC[sign](left[key], other) for key, other in paired.items()}

    def _operand(self) -> Value:
        word = self._tokens.take()
        if word == "(":
            value = self._binary(0)
            self._tokens.take(")")
            return value
        if word[0].isdigit():
            return float(word)
        if word in AGGREGATES:
            by = self._names() if self._accept("by") else frozenset[str]()
            self._tokens.take("(")
            inner = self._binary(0)
            self._tokens.take(")")
            assert isinstance(inner, dict)
            return _aggregated(AGGREGATES[word], inner, by)
        if word in RANGES:
            return self._range(word)
        if word == "histogram_quantile":
            return self._quantile()
        return {labels: values[self._minute] for labels, values in self._selected(word).items()}

    def _quantile(self) -> Vector:
        self._tokens.take("(")
        wanted = float(self._tokens.take())
        self._tokens.take(",")
        inner = self._binary(0)
        self._tokens.take(")")
        assert isinstance(inner, dict)
        groups: dict[Labels, dict[float, float]] = {}
        for labels, value in inner.items():
            (bound,) = (float(bound) for name, bound in labels if name == "le")
            groups.setdefault(frozenset(pair for pair in labels if pair[0] != "le"), {})[bound] = value
        return {labels: _quantile_of(wanted, buckets) for labels, buckets in groups.items()}

    def _range(self, function: str) -> Vector:
        self._tokens.take("(")
        selected = self._selected(self._tokens.take())
        window = self._tokens.take()[1:-1]
        self._tokens.take(")")
        minutes = int(window[:-1]) * MINUTES[window[-1]]
        per = minutes * 60 if function == "rate" else 1
        return {
            labels: _grown(values[max(0, self._minute - minutes) : self._minute + 1]) / per
            for labels, values in selected.items()
        }

    def _selected(self, name: str) -> Mapping[Labels, list[float]]:
        wanted = set()
        if self._accept("{"):
            while not self._accept("}"):
                label = self._tokens.take()
                self._tokens.take("=")
                wanted.add((label, self._tokens.take().strip('"')))
                self._accept(",")
        known = self._series.get(name, {})
        return {labels: values for labels, values in known.items() if wanted <= labels}

    def _names(self) -> frozenset[str]:
        self._tokens.take("(")
        names = set()
        while not self._accept(")"):
            names.add(self._tokens.take())
            self._accept(",")
        return frozenset(names)

    def _accept(self, token: str) -> bool:
        if self._tokens.peek() != token:
            return False
        self._tokens.take()
        return True


def _pairs(right: Value, key: Labels) -> bool:
    return isinstance(right, float) or key in right


def _kept(labels: Labels, on: frozenset[str] | None) -> Labels:
    return labels if on is None else frozenset(pair for pair in labels if pair[0] in on)


def _aggregated(how: Callable[[list[float]], float], inner: Vector, by: frozenset[str]) -> Vector:
    groups: dict[Labels, list[float]] = {}
    for labels, value in inner.items():
        groups.setdefault(_kept(labels, by), []).append(value)
    return {labels: how(values) for labels, values in groups.items()}


def _grown(values: list[float]) -> float:
    """Return the increase of a counter; a decrease is a restart from zero."""
    return sum(after - before if after >= before else after for before, after in pairwise(values))


def _quantile_of(wanted: float, buckets: Mapping[float, float]) -> float:
    """Linear inside a bucket, as Prometheus reckons; of the last one, which has no end, its beginning."""
    bounds = sorted(buckets)
    rank = wanted * buckets[bounds[-1]]
    if not buckets[bounds[-1]]:
        return float("nan")
    at = next(index for index, bound in enumerate(bounds) if buckets[bound] >= rank)
    if at == len(bounds) - 1:
        return bounds[-2]
    lower, before = (bounds[at - 1], buckets[bounds[at - 1]]) if at else (0.0, 0.0)
    return lower + (bounds[at] - lower) * (rank - before) / (buckets[bounds[at]] - before)
