"""The cost report as one HTML page that needs nothing else: inline style and drawings, light and dark."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from html import escape
from itertools import chain
from math import ceil, floor, log10

from schemas.text import plain
from worker.core.costs.report import CostReport, Period, Spending

PROMISED_SAVINGS_PERCENT = 90.0
PROMISED_FALLBACK_PERCENT = 5.0
VERDICTS = {True: ' class="good"', False: ' class="bad"'}
PERCENT = "{:z.1f} %"
COLOURS = {"parakeet": "parakeet", "saved": "parakeet", "deepgram": "deepgram", "fallback": "deepgram"}
"""Names of the series' CSS variables, so that both themes work."""
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
class Chart:
    """A plot over days: stacked bars, or lines where there is a promise; a day without a value is a gap in a line."""

    title: str
    days: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    """By name, a value a day."""
    form: str
    """Format of a value for the axis and the tooltips."""
    promise: tuple[str, float] | None = None
    """Name and value of a level to be kept to."""

    @cached_property
    def levels(self) -> Sequence[float]:
        """Values of the grid lines: 1, 2 or 5 times a power of ten apart, so that there are few."""
        columns = [[value or 0.0 for value in column] for column in zip(*self.series.values(), strict=True)]
        values = [*map(sum, columns), 0.0] if self.promise is None else [*chain(*columns), 0.0, self.promise[1]]
        lowest, highest = min(values), max(values)
        span = (highest - lowest) or 1.0
        power = 10.0 ** floor(log10(span / 4))
        step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= MOST_STEPS)
        return [number * step for number in range(floor(lowest / step), (ceil(highest / step - 1e-9) or 1) + 1)]

    @property
    def day_width(self) -> float:
        """Width of a day on the drawing."""
        return (WIDTH - LEFT - RIGHT) / max(len(self.days), 1)

    def x(self, day: int) -> float:
        """Return the middle of a day on the drawing."""
        return LEFT + (day + 0.5) * self.day_width

    def y(self, value: float) -> float:
        """Return the place of a value on the drawing."""
        bottom, top = self.levels[0], self.levels[-1]
        return HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)


def page(report: CostReport, *, start: datetime, end: datetime) -> str:
    """Return the whole page."""
    period = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Transcription costs</title><style>{STYLE}</style></head><body>"
        f"<header><h1>Transcription costs</h1><p>{period}</p></header><main>"
        f"<dl>{_tiles(report.total)}</dl>{''.join(_plots(report))}{_table(report)}</main></body></html>\n"
    )


def _tiles(total: Period) -> str:
    spending = total.total
    saved, share = spending.savings_percent, total.fallback_percent
    is_saved = saved is None or saved >= PROMISED_SAVINGS_PERCENT
    is_rare = share is None or share < PROMISED_FALLBACK_PERCENT
    tiles = (
        ("audio", "", f"{spending.audio_hours:,.1f} h", f"{total.jobs:,} jobs, {total.failed_jobs:,} failed"),
        ("spent", "", f"${spending.usd:,.2f}", f"Deepgram alone: ${spending.baseline_usd:,.2f}"),
        ("an audio hour", "", _figure(spending.usd_per_audio_hour, "${:,.4f}"), ""),
        ("saved", VERDICTS[is_saved], _percent(saved), f"promised: {PROMISED_SAVINGS_PERCENT:g} %"),
        ("fallback", VERDICTS[is_rare], _percent(share), f"promised: below {PROMISED_FALLBACK_PERCENT:g} % of chunks"),
    )
    return "".join(
        f"<div><dt>{name}</dt><dd{css}>{value}<small>{note}</small></dd></div>" for name, css, value, note in tiles
    )


def _plots(report: CostReport) -> Iterator[str]:
    first, last = min(report.days, default=None), max(report.days, default=None)
    calendar = [first + timedelta(days=at) for at in range((last - first).days + 1)] if first and last else []
    periods = [report.days.get(day, Period()) for day in calendar]
    saved = [period.total.savings_percent for period in periods]
    share = [period.fallback_percent for period in periods]
    usd, hours = _by_engine(periods, "usd"), _by_engine(periods, "audio_hours")
    chart = partial(Chart, days=[day.isoformat() for day in calendar])
    yield _plot(chart(title="USD a day", series=usd, form="${:,.4g}"))
    yield _plot(chart(title="Audio hours a day", series=hours, form="{:,.4g} h"))
    promise = ("promised", PROMISED_SAVINGS_PERCENT)
    yield _plot(chart(title="Saved against Deepgram", series={"saved": saved}, form=PERCENT, promise=promise))
    promise = ("at most", PROMISED_FALLBACK_PERCENT)
    yield _plot(
        chart(title="Chunks that fell back to Deepgram", series={"fallback": share}, form=PERCENT, promise=promise)
    )


def _by_engine(periods: Sequence[Period], figure: str) -> Mapping[str, Sequence[float]]:
    names = sorted({name for period in periods for name in period.engines}, key=lambda name: (name != "parakeet", name))
    return {name: [getattr(period.engines.get(name, Spending()), figure) for period in periods] for name in names}


def _table(report: CostReport) -> str:
    heads = ("day", "engine", "audio h", "USD", "USD / audio h", "fallback", "saved", "jobs", "failed")
    names = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = []
    for day, *values in cells(report):
        css = ' class="sum"' if values[0] == "all" else ""
        rows.append(f'<tr{css}><th scope="row">{day}</th>')
        rows += [f"<td>{_visible(value)}</td>" for value in values] + ["</tr>"]
    return (
        '<div class="scroll"><table><caption>By day and engine</caption>'
        f"<thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def cells(report: CostReport) -> Iterator[tuple[str, ...]]:
    """Yield the table's rows as text."""
    for day, engine, spending, period in report.lines():
        share, jobs, failed = "", "", ""
        if period is not None:
            share, jobs, failed = _percent(period.fallback_percent), str(period.jobs), str(period.failed_jobs)
        an_hour, saved = _figure(spending.usd_per_audio_hour, "{:.4f}"), _percent(spending.savings_percent)
        yield day, engine, f"{spending.audio_hours:.2f}", f"{spending.usd:.4f}", an_hour, share, saved, jobs, failed


def _percent(value: float | None) -> str:
    return _figure(value, PERCENT)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _visible(text: str) -> str:
    """Return text from outside for a page: what would act on a reader or in HTML is written out."""
    return escape(plain(text))


def _plot(chart: Chart) -> str:
    parts = [*_grid(chart), *(_bars(chart) if chart.promise is None else _lines(chart, *chart.promise))]
    keys = (f'<i style="background:{_colour(name)}"></i>{_visible(name)}' for name in chart.series)
    legend = "" if len(chart.series) == 1 else f'<span class="legend">{" ".join(keys)}</span>'
    return (
        f"<figure><figcaption>{chart.title}{legend}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_visible(_spoken(chart))}">{"".join(parts)}</svg>'
        "</figure>"
    )


def _grid(chart: Chart) -> Iterator[str]:
    for level in chart.levels:
        yield _level("grid", chart.y(level))
        yield f'<text x="{LEFT - 8}" y="{chart.y(level) + 4:.1f}" text-anchor="end">{chart.form.format(level)}</text>'
    every = ceil(len(chart.days) / MOST_LABELS) or 1
    for at, day in list(enumerate(chart.days))[::every]:
        yield f'<text x="{chart.x(at):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{day[5:]}</text>'


def _bars(chart: Chart) -> Iterator[str]:
    width = min(48.0, 0.7 * chart.day_width)
    bases = [0.0] * len(chart.days)
    for name, values in chart.series.items():
        for at, value in enumerate(values):
            if value is None or value <= 0:
                continue
            bottom, top = chart.y(bases[at]), chart.y(bases[at] + value)
            bases[at] += value
            box = f'x="{chart.x(at) - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}"'
            yield f'<rect {box} rx="2" fill="{_colour(name)}">{_tip(chart, at, name, value)}</rect>'


def _lines(chart: Chart, promise: str, promised: float) -> Iterator[str]:
    for name, values in chart.series.items():
        path, dots = [], []
        for at, value in enumerate(values):
            if value is not None:
                x, y = f"{chart.x(at):.1f}", f"{chart.y(value):.1f}"
                path.append(f"{'M' if at == 0 or values[at - 1] is None else 'L'}{x} {y}")
                tip = _tip(chart, at, name, value)
                dots.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{_colour(name)}">{tip}</circle>')
        yield f'<path d="{" ".join(path)}" fill="none" stroke="{_colour(name)}" stroke-width="2"/>'
        yield from dots
    yield _level("mark", level := chart.y(promised))
    yield f'<text class="mark" x="{WIDTH - RIGHT}" y="{level + 14:.1f}" text-anchor="end">{promise}</text>'


def _level(css: str, y: float) -> str:
    return f'<line class="{css}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _colour(series: str) -> str:
    return f"var(--{COLOURS.get(series, 'other')})"


def _tip(chart: Chart, at: int, series: str, value: float) -> str:
    return f"<title>{_visible(f'{chart.days[at]}, {series}: {chart.form.format(value)}')}</title>"


def _spoken(chart: Chart) -> str:
    """Describe the plot for screen readers; the table below the plots has every figure."""
    extremes = []
    for name, values in chart.series.items():
        if known := [value for value in values if value is not None]:
            extremes.append(f"{name} between {chart.form.format(min(known))} and {chart.form.format(max(known))}")
    period = f"{chart.days[0]} to {chart.days[-1]}" if chart.days else "no days"
    return f"{chart.title}, {period}: {'; '.join(extremes) or 'nothing'}"
