"""A report as text, table and JSON; the document, section by section."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.document import GPU_UNMEASURED, document, sections, write_section
from bench.machine import Machine, cpu_name
from bench.outcome import deliver
from bench.report import BenchReport, BenchVerdict, Grid, median, spread

MACHINE = Machine(
    cpu="AMD EPYC",
    cores=2,
    memory_gib=23.4,
    gpus=(),
    system="Linux x86_64",
    versions={"Python": "3.11.15", "torch": "2.13.0"},
    date="2026-11-22",
)
KEPT = BenchVerdict(claim="ours / NeMo", measured=2.0, must_be="at least", limit=1.3)
REPORT = BenchReport(
    key="inference-tiny",
    title="Inference",
    command="python -m bench.inference",
    machine=MACHINE,
    grids=(Grid(title="Speed", columns=("way", "times real time"), rows=(("ours", "300.0"), ("NeMo", "150.0"))),),
    figures={"ratio": 2.0},
    verdicts=(KEPT,),
    notes=("In turns.",),
)


def test_a_section_names_its_command_the_machine_the_versions_and_the_day() -> None:
    section = REPORT.markdown()

    assert section.startswith("## Inference\n\n    python -m bench.inference\n")
    for told in ("2026-11-22", "2 cores of AMD EPYC", "no CUDA GPU", "Python 3.11.15", "torch 2.13.0", "In turns."):
        assert told in section


def test_tables_and_promises_are_in_the_section() -> None:
    section = REPORT.markdown()

    assert "| way | times real time |\n| --- | ---: |\n| ours | 300.0 |\n| NeMo | 150.0 |" in section
    assert "| ours / NeMo | 2.00 | at least 1.3 | yes |" in section


@pytest.mark.parametrize(
    ("measured", "must_be", "passed"), [(1.3, "at least", True), (1.29, "at least", False), (1.31, "at most", False)]
)
def test_a_promise_is_kept_up_to_its_limit(measured: float, must_be: str, passed: bool) -> None:
    verdict = BenchVerdict(claim="it", measured=measured, must_be=must_be, limit=1.3)  # type: ignore[arg-type]

    assert verdict.passed is passed


def test_programs_get_the_figures_and_whether_each_promise_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    deliver(REPORT, as_json=True, write=None)

    told = json.loads(capsys.readouterr().out)
    assert told["figures"] == {"ratio": 2.0}
    assert told["machine"]["versions"]["torch"] == "2.13.0"
    assert [verdict["passed"] for verdict in told["verdicts"]] == [True]


def test_a_broken_promise_is_an_exit_status_and_is_written_all_the_same(tmp_path: Path) -> None:
    broken = replace(REPORT, verdicts=(replace(KEPT, measured=1.0),))

    with pytest.raises(SystemExit) as ended:
        deliver(broken, as_json=True, write=tmp_path / "docs" / "BENCHMARKS.md")

    assert ended.value.code == 1
    assert "| ours / NeMo | 1.00 | at least 1.3 | NO |" in (tmp_path / "docs" / "BENCHMARKS.md").read_text()


def test_writing_a_section_again_replaces_it_and_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "BENCHMARKS.md"

    for key, body in (("scale", "## One"), ("decode", "## Two"), ("scale", "## Three")):
        write_section(path, key, body)

    assert sections(path.read_text()) == {"decode": "## Two", "scale": "## Three"}


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9.-]*", fullmatch=True), st.text("ab|\n# ").map(str.strip)))
def test_what_is_written_is_read_again(by_key: dict[str, str]) -> None:
    assert sections(document(by_key)) == by_key


def test_the_document_says_that_the_gpu_part_is_unmeasured_until_a_section_comes_from_one() -> None:
    assert GPU_UNMEASURED in document({"inference-tiny": "x"})
    assert GPU_UNMEASURED not in document({"inference-tiny": "x", "inference-random-0.6b-cuda": "y"})


def test_a_cell_has_the_median_and_the_extremes() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert spread([3.0, 1.0, 2.0]) == "2.0 (1.0 to 3.0)"
    assert spread([3.0]) == "3.0"


def test_the_processor_is_named_as_linux_names_it() -> None:
    assert cpu_name("processor\t: 0\nmodel name\t: AMD EPYC 7B13\ncache size : 512 KB\n") == "AMD EPYC 7B13"
    assert cpu_name("processor: 0\n") is None
