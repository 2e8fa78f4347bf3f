import pytest
from opentelemetry import trace

from tests.support.telemetry import installed_spans, render, value
from worker.telemetry.spans import job_span, stage, stage_in_laps, trace_attributes

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("name", ["traceparent", "googclient_traceparent"])
def test_a_job_continues_the_trace_that_its_message_names(name: str) -> None:
    spans = installed_spans()
    spans.clear()

    with job_span({name: PARENT, "run": "1"}, job_id="j1"), stage("download"):
        carried = trace_attributes()

    download, job = spans.get_finished_spans()
    assert (download.name, job.name) == ("download", "job")
    assert {trace.format_trace_id(span.context.trace_id) for span in (download, job)} == {TRACE_ID}
    assert download.parent == job.context
    assert carried["traceparent"].split("-")[1] == TRACE_ID


def test_a_job_without_a_trace_begins_one() -> None:
    spans = installed_spans()
    spans.clear()

    with job_span({"traceparent": "nonsense"}):
        pass

    (job,) = spans.get_finished_spans()
    assert job.parent is None


def test_outside_of_a_trace_there_is_nothing_to_carry() -> None:
    assert trace_attributes() == {}


def test_a_stage_that_fails_is_timed_as_well() -> None:
    before = value(render(), "klipstream_stage_seconds_count", stage="upload")

    with pytest.raises(OSError, match="disk"), stage("upload"):
        raise OSError("disk")

    assert value(render(), "klipstream_stage_seconds_count", stage="upload") == before + 1


def test_laps_count_only_their_own_time() -> None:
    spans = installed_spans()
    spans.clear()

    with stage_in_laps("decode") as laps:
        with laps.lap():
            pass
        with laps.lap():
            pass

    (span,) = spans.get_finished_spans()
    assert span.name == "decode"
    assert 0 < laps.seconds < 1
