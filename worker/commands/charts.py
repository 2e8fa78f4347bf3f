"""Bars and lines over days as inline SVG. Colours come from CSS variables of the page, so that both themes work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from schemas.text import plain

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 34
MOST_LABELS = 10
MOST_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class Series:
    """A value for each day, None where there is none. `colour` is the name of a CSS variable."""

    name: str
    colour: str
    values: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A level to be kept to."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One plot. `form` writes a value for axis and tooltips."""

    title: str
    days: Sequence[str]
    series: Sequence[Series]
    form: Callable[[float], str]
    mark: Mark | None = None


def visible(text: str) -> str:
    """Return text for a page: what would act on a reader or in HTML is written out."""
    return escape(plain(text))


def bars(chart: Chart) -> str:
    """Stack the series."""
    sums = [sum(each.values[at] or 0.0 for each in chart.series) for at in range(len(chart.days))]
    scale = _Scale(0.0, max([*sums, *_marks(chart)], default=0.0), len(chart.days))
    parts = []
    for at, day in enumerate(chart.days):
        base = 0.0
        for series in chart.series:
            value = series.values[at] or 0.0
            if value > 0:
                parts.append(_bar(scale, at, base, value, series, f"{day}, {series.name}: {chart.form(value)}"))
            base += value
    return _figure(chart, scale, parts)


def lines(chart: Chart) -> str:
    """Each series as a line with a dot a day; days without a value leave a gap."""
    values = [value for series in chart.series for value in series.values if value is not None]
    lowest = min([0.0, *values])
    scale = _Scale(lowest, max([*values, *_marks(chart)], default=0.0), len(chart.days))
    parts = [part for series in chart.series for part in _line(chart, scale, series)]
    return _figure(chart, scale, parts)


@dataclass(frozen=True)
class _Scale:
    """From values and day numbers to places on the drawing."""

    lowest: float
    highest: float
    days: int

    @property
    def step(self) -> float:
        """Between two grid lines: 1, 2 or 5 times a power of ten, so that there are few."""
        span = (self.highest - self.lowest) or 1.0
        power = 10.0 ** floor(log10(span / 4))
        return next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= MOST_STEPS)

    @property
    def levels(self) -> Sequence[float]:
        first, last = floor(self.lowest / self.step), ceil(self.highest / self.step - 1e-9) or 1
        return [number * self.step for number in range(first, last + 1)]

    def x(self, day: float) -> float:
        return LEFT + (day + 0.5) * (WIDTH - LEFT - RIGHT) / max(self.days, 1)

    def y(self, value: float) -> float:
        bottom, top = self.levels[0], self.levels[-1]
        return HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    @property
    def bar_width(self) -> float:
        return min(48.0, 0.7 * (WIDTH - LEFT - RIGHT) / max(self.days, 1))


def _marks(chart: Chart) -> Sequence[float]:
    return [chart.mark.value] if chart.mark else []


def _bar(scale: _Scale, at: int, base: float, value: float, series: Series, tip: str) -> str:
    top, bottom = scale.y(base + value), scale.y(base)
    left = scale.x(at) - scale.bar_width / 2
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{scale.bar_width:.1f}" height="{bottom - top:.1f}" rx="2" '
        f'fill="var(--{series.colour})"><title>{visible(tip)}</title></rect>'
    )


def _line(chart: Chart, scale: _Scale, series: Series) -> Sequence[str]:
    points = [(at, value) for at, value in enumerate(series.values) if value is not None]
    path, previous = [], -2
    for at, value in points:
        path.append(f"{'L' if at == previous + 1 else 'M'}{scale.x(at):.1f} {scale.y(value):.1f}")
        previous = at
    dots = [
        f'<circle cx="{scale.x(at):.1f}" cy="{scale.y(value):.1f}" r="3.5" fill="var(--{series.colour})">'
        f"<title>{visible(f'{chart.days[at]}, {series.name}: {chart.form(value)}')}</title></circle>"
        for at, value in points
    ]
    return [f'<path d="{" ".join(path)}" fill="none" stroke="var(--{series.colour})" stroke-width="2"/>', *dots]


def _figure(chart: Chart, scale: _Scale, parts: Sequence[str]) -> str:
    drawn = "".join([*_grid(chart, scale), *parts, *_mark(chart, scale)])
    return (
        f"<figure><figcaption>{visible(chart.title)}{_legend(chart)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{visible(_spoken(chart))}">{drawn}</svg></figure>'
    )


def _grid(chart: Chart, scale: _Scale) -> Sequence[str]:
    grid = []
    for level in scale.levels:
        y = scale.y(level)
        grid.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        grid.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{visible(chart.form(level))}</text>')
    every = ceil(len(chart.days) / MOST_LABELS) or 1
    grid += [
        f'<text x="{scale.x(at):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{visible(day[5:])}</text>'
        for at, day in enumerate(chart.days)
        if at % every == 0
    ]
    return grid


def _mark(chart: Chart, scale: _Scale) -> Sequence[str]:
    if chart.mark is None:
        return []
    y = scale.y(chart.mark.value)
    return [
        f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
        f'<text class="mark" x="{WIDTH - RIGHT}" y="{y + 14:.1f}" text-anchor="end">{visible(chart.mark.name)}</text>',
    ]


def _legend(chart: Chart) -> str:
    if len(chart.series) == 1:
        return ""
    keys = (f'<i style="background:var(--{each.colour})"></i>{visible(each.name)}' for each in chart.series)
    return f'<span class="legend">{" ".join(keys)}</span>'


def _spoken(chart: Chart) -> str:
    """Describe the plot for screen readers; the table below the plots has every figure."""
    extremes = []
    for series in chart.series:
        known = [value for value in series.values if value is not None]
        if known:
            extremes.append(f"{series.name} between {chart.form(min(known))} and {chart.form(max(known))}")
    period = f"{chart.days[0]} to {chart.days[-1]}" if chart.days else "no days"
    return f"{chart.title}, {period}: {'; '.join(extremes) or 'nothing'}"
