"""The cost report as one HTML page that needs nothing else: inline style and drawings, light and dark."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from math import ceil, floor, log10

from schemas.text import plain
from worker.core.costs.report import CostReport, Period, Spending

PROMISED_SAVINGS_PERCENT = 90.0
PROMISED_FALLBACK_PERCENT = 5.0
COLOURS = {"parakeet": "parakeet", "deepgram": "deepgram"}
"""Names of CSS variables, so that both themes work."""
WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 34
MOST_LABELS = 10
MOST_STEPS = 5

STYLE = """
:root { color-scheme: light dark; --ground: light-dark(#fbfbfa, #14171a); --card: light-dark(#fff, #1c2025);
  --text: light-dark(#1c1f23, #e9ecef); --soft: light-dark(#5b6570, #a2acb7); --line: light-dark(#e1e4e8, #333a42);
  --parakeet: light-dark(#0b6bcb, #5aa9f5); --deepgram: light-dark(#c2570c, #f0995a);
  --other: light-dark(#6d7681, #9aa4af); --good: light-dark(#1a7f4b, #57c98d); --bad: light-dark(#b3261e, #f2867e); }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 64rem; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; } header p { margin: .25rem 0 1.5rem; color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 0 0 1.5rem; }
dl div, figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem 1rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
dd small { display: block; font-size: .8rem; color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); }
figure { margin: 0 0 1rem; } figcaption { font-weight: 600; margin-bottom: .5rem; }
.legend { float: right; font-weight: 400; font-size: .85rem; } .legend i { display: inline-block; width: .75em;
  height: .75em; border-radius: 2px; margin: 0 .35em 0 .9em; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); } svg line.mark { stroke: var(--good); stroke-dasharray: 5 4; }
svg text.mark { fill: var(--good); }
.scroll { overflow-x: auto; } table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
tr.sum { font-weight: 600; border-top: 2px solid var(--line); }
"""


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


def page(report: CostReport, *, start: datetime, end: datetime) -> str:
    """Return the whole page."""
    period = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Transcription costs</title><style>{STYLE}</style></head><body>"
        f"<header><h1>Transcription costs</h1><p>{visible(period)}</p></header><main>"
        f"{_tiles(report.total)}{''.join(_plots(report))}{_table(report)}</main></body></html>\n"
    )


def _tiles(total: Period) -> str:
    spending = total.total
    saved, share = spending.savings_percent, total.fallback_percent
    tiles = (
        _tile("audio", f"{spending.audio_hours:,.1f} h", f"{total.jobs:,} jobs, {total.failed_jobs:,} failed"),
        _tile("spent", f"${spending.usd:,.2f}", f"Deepgram alone: ${spending.baseline_usd:,.2f}"),
        _tile("an audio hour", _usd(spending.usd_per_audio_hour), ""),
        _tile(
            "saved",
            _percent(saved),
            f"promised: {PROMISED_SAVINGS_PERCENT:g} %",
            is_good=saved is None or saved >= PROMISED_SAVINGS_PERCENT,
        ),
        _tile(
            "fallback",
            _percent(share),
            f"promised: below {PROMISED_FALLBACK_PERCENT:g} % of chunks",
            is_good=share is None or share < PROMISED_FALLBACK_PERCENT,
        ),
    )
    return f"<dl>{''.join(tiles)}</dl>"


def _tile(name: str, value: str, note: str, *, is_good: bool | None = None) -> str:
    verdict = "" if is_good is None else f' class="{"good" if is_good else "bad"}"'
    return f"<div><dt>{visible(name)}</dt><dd{verdict}>{visible(value)}<small>{visible(note)}</small></dd></div>"


def _plots(report: CostReport) -> Iterator[str]:
    first, last = min(report.days, default=None), max(report.days, default=None)
    calendar = [first + timedelta(days=at) for at in range((last - first).days + 1)] if first and last else []
    days = [day.isoformat() for day in calendar]
    periods = [report.days.get(day, Period()) for day in calendar]
    yield bars(Chart(title="USD a day", days=days, series=_by_engine(periods, "usd"), form=lambda usd: f"${usd:,.4g}"))
    yield bars(
        Chart(
            title="Audio hours a day",
            days=days,
            series=_by_engine(periods, "audio_hours"),
            form=lambda hours: f"{hours:,.4g} h",
        )
    )
    saved = Series(name="saved", colour="parakeet", values=[period.total.savings_percent for period in periods])
    yield lines(
        Chart(
            title="Saved against Deepgram",
            days=days,
            series=[saved],
            form=_percent,
            mark=Mark(name="promised", value=PROMISED_SAVINGS_PERCENT),
        )
    )
    share = Series(name="fallback", colour="deepgram", values=[period.fallback_percent for period in periods])
    yield lines(
        Chart(
            title="Chunks that fell back to Deepgram",
            days=days,
            series=[share],
            form=_percent,
            mark=Mark(name="at most", value=PROMISED_FALLBACK_PERCENT),
        )
    )


def _by_engine(periods: Sequence[Period], figure: str) -> Sequence[Series]:
    names = sorted({name for period in periods for name in period.engines}, key=lambda name: (name != "parakeet", name))
    return [
        Series(
            name=name,
            colour=COLOURS.get(name, "other"),
            values=[getattr(period.engines.get(name, Spending()), figure) for period in periods],
        )
        for name in names
    ]


def _table(report: CostReport) -> str:
    heads = ("day", "engine", "audio h", "USD", "USD / audio h", "fallback", "saved", "jobs", "failed")
    names = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = []
    for day, *values in cells(report):
        css = ' class="sum"' if values[0] == "all" else ""
        rows.append(f'<tr{css}><th scope="row">{visible(day)}</th>')
        rows += [f"<td>{visible(value)}</td>" for value in values] + ["</tr>"]
    return (
        '<div class="scroll"><table><caption>By day and engine</caption>'
        f"<thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def cells(report: CostReport) -> Iterator[tuple[str, ...]]:
    """Yield the table's rows as text: the engines of a day, the day, and at the end all days."""
    for day, period in (*report.days.items(), ("all", report.total)):
        for engine, spending in period.engines.items():
            yield (str(day), engine, *_money(spending), "", _percent(spending.savings_percent), "", "")
        share, saved = _percent(period.fallback_percent), _percent(period.total.savings_percent)
        yield (str(day), "all", *_money(period.total), share, saved, str(period.jobs), str(period.failed_jobs))


def _money(spending: Spending) -> tuple[str, str, str]:
    an_hour = spending.usd_per_audio_hour
    return f"{spending.audio_hours:.2f}", f"{spending.usd:.4f}", "-" if an_hour is None else f"{an_hour:.4f}"


def _usd(value: float | None) -> str:
    return "-" if value is None else f"${value:,.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:z.1f} %"


# bars and lines over days, as inline SVG


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
