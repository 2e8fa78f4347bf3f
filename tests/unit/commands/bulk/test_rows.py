import json
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import pytest

from schemas.job import TranscriptionJob
from worker.commands.bulk.rows import LISTS, VALUES, BadRow, FileUnusable, Row, rows_of

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


def test_every_field_that_is_no_text_is_read_as_what_it_is() -> None:
    schema = TranscriptionJob.model_json_schema()
    kinds = {
        name: {str(option.get("type", "object")) for option in (field, *field.get("anyOf", ()))}
        for name, field in schema["properties"].items()
        if {"type", "anyOf", "$ref"} & field.keys()
    }

    assert {name for name, found in kinds.items() if "array" in found} == LISTS
    numbers = {name for name, found in kinds.items() if found & {"integer", "number"}}
    assert numbers | {"metadata", "transcription_config"} == VALUES


@pytest.mark.parametrize("text", ["TRUE", "True", "true"])
def test_a_flag_is_read_as_spreadsheets_write_it(tmp_path: Path, text: str) -> None:
    (row,) = read(tmp_path, f"audio_uri,transcription_config.enable_gpu\ngs://b/1.mp3,{text}\n".encode())

    assert isinstance(row, Row)
    assert row.fields["transcription_config"] == {"enable_gpu": True}


def test_a_deep_or_a_long_cell_is_one_bad_row(tmp_path: Path) -> None:
    deep, long = "[" * 100_000, "x" * 200_000
    rows = read(tmp_path, f"audio_uri,metadata\ngs://b/1.mp3,{deep}\ngs://b/2.mp3,{long}\ngs://b/3.mp3,\n".encode())

    assert isinstance(rows[0], Row)
    assert rows[0].fields["metadata"] == deep
    assert isinstance(rows[1], BadRow)
    assert rows[1].faults == ("quotes: field larger than field limit (131072)",)
    assert isinstance(rows[2], Row)


def test_a_pipe_is_read_once_and_whole(tmp_path: Path) -> None:
    path, content = tmp_path / "jobs.csv", HEADER + b"".join(b"%d,gs://b/%d.mp3\n" % (n, n) for n in range(1000))
    os.mkfifo(path)
    writer = Thread(target=path.write_bytes, args=(content,), daemon=True)
    writer.start()

    assert len(list(rows_of(path))) == 1000
    writer.join()


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
        ("jobs.csv", b"Video ID,Audio_URI\n", "rename Audio_URI to audio_uri"),
        ("jobs.csv", b"1,gs://b/1.mp3\n", "row 1 is a job; it must name the columns"),
        ("jobs.csv", b"audio_uri,team_id,team_id\n", "a column twice: team_id"),
        ("jobs.csv", b"\n\n", "no column audio_uri but nothing"),
        ("jobs.csv", b"x" * 200_000, "no column audio_uri but 'xxx"),
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
