"""Keyterms on the command line, good and bad."""

from pathlib import Path

import pytest
import typer

from worker.commands.job_fields import keyterms_of, keyterms_text


def test_both_options_make_one_list_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "terms.txt"
    file.write_text("\ufeffHarbor Nine\n\n  zed \r\n.*\n", encoding="utf-8")

    assert keyterms_of(["KlipStream", "Zed"], file) == (".*", "Harbor Nine", "KlipStream", "Zed")
    assert keyterms_of([], None) == ()


@pytest.mark.parametrize(
    ("terms", "lines", "reason"),
    [
        ([""], None, "--keyterm: must not be empty (got '')"),
        (["a\x1b[2Jb"], None, "--keyterm: must not contain control characters (got 'a\\x1b[2Jb')"),
        (["a b c d e f g"], None, "--keyterm: must have at most 6 words, not 7"),
        (["ok"], "fine\n" + "x" * 61, "terms.txt:2: must have at most 60 characters, not 61"),
        ([], "a\tb", "terms.txt:1: must not contain control characters"),
        ([f"term {number}" for number in range(60)], "one\n" * 41, "keyterms: must have at most 100 items, not 101"),
        ([], b"\xff\xfe", "terms.txt: must be UTF-8"),
    ],
)
def test_what_is_no_keyterm_ends_the_command_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], terms: list[str], lines: str | bytes | None, reason: str
) -> None:
    file = None
    if lines is not None:
        file = tmp_path / "terms.txt"
        file.write_bytes(lines if isinstance(lines, bytes) else lines.encode())

    with pytest.raises(typer.Exit) as ended:
        keyterms_of(terms, file)

    assert ended.value.exit_code == 2
    assert reason in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("found", "unspeakable", "text"),
    [
        ((), (), ""),
        (("Zed", "Harbor Nine"), (), ", keyterms found: Zed, Harbor Nine"),
        (("Zed",), ("名前",), ", keyterms found: Zed, not in the model's vocabulary: 名前"),
    ],
)
def test_a_line_ends_with_what_became_of_the_keyterms(
    found: tuple[str, ...], unspeakable: tuple[str, ...], text: str
) -> None:
    assert keyterms_text(found, unspeakable) == text
