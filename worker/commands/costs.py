"""`costs`: what jobs cost, by day and engine, from the events that the workers keep."""

import asyncio
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from schemas.events import Event
from schemas.state import ResultMarker
from worker.adapters.gcs import open_object_store
from worker.app.engines import prices
from worker.commands.console import EXIT_USAGE, cell, fail, load_settings, note, say, say_json
from worker.commands.costs_page import cells, page
from worker.commands.prerequisites import demand
from worker.commands.tables import Field, FittedTable, Row, print_fitted
from worker.core.costs.bill import Prices, speed_for_savings
from worker.core.costs.report import CostReport, event_in, events_in, report
from worker.errors import ObjectNotFound
from worker.ports import ObjectFacts, ObjectStore
from worker.telemetry import configure_logging

UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
READS_AT_ONCE = 16
RESULTS_PREFIX = "results/"
FIELDS = (
    Field(name="day"),
    Field(name="engine", least=8),
    Field(name="audio h", right=True),
    Field(name="USD", right=True),
    Field(name="USD/h", right=True, rank=1),
    Field(name="fallback", right=True, rank=2),
    Field(name="saved", right=True),
    Field(name="jobs", right=True),
    Field(name="failed", right=True),
)

USERS_SPEED = 40
USERS_SAVINGS_PERCENT = 90
SHAPES = ((4.0, 16.0), (8.0, 32.0))
USERS_HOURS = (1, 3, 6)


def costs(since: str, file: Path | None, html: Path | None, *, as_json: bool) -> None:
    """Print the report, or write it as a page. Exit 1 when the events cannot be read."""
    configure_logging("json" if as_json else "console", "warning")
    now = datetime.now(UTC)
    start = now - parse_span(since)
    events, unreadable = _from_file(file) if file else _from_results(start)
    found = report(events, start)
    if html is not None:
        html.write_text(page(found, start=start, end=now), encoding="utf-8")
    if unreadable:
        note(f"{unreadable} entries could not be read and are left out")
    if as_json:
        for row in rows(found):
            say_json(row)
    else:
        print_fitted(_table(found, since))
        if html is not None:
            say(f"page: {html}")


def parse_span(text: str) -> timedelta:
    """`7d`, `36h` or `2w`; anything else ends the command."""
    if (parts := re.fullmatch(r"(\d{1,5})([hdw])", text)) is None:
        fail(f"--since {text}: say a number and h, d or w, such as 7d", EXIT_USAGE)
    return int(parts[1]) * UNITS[parts[2]]


def rows(found: CostReport) -> Iterator[dict[str, object]]:
    """Yield the report as flat rows."""
    for day, engine, spending, period in found.lines():
        an_hour, saved = spending.usd_per_audio_hour, spending.savings_percent
        row: dict[str, object] = {
            "day": day,
            "engine": engine,
            "audio_hours": round(spending.audio_hours, 4),
            "usd": round(spending.usd, 6),
            "usd_per_audio_hour": None if an_hour is None else round(an_hour, 6),
            "savings_percent": None if saved is None else round(saved, 2),
        }
        if period is not None:
            share = period.fallback_percent
            row |= {"jobs": period.jobs, "failed_jobs": period.failed_jobs}
            row["fallback_percent"] = None if share is None else round(share, 2)
        yield row


def _table(found: CostReport, since: str) -> FittedTable:
    shown: list[Row | None] = []
    for row in cells(found):
        is_sum = row[1] == "all"
        shown += [[cell(value, "bold" if is_sum else "") for value in row], *([None] if is_sum else [])]
    title = f"costs of the last {since}, by UTC day (USD/h: an audio hour; jobs: the failed ones too)"
    return FittedTable(title=title, fields=FIELDS, rows=shown[:-1])


# where the events come from


def _from_file(file: Path) -> tuple[Sequence[Event], int]:
    """JSON lines, such as `watch --json` prints them. Ends the command where none of them is an event."""
    lines = [line for line in file.read_bytes().removeprefix(BOM_UTF8).splitlines() if line.strip()]
    found = [event for line in lines if (event := event_in(line)) is not None]
    if lines and not found:
        fail(f"{file}: none of its lines is an event, as watch --json prints them", EXIT_USAGE)
    return found, len(lines) - len(found)


def _from_results(since: datetime) -> tuple[Sequence[Event], int]:
    settings = load_settings().cloud
    if not settings.state_bucket:
        fail("STATE_BUCKET is not set: it holds the results; or give --file", EXIT_USAGE)
    demand(settings, storage=True)

    async def read() -> tuple[Sequence[Event], int]:
        async with open_object_store(project=settings.project_id) as store:
            return await read_results(store, settings.state_bucket, since)

    return asyncio.run(read())


async def read_results(store: ObjectStore, bucket: str, since: datetime) -> tuple[Sequence[Event], int]:
    """Return the events in the result markers written at `since` or later, and the number of unreadable markers."""
    slots = asyncio.Semaphore(READS_AT_ONCE)

    async def read(facts: ObjectFacts) -> Sequence[Event] | None:
        try:
            async with slots:
                data, _ = await store.read(facts.ref)
            return events_in(ResultMarker.model_validate_json(data))
        except ValidationError:
            return None
        except ObjectNotFound:  # it was deleted since the bucket was listed
            return ()

    recent = [facts for facts in await store.list(bucket, RESULTS_PREFIX) if facts.created_at >= since]
    found = await asyncio.gather(*(read(facts) for facts in recent))
    return [event for events in found if events for event in events], sum(events is None for events in found)


# how the figures come about


def explain(*, as_json: bool) -> None:
    """Print what Parakeet costs by the price book or the settings, and how fast it must be to keep the promise."""
    settings = load_settings()
    book = prices(settings.engine, settings.money, uses_gpu=True)
    shapes = [replace(book, vcpus=vcpus, memory_gib=gib) for vcpus, gib in SHAPES]
    if as_json:
        say_json({"price_book": book.book_version, "shapes": [_shape_figures(shape) for shape in shapes]})
        return
    print_fitted(_shapes_table(shapes), _hours_table(shapes[0]))
    for shape in shapes:
        speed = speed_for_savings(shape, USERS_SAVINGS_PERCENT)
        say(f"{_shape(shape)} saves {USERS_SAVINGS_PERCENT} % from {speed:.1f} times real time on")


def _shape_figures(shape: Prices) -> dict[str, float]:
    an_hour, deepgram_hour = shape.instance_usd_per_second * 3600, shape.deepgram_usd_per_minute * 60
    return {
        "vcpus": shape.vcpus,
        "memory_gib": shape.memory_gib,
        "usd_per_hour": round(an_hour, 6),
        f"usd_per_audio_hour_at_{USERS_SPEED}x": round(an_hour / USERS_SPEED, 6),
        f"savings_percent_at_{USERS_SPEED}x": round(100 * (1 - an_hour / USERS_SPEED / deepgram_hour), 2),
        f"speed_for_{USERS_SAVINGS_PERCENT}_percent": round(speed_for_savings(shape, USERS_SAVINGS_PERCENT), 2),
        "deepgram_usd_per_audio_hour": round(deepgram_hour, 6),
    }


def _shapes_table(shapes: Sequence[Prices]) -> FittedTable:
    rows = []
    for shape in shapes:
        _, _, an_hour, an_audio_hour, saved, *_ = _shape_figures(shape).values()
        rows.append((_shape(shape), f"{an_hour:.3f}", f"{an_audio_hour:.4f}", f"{saved:.1f} %"))
    names = ("shape", "USD / hour", f"USD / audio h at {USERS_SPEED}x", f"saved at {USERS_SPEED}x")
    return _figures_table(f"an instance with one GPU, price book {shapes[0].book_version}", names, rows)


def _hours_table(shape: Prices) -> FittedTable:
    rows = []
    for hours in USERS_HOURS:
        deepgram = hours * 60 * shape.deepgram_usd_per_minute
        parakeet = hours * 3600 / USERS_SPEED * shape.instance_usd_per_second
        rows.append((str(hours), f"{deepgram:.3f}", f"{parakeet:.3f}", f"{100 * (1 - parakeet / deepgram):.1f} %"))
    title = f"audio through {_shape(shape)} at {USERS_SPEED} times real time, and through Deepgram"
    return _figures_table(title, ("audio h", "Deepgram USD", "Parakeet USD", "saved"), rows)


def _figures_table(title: str, names: Sequence[str], rows: Sequence[Row]) -> FittedTable:
    return FittedTable(title=title, fields=[Field(name=name, right=True) for name in names], rows=rows)


def _shape(shape: Prices) -> str:
    return f"{shape.vcpus:g} vCPU / {shape.memory_gib:g} GiB"
