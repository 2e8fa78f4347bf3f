"""Every bench answers --help and refuses an argument that it does not know."""

from pathlib import Path

import pytest

from bench import __main__ as index

BENCHES = sorted(name for name, _ in index.benches())


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_reads_its_arguments_with_a_parser(name: str) -> None:
    text = Path(index.FOLDER, f"{name}.py").read_text("utf-8")

    assert "sys.argv" not in text
