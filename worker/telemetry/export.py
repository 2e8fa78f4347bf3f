"""Exporters of metrics and traces: OpenTelemetry's providers, installed once for the process.

For the operator: `otlp` sends to OTEL_EXPORTER_OTLP_ENDPOINT (by default a collector on localhost:4318). `gcp` sends to
Google Cloud's OTLP endpoint with the worker's own credentials, which need roles/telemetry.writer;
OTEL_RESOURCE_ATTRIBUTES (`cloud.region`, `gcp.project_id`) labels the series. `prometheus` is scraped from `/metrics`
on the health port. No exporter blocks the worker: each runs in its own thread.
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, assert_never

import google.auth
from google.auth.exceptions import DefaultCredentialsError
from google.auth.transport.requests import AuthorizedSession
from google.protobuf.json_format import MessageToDict
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from worker.telemetry.register import REGISTER, Counter

GOOGLE = "https://telemetry.googleapis.com"
# What is left of the 10 s after SIGTERM once the messages are nacked.
FLUSH_SECONDS = 1.0
EXPORT_SECONDS = 5.0
ID_FIELDS = ("traceId", "spanId", "parentSpanId")

MetricsExporter = Literal["none", "prometheus", "otlp", "gcp"]
TracesExporter = Literal["none", "otlp", "gcp", "file"]


class ExportRefused(Exception):
    """The configured exporter is not available; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Destinations:
    """Configured exporters. `traces_file` is required for traces to a file."""

    metrics: MetricsExporter
    traces: TracesExporter
    traces_file: Path | None
    worker: str
    version: str


@contextmanager
def exporting(destinations: Destinations) -> Iterator[Callable[[], bytes] | None]:
    """Install the providers; yield the renderer of `/metrics`, or None if Prometheus is not the exporter.

    Leaving the block flushes for `FLUSH_SECONDS` and drops the rest. Raises `ExportRefused`.
    """
    resource = Resource.create(
        {
            "service.name": "klipstream-worker",
            "service.version": destinations.version,
            "service.instance.id": destinations.worker,
        }
    )
    registry = CollectorRegistry()
    reader = _metric_reader(destinations.metrics, registry)
    meters = MeterProvider([reader] if reader else [], resource, shutdown_on_exit=False)
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    if exporter := _span_exporter(destinations):
        tracers.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=EXPORT_SECONDS * 1000))
    if reader:
        metrics.set_meter_provider(meters)
        for metric in REGISTER:
            if isinstance(metric, Counter):
                metric.begin()
    if exporter:
        trace.set_tracer_provider(tracers)
    try:
        yield (lambda: generate_latest(registry)) if destinations.metrics == "prometheus" else None
    finally:
        _in_time(tracers.shutdown, meters.shutdown)


def _metric_reader(exporter: MetricsExporter, registry: CollectorRegistry) -> MetricReader | None:
    match exporter:
        case "none":
            return None
        case "prometheus":
            return PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=registry)
        case "otlp":
            return PeriodicExportingMetricReader(OTLPMetricExporter(timeout=EXPORT_SECONDS))
        case "gcp":
            session = _google_session()
            google = OTLPMetricExporter(f"{GOOGLE}/v1/metrics", timeout=EXPORT_SECONDS, session=session)
            return PeriodicExportingMetricReader(google)
        case _:
            assert_never(exporter)


def _span_exporter(destinations: Destinations) -> SpanExporter | None:
    match destinations.traces:
        case "none":
            return None
        case "otlp":
            return OTLPSpanExporter(timeout=EXPORT_SECONDS)
        case "gcp":
            return OTLPSpanExporter(f"{GOOGLE}/v1/traces", timeout=EXPORT_SECONDS, session=_google_session())
        case "file":
            return OtlpFile(_opened(destinations.traces_file))
        case _:
            assert_never(destinations.traces)


def _opened(file: Path | None) -> TextIO:
    if file is None:
        raise ExportRefused("TRACES_EXPORTER=file needs TRACES_FILE")
    try:
        return file.open("a", encoding="utf-8")
    except OSError as exc:
        raise ExportRefused(f"TRACES_FILE {file}: {exc.strerror}") from exc


class OtlpFile(SpanExporter):
    """Appends each batch to a file, which it owns, as a line of OTLP's JSON encoding."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append the batch; it is in the file on return."""
        self._file.write(json.dumps(_with_hex_ids(MessageToDict(encode_spans(spans)))) + "\n")
        self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        self._file.close()


def _with_hex_ids(value: Any) -> Any:
    """OTLP's JSON writes ids in hexadecimal, where protobuf's writes bytes in base64."""
    if isinstance(value, list):
        return [_with_hex_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.b64decode(item).hex() if name in ID_FIELDS else _with_hex_ids(item) for name, item in value.items()
    }


def _google_session() -> AuthorizedSession:
    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    except DefaultCredentialsError as exc:
        raise ExportRefused(f"an exporter is gcp: {exc}") from exc
    return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]


def _in_time(*works: Callable[[], None]) -> None:
    """Run the flushes concurrently, for `FLUSH_SECONDS` at most."""
    threads = [threading.Thread(target=work, name="telemetry-flush", daemon=True) for work in works]
    for thread in threads:
        thread.start()
    give_up_at = time.monotonic() + FLUSH_SECONDS
    for thread in threads:
        thread.join(max(0.0, give_up_at - time.monotonic()))
