import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from worker.commands.bulk.journal import Journal, JournalUnusable, open_journal
from worker.commands.bulk.rows import BadRow, BulkJob, Row, job_of
from worker.commands.bulk.submit import RowCounts, RowOutcome, Submission


@dataclass
class Topic:
    """Confirms at once; fails from the `works`-th job on."""

    works: int = 1_000_000
    published: list[str] = field(default_factory=list)

    def publish(self, job: BulkJob) -> "Future[str]":
        future: Future[str] = Future()
        if len(self.published) < self.works:
            self.published.append(job.job_id)
            future.set_result("m")
        else:
            future.set_exception(ConnectionError("the topic is gone"))
        return future


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path / "jobs.journal", "here") as opened:
        yield opened


def rows(count: int, **fields: Any) -> list[Row]:
    return [Row(number=n, fields={"audio_uri": f"gs://bucket/{n}.mp3", **fields}) for n in range(2, count + 2)]


def submitted(
    journal: Journal, topic: Topic, given: Sequence[Row | BadRow], **more: Any
) -> tuple[list[RowOutcome], RowCounts]:
    counts = RowCounts()
    return list(Submission(journal=journal, publish=topic.publish, **more).run(given, counts)), counts


def test_the_same_row_is_the_same_job_whenever_it_is_read() -> None:
    first, again, other = (
        job_of(Row(number=1, fields={"audio_uri": uri, "team_id": team}), {})
        for uri, team in [("gs://bucket/a.mp3", "x"), ("gs://bucket/a.mp3", "y"), ("gs://other/a.mp3", "x")]
    )

    assert isinstance(first, BulkJob)
    assert isinstance(again, BulkJob)
    assert isinstance(other, BulkJob)
    assert first.job_id == again.job_id != other.job_id
    assert first.job_id.startswith("a-")


def test_a_row_that_is_no_job_has_every_violation_and_the_other_rows_go_on(journal: Journal) -> None:
    bad = Row(number=3, fields={"audio_uri": "s3://b/1", "outputs": ["doc"]})

    outcomes, counts = submitted(journal, topic := Topic(), [*rows(1), bad, *rows(3)[2:]])

    assert (counts.submitted, counts.bad, len(topic.published)) == (2, 1, 2)
    (found,) = (each for each in outcomes if each.status == "bad")
    assert found.row == 3
    assert [fault.split(":")[0] for fault in found.faults] == ["audio_uri", "outputs.0"]


def test_a_second_run_publishes_what_the_first_did_not(journal: Journal) -> None:
    topic = Topic(works=700)
    with pytest.raises(ConnectionError):
        submitted(journal, topic, rows(1200))
    topic.works = 5000

    _, counts = submitted(journal, topic, rows(1200))

    assert (counts.submitted, counts.known) == (500, 700)
    assert len(topic.published) == len(set(topic.published)) == 1200


def test_rows_that_are_one_job_are_published_once_unless_asked(journal: Journal) -> None:
    topic = Topic()

    _, first = submitted(journal, topic, [*rows(1), *rows(1)])
    _, again = submitted(journal, topic, rows(1), repeats=True)

    assert (first.submitted, first.known, again.submitted) == (1, 1, 1)


def test_another_topic_has_its_own_part_of_the_journal(journal: Journal) -> None:
    submitted(journal, Topic(), rows(2))

    _, counts = submitted(Journal(database=journal.database, place="there"), Topic(), rows(2))

    assert counts.submitted == 2


@pytest.mark.parametrize(
    ("fields", "fault"),
    [({"job_id": "j"}, "job_id: must be new"), ({}, "video_id: must be given, since the name makes it 'a'")],
)
def test_two_requests_that_would_overwrite_each_other_are_refused(
    journal: Journal, fields: dict[str, str], fault: str
) -> None:
    both = [Row(number=n, fields={"audio_uri": f"gs://bucket/{n}/a.mp3", **fields}) for n in (2, 3)]

    outcomes, counts = submitted(journal, Topic(), both)
    _, later = submitted(journal, Topic(), both[1:])

    assert (counts.submitted, counts.bad, later.bad) == (1, 1, 1)
    assert outcomes[0].faults[0].startswith(fault)


def test_a_rate_spreads_the_jobs_evenly(journal: Journal) -> None:
    waits = list[float]()

    submitted(journal, Topic(), rows(100), per_second=40.0, monotonic=lambda: sum(waits), sleep=waits.append)

    assert waits == [pytest.approx(0.25)] * 10


def test_fields_that_the_worker_ignores_are_counted(journal: Journal) -> None:
    _, counts = submitted(journal, Topic(), rows(3, colour="red"))

    assert counts.ignored == {"colour": 3}


def test_defaults_are_for_rows_without_that_field() -> None:
    given = job_of(
        Row(number=2, fields={"audio_uri": "gs://bucket/1.mp3", "force_method": "deepgram"}), {"force_method": "auto"}
    )

    assert isinstance(given, BulkJob)
    assert b'"force_method": "deepgram"' in given.data


def test_a_journal_that_is_none_or_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no journal" * 100)

    with pytest.raises(JournalUnusable, match="cannot be used"), open_journal(tmp_path / "text", "here"):
        pass
    with pytest.raises(JournalUnusable, match="cannot be used"), open_journal(tmp_path / "no" / "folder", "here"):
        pass


def test_the_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "photos.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table photos (name text)")
    before = path.read_bytes()

    with pytest.raises(JournalUnusable, match="of another program"), open_journal(path, "here"):
        pass

    assert path.read_bytes() == before


def test_ends_are_counted_once_and_a_later_run_replaces_a_failure(journal: Journal) -> None:
    submitted(journal, Topic(), rows(3, job_id=None))
    ids = list(chain(*journal.not_completed()))

    firsts = [journal.note_end(ids[0], "completed", None), journal.note_end(ids[1], "failed", "EXPIRED")]
    again = journal.note_end(ids[1], "completed", None)

    assert (firsts, again, journal.note_end("unknown", "failed", None)) == ([True, True], False, False)
    assert journal.counts() == {"completed": 2, None: 1}
    assert list(chain(*journal.not_completed())) == [ids[2]]
    assert journal.failures() == {}
