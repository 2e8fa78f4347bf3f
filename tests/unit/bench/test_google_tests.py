from pathlib import Path

import pytest
import typer

from bench.google_tests import main


@pytest.mark.parametrize("made", ["nothing", "folder", "file"])
def test_without_the_sources_nothing_runs_and_the_reader_learns_where_to_get_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: str
) -> None:
    sources = tmp_path / "sources"
    if made == "folder":
        sources.mkdir()
    if made == "file":
        sources.write_text("no archive")

    with pytest.raises(typer.Exit) as ended:
        main(sources)

    assert ended.value.exit_code == 2
    assert "NOT RUN" in capsys.readouterr().err
