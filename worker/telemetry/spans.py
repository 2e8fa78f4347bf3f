"""Traces as the code meets them: one for each delivery's job, continued from its publisher's, with its stages in it.

They stand on OpenTelemetry's API and go nowhere until `worker.telemetry.export` installs a provider. The publisher's
trace id is then still carried from the message to the log and to the events.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from worker.telemetry.register import STAGE_SECONDS

PUBSUB_PREFIX = "googclient_"
"""What Pub/Sub's own clients put before the names of their trace attributes."""

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACER = trace.get_tracer("klipstream")


@contextmanager
def job_span(message_attributes: Mapping[str, str], **facts: AttributeValue) -> Iterator[None]:
    """The trace of a job for the length of the block: the publisher's, where the message names it."""
    named = {name.removeprefix(PUBSUB_PREFIX): value for name, value in message_attributes.items()}
    parent = _PROPAGATOR.extract({**named, **message_attributes})
    with _TRACER.start_as_current_span("job", parent, kind=SpanKind.CONSUMER, attributes=facts):
        yield


def trace_attributes() -> dict[str, str]:
    """The current trace as message attributes (W3C Trace Context); none outside of one."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier


@contextmanager
def stage(name: str, **facts: AttributeValue) -> Iterator[None]:
    """A stage of a job, one of the register's: a span, and a time in `STAGE_SECONDS`, failed or not."""
    began = perf_counter()
    try:
        with _TRACER.start_as_current_span(name, attributes=facts):
            yield
    finally:
        STAGE_SECONDS.record(perf_counter() - began, stage=name)


class Laps:
    """A stage that takes turns with others. Its span reaches from the first lap to the last, its time is their sum."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.seconds = 0.0

    @contextmanager
    def lap(self) -> Iterator[None]:
        """One turn."""
        began = perf_counter()
        try:
            yield
        finally:
            self.seconds += perf_counter() - began


@contextmanager
def stage_in_laps(name: str) -> Iterator[Laps]:
    """Such a stage. It is never the current span, so it may stand in a generator."""
    span = _TRACER.start_span(name)
    laps = Laps(span)
    try:
        yield laps
    finally:
        span.set_attribute("seconds", laps.seconds)
        span.end()
        STAGE_SECONDS.record(laps.seconds, stage=name)
