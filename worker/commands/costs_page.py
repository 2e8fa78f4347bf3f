"""The cost report as one HTML page that needs nothing else: inline style and drawings, light and dark."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from worker.commands.charts import Chart, Mark, Series, bars, lines, visible
from worker.core.costs.report import CostReport, Period, Spending

PROMISED_SAVINGS_PERCENT = 90.0
PROMISED_FALLBACK_PERCENT = 5.0
COLOURS = {"parakeet": "parakeet", "deepgram": "deepgram"}

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #ffffff; --text: #1c1f23; --soft: #5b6570; --line: #e1e4e8;
  --parakeet: #0b6bcb; --deepgram: #c2570c; --other: #6d7681; --good: #1a7f4b; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --card: #1c2025; --text: #e9ecef; --soft: #a2acb7;
  --line: #333a42; --parakeet: #5aa9f5; --deepgram: #f0995a; --other: #9aa4af; --good: #57c98d; --bad: #f2867e; } }
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
    heads = ("day", "engine", "audio h", "USD", "USD / audio h", "fallback", "saved", "jobs")
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    days = "".join(_rows(day.isoformat(), period) for day, period in report.days.items())
    return (
        '<div class="scroll"><table><caption>By day and engine</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{days}{_rows('all days', report.total)}</tbody></table></div>"
    )


def _rows(day: str, period: Period) -> str:
    engines = "".join(_row(day, name, spending) for name, spending in period.engines.items())
    share = "" if period.fallback_percent is None else _percent(period.fallback_percent)
    return engines + _row(day, "all", period.total, share, str(period.jobs), css="sum")


def _row(day: str, engine: str, spending: Spending, share: str = "", jobs: str = "", *, css: str = "") -> str:
    values = (
        f"{spending.audio_hours:,.2f}",
        f"{spending.usd:,.4f}",
        _usd(spending.usd_per_audio_hour),
        share,
        _percent(spending.savings_percent),
        jobs,
    )
    cells = "".join(f"<td>{visible(value)}</td>" for value in (engine, *values))
    return f'<tr class="{css}"><th scope="row">{visible(day)}</th>{cells}</tr>'


def _usd(value: float | None) -> str:
    return "-" if value is None else f"${value:,.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:z.1f} %"
