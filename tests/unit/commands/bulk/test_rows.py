import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from worker.commands.bulk.rows import BadRow, FileUnusable, Row, rows_of

HEADER = b"video_id,audio_uri\n"


def read(tmp_path: Path, content: bytes, name: str = "jobs.csv") -> Sequence[Row | BadRow]:
    path = tmp_path / name
    path.write_bytes(content)
    return list(rows_of(path))


@pytest.mark.parametrize(
    "content",
    [
        b"video_id,audio_uri\n1,gs://b/1.mp3\n",
        b"\xef\xbb\xbfvideo_id,audio_uri\r\n1,gs://b/1.mp3\r\n",
        b'"video_id";"audio_uri"\r\n"1";"gs://b/1.mp3"',
        b"video_id\taudio_uri\n1\t gs://b/1.mp3 \n\n",
        b"video_id,audio_uri,\n1,gs://b/1.mp3,\n",
        b"video_id,audio_uri\r1,gs://b/1.mp3\r",
        "video_id,audio_uri\n1,gs://b/1.mp3\n".encode("utf-16"),
    ],
    ids=["plain", "mark and CRLF", "semicolons and quotes", "tabs", "an empty column", "old Mac", "UTF-16"],
)
def test_spreadsheets_of_every_kind_hold_the_same_row(tmp_path: Path, content: bytes) -> None:
    (row,) = read(tmp_path, content)

    assert row == Row(number=2, fields={"video_id": "1", "audio_uri": "gs://b/1.mp3"})


def test_cells_have_the_types_of_their_fields(tmp_path: Path) -> None:
    header = (
        "audio_uri,duration_seconds,audio_generation,outputs,metadata,transcription_config.enable_gpu,metadata.title"
    )
    cells = 'gs://b/1.mp3,12.5,7,srt; vtt,"{""a"": 1}",false,true'

    (row,) = read(tmp_path, f"{header}\n{cells}\n".encode())

    assert isinstance(row, Row)
    assert row.fields == {
        "audio_uri": "gs://b/1.mp3",
        "duration_seconds": 12.5,
        "audio_generation": 7,
        "outputs": ["srt", "vtt"],
        "metadata": {"a": 1, "title": "true"},
        "transcription_config": {"enable_gpu": False},
    }


def test_empty_cells_are_fields_left_out_and_text_stays_text(tmp_path: Path) -> None:
    (row,) = read(tmp_path, b"video_id,audio_uri,duration_seconds,language\n007,gs://b/1.mp3,nan,\n")

    assert isinstance(row, Row)
    assert row.fields == {"video_id": "007", "audio_uri": "gs://b/1.mp3", "duration_seconds": "nan"}


def test_a_bad_row_is_named_and_the_rows_after_it_are_read(tmp_path: Path) -> None:
    content = HEADER + b"1,gs://b/1.mp3,x\n2\nn\xe9,gs://b/3.mp3\n4,gs://b/4.mp3\n"

    rows = read(tmp_path, content)

    assert [(row.number, type(row)) for row in rows] == [(2, BadRow), (3, BadRow), (4, BadRow), (5, Row)]
    faults = [fault for row in rows if isinstance(row, BadRow) for fault in row.faults]
    assert faults[0] == "cells: must be 2 as in row 1 (got 3); a cell with a separator needs quotes"
    assert faults[2] == "video_id: must be UTF-8 (got 'né'); save the file as UTF-8"


def test_a_quote_that_is_not_closed_says_which_rows_it_swallowed(tmp_path: Path) -> None:
    rows = read(tmp_path, HEADER + b'1,gs://b/1.mp3\n2,"gs://b/2.mp3\n3,gs://b/3.mp3\n')

    assert isinstance(rows[0], Row)
    assert isinstance(rows[1], BadRow)
    assert "nothing was read up to row 4" in rows[1].faults[0]


def test_a_cell_of_several_lines_counts_the_lines(tmp_path: Path) -> None:
    rows = read(tmp_path, b'audio_uri,team_id\ngs://b/1.mp3,"a\nb"\ngs://b/2.mp3,c\n')

    assert [row.number for row in rows] == [2, 4]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("jobs.csv", b"", "is empty"),
        ("jobs.xlsx", b"PK", r"must end in \.csv or \.jsonl.*got \.xlsx"),
        ("jobs", b"x", "no ending"),
        ("jobs.csv", b"video_id,audio_url\n", "no column audio_uri but 'video_id', 'audio_url'; rename audio_url"),
        ("jobs.csv", b"1,gs://b/1.mp3\n", "row 1 is a job; it must name the columns"),
        ("jobs.csv", b"audio_uri,team_id,team_id\n", "a column twice: team_id"),
        ("jobs.csv", b"\n\n", "no column audio_uri but nothing"),
        ("jobs.jsonl", b"[{}]\n", "one object a line"),
    ],
)
def test_a_file_that_holds_no_jobs_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    with pytest.raises(FileUnusable, match=reason):
        read(tmp_path, content, name)


def test_json_lines_are_objects_as_they_are(tmp_path: Path) -> None:
    job = {"audio_uri": "gs://b/ü.mp3", "outputs": ["srt"]}
    content = json.dumps(job, ensure_ascii=False).encode() + b'\r\n\n{"a": 1\n"text"\n\xff\n'

    rows = read(tmp_path, content, "jobs.ndjson")

    assert rows[0] == Row(number=1, fields=job)
    assert [row.number for row in rows[1:]] == [3, 4, 5]
    assert [row.faults[0].split(":")[0] for row in rows[1:] if isinstance(row, BadRow)] == ["message"] * 3


@pytest.mark.parametrize("name", ["jobs.csv", "jobs.jsonl"])
def test_a_line_without_end_is_one_bad_row(tmp_path: Path, name: str) -> None:
    beginning = b"audio_uri\n" if name.endswith("csv") else b""

    rows = read(tmp_path, beginning + b"x" * 3_000_000 + b"\n" + b" \n", name)

    assert [type(row) for row in rows] == [BadRow]
