import re
from pathlib import Path

from rich.console import Console

from schemas.speech import Word
from worker.commands.accuracy import FileScore, ManifestEntry, fields, score, table
from worker.core.transcript.word_errors import TimedWord


def scored(name: str, text: str, transcript: str, condition: str = "", keyterms: tuple[str, ...] = ()) -> FileScore:
    entry = ManifestEntry(audio=Path(name), text=text, condition=condition, keyterms=keyterms)
    words = [Word(word, place * 1.0, place + 0.5, 0.9) for place, word in enumerate(transcript.split())]
    return score(entry, 2.0, words)


def rows(scores: list[FileScore]) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(scores))
    lines = capture.get().splitlines()
    return [re.split(" {2,}", line) for line in lines[3:]]


def test_a_file_has_every_figure_as_a_member_of_its_object() -> None:
    found = fields(scored("a.wav", "One two.", "one three", "clean"))

    assert found == {
        "file": "a.wav",
        "format": "wav",
        "condition": "clean",
        "audio_seconds": 2.0,
        "words": 2,
        "word_error_rate_percent": 50.0,
        "written_word_error_rate_percent": 100.0,
        "drift_seconds": None,
        "holes": None,
        "longest_hole_seconds": None,
        "calibration_error": 0.4,
        "keyterm_recall_percent": None,
        "keyterm_precision_percent": None,
        "keyterms_invented_percent": None,
    }


def test_files_are_summed_up_by_condition_and_by_format() -> None:
    scores = [
        scored("a.wav", "one two", "one two", "clean"),
        scored("b.mp3", "one two", "one three", "noise 10 dB"),
        scored("c.wav", "one two", "five six", "noise 10 dB"),
    ]

    errors = {row[0]: row[-3] for row in rows(scores)}

    assert errors == {
        "a.wav": "0.00",
        "b.mp3": "50.00",
        "c.wav": "100.00",
        "all wav": "50.00",
        "all mp3": "50.00",
        "all clean": "0.00",
        "all noise 10 dB": "75.00",
        "all": "50.00",
    }


def test_a_figure_that_no_file_has_is_no_column() -> None:
    assert all(len(row) == 7 for row in rows([scored("a.wav", "one", "one")]))


def test_holes_are_counted_where_the_manifest_has_times() -> None:
    words = tuple(TimedWord(f"w{second}", second * 1.0) for second in range(10))
    entry = ManifestEntry(audio=Path("a.wav"), text=" ".join(word.text for word in words), words=words)
    transcript = [Word(word.text, word.start_seconds, word.start_seconds + 0.5, 0.9) for word in words]

    found = fields(score(entry, 10.0, [*transcript[:1], *transcript[2:4], *transcript[7:]]))

    assert (found["holes"], found["longest_hole_seconds"]) == (1, 2.5)


def test_keyterms_are_counted_over_all_files_of_a_group() -> None:
    terms = ("Zed", "Harbor Nine", "never")
    scores = [
        scored("a.wav", "Zed met Zed.", "zed met ned", keyterms=terms),
        scored("b.wav", "At Harbor Nine.", "zed harbor nine", keyterms=terms),
        scored("c.wav", "Nothing.", "nothing", keyterms=terms),
    ]

    found = [fields(one) for one in scores]
    (every,) = (row for row in rows(scores) if row[0] == "all")

    assert [one["keyterm_recall_percent"] for one in found] == [50.0, 100.0, None]
    assert [one["keyterm_precision_percent"] for one in found] == [100.0, 50.0, None]
    assert [one["keyterms_invented_percent"] for one in found] == [0.0, 33.333, 0.0]
    assert every[-3:] == ["66.67", "66.67", "14.29"]
