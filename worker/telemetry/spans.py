"""Traces: one for each delivery's job, which continues its publisher's trace, with a span for each stage.

Spans are no-ops until `worker.telemetry.export` installs a provider. Even then the publisher's trace id is passed from
the message to the log and to the events.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from worker.telemetry.register import STAGE_SECONDS

PUBSUB_PREFIX = "googclient_"
"""Prefix of the trace attributes that Pub/Sub's own clients set."""

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACER = trace.get_tracer("klipstream")


@contextmanager
def job_span(message_attributes: Mapping[str, str], **facts: AttributeValue) -> Iterator[None]:
    """Open the span of a job for the block; continue the publisher's trace if the message names one."""
    named = {name.removeprefix(PUBSUB_PREFIX): value for name, value in message_attributes.items()}
    parent = _PROPAGATOR.extract({**named, **message_attributes})
    with _TRACER.start_as_current_span("job", parent, kind=SpanKind.CONSUMER, attributes=facts):
        yield


def trace_attributes() -> dict[str, str]:
    """Return the current trace as message attributes (W3C Trace Context); empty without a current trace."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier


@contextmanager
def stage(name: str, **facts: AttributeValue) -> Iterator[None]:
    """Measure a stage of a job, one of the register's: a span and a time in `STAGE_SECONDS`, even if it fails."""
    began = perf_counter()
    try:
        with _TRACER.start_as_current_span(name, attributes=facts):
            yield
    finally:
        STAGE_SECONDS.record(perf_counter() - began, stage=name)


class Laps:
    """A stage that alternates with others. Its span covers the first lap to the last; its time is the sum of laps."""

    seconds = 0.0

    @contextmanager
    def lap(self) -> Iterator[None]:
        """Measure one lap."""
        began = perf_counter()
        try:
            yield
        finally:
            self.seconds += perf_counter() - began


@contextmanager
def stage_in_laps(name: str) -> Iterator[Laps]:
    """Create a stage of laps. It is never the current span, so it may be used in a generator."""
    span, laps = _TRACER.start_span(name), Laps()
    try:
        yield laps
    finally:
        span.set_attribute("seconds", laps.seconds)
        span.end()
        STAGE_SECONDS.record(laps.seconds, stage=name)
