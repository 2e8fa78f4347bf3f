"""The journal of a bulk submission: which jobs were published, where, and how they ended. One SQLite file."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.commands.bulk.rows import BulkJob
from worker.commands.job_fields import SCHEME, UNFIT
from worker.settings import CloudSettings

BUSY_SECONDS = 2.0
READ_AT_ONCE = 60
MOST_NAME = 60
SUFFIX = ".journal"
COMPLETED, FAILED = "completed", "failed"

_TABLES = """
create table if not exists jobs (
    place text not null, job_id text not null, video_id text not null, request text not null,
    identity text not null, outcome text, code text, primary key (place, job_id)
) without rowid;
create index if not exists videos on jobs (place, video_id);
"""


def journal_of(source: str) -> Path:
    """Return the default path of a source's journal."""
    if not source.startswith(SCHEME):
        return Path(source) if source.endswith(SUFFIX) else Path(source + SUFFIX)
    name = UNFIT.sub("-", source.removeprefix(SCHEME)).strip("-.")[:MOST_NAME]
    return Path(name + SUFFIX)


def place_of(cloud: CloudSettings) -> str:
    """Return the name of the topic that jobs are published to, and of its server."""
    return f"{cloud.pubsub_emulator_host or 'google'}/{cloud.project_id}/{cloud.jobs_topic}"


class JournalUnusable(ValueError):
    """The file is no journal, cannot be written, or belongs to another command at this moment."""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Published jobs of one place, that is of one topic; a file may have those of several places.

    A killed command loses no more than its last batch: those jobs are published again under the same ids, which makes
    them the same jobs to the worker.
    """

    database: sqlite3.Connection
    place: str

    def request_of(self, job_id: str) -> str | None:
        """Return the fingerprint of the published job; None if it was not published."""
        return self._one("select request from jobs where place = ? and job_id = ?", job_id)

    def identity_of(self, job_id: str) -> str | None:
        """Return the job's identity in its events, empty where it is not known; None for a job of no concern."""
        return self._one("select identity from jobs where place = ? and job_id = ?", job_id)

    def job_of_video(self, video_id: str, other_than: str) -> str | None:
        """Return another job that writes the artefacts of this video."""
        query = "select job_id from jobs where place = ? and video_id = ? and job_id <> ? limit 1"
        return self._one(query, video_id, other_than)

    def add(self, jobs: Iterable[BulkJob]) -> None:
        """Note that the jobs were published; durable on return."""
        self._insert((self.place, job.job_id, job.video_id, job.request, job.identity) for job in jobs)

    def add_ids(self, job_ids: Iterable[str]) -> None:
        """Note jobs of which only the id is known."""
        self._insert((self.place, job_id, "", "", "") for job_id in job_ids)

    def note_end(self, job_id: str, outcome: str, code: str | None) -> bool:
        """Note how a job of this journal ended; return True if it was not known to have ended."""
        open_one = self._one("select job_id from jobs where place = ? and job_id = ? and outcome is null", job_id)
        with self.database:
            update = "update jobs set outcome = ?, code = ? where place = ? and job_id = ?"
            self.database.execute(update, (outcome, code, self.place, job_id))
        return open_one is not None

    def not_completed(self) -> Iterator[Sequence[str]]:
        """Yield the ids of the jobs that are not known to have completed, some at a time."""
        query = (
            "select job_id from jobs where place = ? and job_id > ? "
            "and outcome is not 'completed' order by job_id limit ?"
        )
        after = ""
        while rows := self.database.execute(query, (self.place, after, READ_AT_ONCE)).fetchall():
            found = [str(job_id) for (job_id,) in rows]
            yield found
            after = found[-1]

    def counts(self) -> Mapping[str | None, int]:
        """Return the number of jobs by outcome; None counts those that have not ended."""
        query = "select outcome, count(*) from jobs where place = ? group by outcome"
        return dict(self.database.execute(query, (self.place,)).fetchall())

    def failures(self) -> Mapping[str, int]:
        """Return the number of failed jobs by error code."""
        query = "select code, count(*) from jobs where place = ? and outcome = 'failed' group by code order by 2 desc"
        return {code or "unknown": count for code, count in self.database.execute(query, (self.place,))}

    def _insert(self, rows: Iterable[tuple[str, ...]]) -> None:
        with self.database:
            self.database.executemany("insert or ignore into jobs values (?, ?, ?, ?, ?, null, null)", rows)

    def _one(self, query: str, *values: str) -> str | None:
        found = self.database.execute(query, (self.place, *values)).fetchone()
        return None if found is None else str(found[0])


@contextmanager
def open_journal(path: Path | None, place: str, *, as_copy: bool = False) -> Iterator[Journal]:
    """Open the journal for this command alone; without a path, or `as_copy`, in memory.

    Raises `JournalUnusable`, inside the block as well.
    """
    try:
        database = sqlite3.connect(":memory:" if as_copy or path is None else path, timeout=BUSY_SECONDS)
        if as_copy and path is not None and path.exists():
            with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as original:
                original.backup(database)
        try:
            found = database.execute("select group_concat(name) from sqlite_master where type = 'table'").fetchone()[0]
            if found and "jobs" not in found.split(","):
                raise sqlite3.DatabaseError("it is the database of another program")
            database.execute("pragma locking_mode = exclusive")
            database.execute("pragma journal_mode = wal")  # a commit costs no wait for the disk
            database.executescript(f"begin exclusive; {_TABLES} commit;")
            yield Journal(database=database, place=place)
        finally:
            database.close()
    except sqlite3.Error as exc:
        busy = "locked" in str(exc)
        reason = "is in use by another command" if busy else f"cannot be used as the journal: {exc}"
        raise JournalUnusable(f"{path}: {reason}; submit --journal and watch name another one") from exc
