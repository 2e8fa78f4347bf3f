import ast
from pathlib import Path

import pytest

from tests.support.telemetry import render, value
from worker.core.delivery.fuse import FuseState
from worker.core.transcript.quality import Gate
from worker.telemetry import register
from worker.telemetry.register import (
    CHUNKS,
    FUSE_STATE,
    GATES,
    JOB_SECONDS,
    LEASES_LOST,
    REGISTER,
    Counter,
    Metric,
    UndeclaredLabel,
)

WORKER = Path(register.__file__).parents[1]


def test_a_counter_is_read_back_with_its_labels() -> None:
    before = value(render(), "klipstream_chunks_total", engine="parakeet", outcome="heard")

    CHUNKS.add(engine="parakeet", outcome="heard")
    CHUNKS.add(2, engine="parakeet", outcome="heard")

    assert value(render(), "klipstream_chunks_total", engine="parakeet", outcome="heard") == before + 3


def test_a_histogram_has_the_buckets_it_was_declared_with() -> None:
    before = value(render(), "klipstream_job_seconds_bucket", le="30.0")

    JOB_SECONDS.record(29)

    assert value(render(), "klipstream_job_seconds_bucket", le="30.0") == before + 1


def test_a_state_is_one_of_its_values() -> None:
    render()

    FUSE_STATE.set_one_of("state", "open")

    states = {state: value(render(), "klipstream_fuse_state", state=state) for state in register.FUSE_STATES}
    assert states == {"closed": 0, "testing": 0, "open": 1}


def test_an_undeclared_value_becomes_other_and_is_warned_of() -> None:
    before = value(render(), "klipstream_chunks_total", engine="other", outcome="heard")

    with pytest.warns(UndeclaredLabel, match="engine='whisper'"):
        CHUNKS.add(engine="whisper", outcome="heard")

    assert value(render(), "klipstream_chunks_total", engine="other", outcome="heard") == before + 1


def test_an_undeclared_label_is_warned_of() -> None:
    with pytest.warns(UndeclaredLabel, match="has the labels"):
        LEASES_LOST.add(job_id="j1")


def test_the_labels_are_those_of_the_code() -> None:
    assert set(GATES) == {gate.value for gate in Gate}
    assert set(register.FUSE_STATES) == {state.value for state in FuseState}


def test_names_follow_prometheus() -> None:
    for metric in REGISTER:
        assert metric.name.startswith("klipstream_")
        assert metric.name.endswith("_total") == isinstance(metric, Counter), metric.name
        assert metric.help


def test_every_metric_of_the_register_is_emitted_somewhere_and_declared_nowhere_else() -> None:
    constants = {name for name, metric in vars(register).items() if isinstance(metric, Metric)}
    sources = [path for path in WORKER.rglob("*.py") if path.name != "register.py"]

    trees = [ast.parse(path.read_text()) for path in sources]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}

    assert constants - names - attributes == set()
    assert names & {"Counter", "Gauge", "Histogram"} <= {"Counter"}  # collections.Counter
