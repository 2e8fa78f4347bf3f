"""Templates to HTML. Everything that a template prints is escaped, and characters that would act are written out."""

import base64
import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from schemas.text import plain
from worker.adapters.web.health_document import Segment
from worker.adapters.web.views import Transcript

UNKNOWN = Markup('<span aria-hidden="true">\N{EN DASH}</span><span class="sr">not known</span>')
TAIL_CHARACTERS = 8
"""The end of an id, which is always visible."""
MOST_SEGMENTS = 120
FEW = 10
"""Numbers below it have one digit after the point."""
LEAST_USD = 0.0001
"""The smallest amount that is shown."""
GIB = 1024**3

FOLDER = Path(str(files("worker.adapters.web")))
SEGMENT_CLASSES: dict[Segment, str] = {
    "parakeet": "p",
    "deepgram": "d",
    "working": "w",
    "failed": "f",
    "waiting": "",
}


@cache
def templates() -> Environment:
    """Return the environment of all templates."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plain_filters = (clock, span, ident, hours, usd, percent, ratio, gib, grouped, counted, less, url_part)
    environment.filters |= {each.__name__: each for each in plain_filters}
    environment.filters |= {"time": time_of_day, "segment_class": SEGMENT_CLASSES.__getitem__}
    environment.globals |= {"asset": asset, "release": release}
    return environment


def render(template: str, **values: Any) -> str:
    """Return the template as HTML."""
    return templates().get_template(template).render(**values)


def render_main(template: str, **values: Any) -> str:
    """Return the inside of the template's `main` element, which is all of a page that changes."""
    page = templates().get_template(template)
    return "".join(page.blocks["main"](page.new_context(values)))


@cache
def asset(name: str) -> str:
    """Return the address of a static file, which changes with the content."""
    digest = hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?{digest}"


def release() -> str:
    """Return a text that changes with the files that an open page has loaded."""
    return asset("style.css") + asset("page.js")


def _visible(value: object) -> object:
    """Write control and direction characters as escapes; markup made by a template is left alone."""
    return plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def ident(value: object) -> Markup:
    """Return an id from outside: isolated, on one line, whole in the title."""
    text = plain(value)
    head, tail = text[:-TAIL_CHARACTERS], text[-TAIL_CHARACTERS:]
    return Markup('<bdi class="id" title="{}"><span>{}</span><span>{}</span></bdi>').format(text, head, tail)


def clock(seconds: float | None) -> str | Markup:
    """Return 1:02:03."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def span(seconds: float | None) -> str | Markup:
    """Return 42 s, 3 min 12 s, 6 h 12 min or 3 d 2 h."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if 0 < seconds < FEW:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part, of in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {of}" if rest else "")
    return f"{whole} s"


def hours(count: float) -> str | Markup:
    """Return 318.4 h; less than an hour in minutes and seconds."""
    return f"{count:,.1f} h" if count >= 1 else span(count * 3600)


def usd(amount: float | None) -> str | Markup:
    """Return $12.34, with more digits where the amount is small."""
    if amount is None:
        return UNKNOWN
    if 0 < amount < LEAST_USD:
        return f"<${LEAST_USD}"
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


def percent(value: float | None) -> str | Markup:
    """Return 90.6 %."""
    return UNKNOWN if value is None else f"{value:z.1f} %"


def less(value: float) -> str:
    """Return 90.6 % less, or 4.0 % more for a negative share."""
    return f"{abs(value):.1f} % {'less' if value >= 0 else 'more'}"


def counted(number: int, noun: str) -> str:
    """Return 1 job, or 1,200 jobs."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def ratio(value: float | None) -> str | Markup:
    """Return 42x, or 4.2x."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}x" if value >= FEW else f"{value:.1f}x"


def gib(count: float | None) -> str | Markup:
    """Return the bytes as GiB."""
    return UNKNOWN if count is None else f"{count / GIB:.1f}"


def time_of_day(moment: datetime | None, form: str = "%H:%M:%S") -> str | Markup:
    """Return a time element, in UTC."""
    if moment is None:
        return UNKNOWN
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        f"{utc:%Y-%m-%dT%H:%M:%SZ}", f"{utc:%Y-%m-%d %H:%M:%S} UTC", f"{utc:{form}}"
    )


def grouped(segments: Sequence[Segment], most: int = MOST_SEGMENTS) -> Sequence[Segment]:
    """Return at most `most` segments: of several chunks the one that needs attention decides."""
    if len(segments) <= most:
        return segments
    order: tuple[Segment, ...] = ("failed", "deepgram", "working", "waiting", "parakeet")
    numbered = [(index * most // len(segments), segment) for index, segment in enumerate(segments)]
    return [
        min((segment for _, segment in group), key=order.index)
        for _, group in groupby(numbered, key=lambda one: one[0])
    ]


def standalone(transcript: Transcript, *, title: str, lede: str, version: str) -> str:
    """Return a page that needs no other file but the audio that `transcript` may name."""
    style, script = (Markup((FOLDER / "static" / name).read_text("utf-8")) for name in ("style.css", "page.js"))  # noqa: S704 - ours
    return render(
        "transcript_file.html",
        transcript=transcript,
        title=title,
        lede=lede,
        version=version,
        style=style,
        script=script,
        style_digest=_digest(style),
        script_digest=_digest(script),
        is_whole=transcript.audio_src.startswith("data:"),
    )


def _digest(text: str) -> str:
    """Return the digest by which a content security policy knows an inline script or style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def url_part(value: object) -> Markup:
    """Return any text as one segment of a path; dots alone are escaped too, since browsers resolve them."""
    quoted = quote(str(value), safe="")
    return escape(quoted.replace(".", "%2E") if quoted.strip(".") == "" else quoted)
