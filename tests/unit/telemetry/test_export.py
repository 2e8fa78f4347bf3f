"""Each exporter in a process of its own: OpenTelemetry takes one provider a process."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from worker.telemetry.export import Destinations, ExportRefused, exporting

PROGRAM = """
import sys, time
from pathlib import Path
from worker.telemetry.export import Destinations, exporting
from worker.telemetry.register import CHUNKS
from worker.telemetry.spans import job_span, stage

metrics, traces, file = sys.argv[1:]
destinations = Destinations(metrics=metrics, traces=traces, traces_file=Path(file), worker="w-1", version="0.1.0")
with exporting(destinations) as render:
    with job_span({}), stage("download"):
        CHUNKS.add(engine="parakeet", outcome="heard")
    if render:
        print(render().decode())
    began = time.monotonic()
print("left after", time.monotonic() - began)
"""


def run(metrics: str, traces: str, file: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, metrics, traces, str(file)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def collector() -> Iterator[tuple[str, dict[str, bytes]]]:
    """An OTLP collector's URL, and the last body that came to each of its paths."""
    bodies: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies[self.path] = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_collector_gets_metrics_and_traces_before_the_worker_is_gone(tmp_path: Path) -> None:
    with collector() as (url, bodies):
        run("otlp", "otlp", tmp_path / "none", OTEL_EXPORTER_OTLP_ENDPOINT=url)

    metrics = ExportMetricsServiceRequest.FromString(bodies["/v1/metrics"]).resource_metrics[0]
    traces = ExportTraceServiceRequest.FromString(bodies["/v1/traces"]).resource_spans[0]
    resource = {attribute.key: attribute.value.string_value for attribute in metrics.resource.attributes}
    assert resource["service.instance.id"] == "w-1"
    assert "klipstream_chunks_total" in {metric.name for metric in metrics.scope_metrics[0].metrics}
    assert {span.name for span in traces.scope_spans[0].spans} == {"job", "download"}


def test_a_missing_collector_does_not_delay_the_worker(tmp_path: Path) -> None:
    said = run("otlp", "otlp", tmp_path / "none", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")

    assert float(said.rpartition("left after")[2]) < 5


def test_prometheus_sees_every_counter_from_the_start(tmp_path: Path) -> None:
    said = run("prometheus", "none", tmp_path / "none")

    assert 'klipstream_chunks_total{engine="parakeet",outcome="heard"} 1.0' in said
    assert 'klipstream_jobs_total{outcome="failed"} 0.0' in said


def test_a_file_gets_a_line_of_otlp_a_batch(tmp_path: Path) -> None:
    run("none", "file", tmp_path / "traces.jsonl")

    (line,) = (tmp_path / "traces.jsonl").read_text().splitlines()
    spans = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert {span["name"] for span in spans} == {"job", "download"}
    assert all(len(bytes.fromhex(span["traceId"])) == 16 for span in spans)


@pytest.mark.parametrize("file", [None, Path("/nonexistent/traces")])
def test_a_file_that_cannot_be_written_is_named(file: Path | None) -> None:
    destinations = Destinations(metrics="none", traces="file", traces_file=file, worker="w", version="1")

    with pytest.raises(ExportRefused, match="TRACES_FILE"), exporting(destinations):
        pass
