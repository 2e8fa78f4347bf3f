import pytest

from tests.support.workers.console import run
from worker.commands.bulk.journal import journal_of
from worker.commands.bulk.rows import VideoIdFrom, _video_id, is_valid_bucket, matcher
from worker.commands.job_fields import is_pattern


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("", "a/b.mp3", True),
        ("vods/", "vods/a/b.mp3", True),
        ("vods/*", "vods/a.mp3", True),
        ("vods/*", "vods/a/b.mp3", False),
        ("vods/**", "vods/a/b.mp3", True),
        ("vods/*.mp3", "vods/a.wav", False),
        ("vods/*/audio/*", "vods/1/audio/a.mp3", True),
        ("vods/a.b*", "vods/aXb1", False),
    ],
)
def test_a_star_matches_within_a_folder_and_two_across(pattern: str, name: str, fits: bool) -> None:
    assert bool(matcher(pattern).fullmatch(name)) is fits


@pytest.mark.parametrize(
    ("below", "source", "video_id"),
    [
        ("a b.mp3", "name", "a-b"),
        ("2301/3fa9.mp3", "folder", "2301"),
        ("2301.mp3", "folder", "2301"),
        ("2301/audio/x.mp3", "path", "2301-audio-x"),
    ],
)
def test_the_video_id_comes_from_the_part_that_is_asked_for(below: str, source: VideoIdFrom, video_id: str) -> None:
    assert _video_id(below, source) == video_id


@pytest.mark.parametrize(
    ("audio", "many"), [("gs://b/a.mp3", False), ("gs://b/", True), ("gs://b/a*", True), ("talk*.mp3", False)]
)
def test_an_address_with_a_star_or_of_a_folder_is_of_many(audio: str, many: bool) -> None:
    assert is_pattern(audio) is many


def test_journals_are_beside_their_file_or_named_for_the_bucket() -> None:
    assert str(journal_of("in/jobs.csv")) == "in/jobs.csv.journal"
    assert str(journal_of("in/jobs.csv.journal")) == "in/jobs.csv.journal"
    assert str(journal_of("gs://vods/2026/*")) == "vods-2026.journal"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "name the audio, or a file of jobs"),
        (["gs://b/a.mp3", "--from", "README.md"], "name the audio, or a file of jobs"),
        (["--from", "README.md", "--job-id", "x"], "is for one job"),
        (["--from", "README.md"], "must end in .csv or .jsonl"),
        (["--from", "missing.csv"], "File 'missing.csv' does not exist"),
        (["--from", "docs"], "docs"),
        (["gs://*/a"], "must have the form"),
        (["gs://b/*", "--rate", "fast"], "--rate fast: write a number"),
        (["gs://b/*", "--rate", "0"], "--rate 0: write a number"),
    ],
)
def test_what_cannot_be_submitted_is_refused_in_one_line(words: list[str], reason: str) -> None:
    done = run("submit", *words, "--dry-run", environment={})

    assert done.exit_code in {1, 2}
    assert reason in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.output


def test_a_bucket_name_may_not_hold_a_star() -> None:
    assert not is_valid_bucket("gs://a*/b")
    assert not is_valid_bucket("gs://a*")
    assert is_valid_bucket("gs://abc/*")


@pytest.mark.parametrize("words", [["jobs.csv"], ["--timeout", "3"], ["jobs.csv", "--until-done"]])
def test_watch_refuses_what_it_cannot_wait_for(words: list[str]) -> None:
    done = run("watch", *words, environment={})

    assert done.exit_code == 2
