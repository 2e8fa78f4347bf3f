"""The commands on single jobs and on many. Each imports what it needs when it is run: help stays fast."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from schemas.codes import CaptionFormat, Channels, Method
from worker.commands.group import Json, Timeout, finite

KeytermOption = Annotated[list[str] | None, typer.Option("--keyterm", help="name or term to prefer; repeat for more")]
KeytermsFile = Annotated[
    Path | None, typer.Option("--keyterms-file", help="keyterms, one a line", exists=True, dir_okay=False)
]
ChannelsOption = Annotated[Channels, typer.Option(help="apart: each channel is transcribed by itself")]
MANY = "Many jobs"

Audio = Annotated[
    str | None,
    typer.Argument(help="gs://bucket/object, a file here, which is uploaded first, or gs://bucket/folder/* for all"),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from", help="many jobs: a .csv or .jsonl whose names are a job's fields", exists=True, dir_okay=False
    ),
]
Rate = Annotated[str | None, typer.Option(help="50/s, 600/min or 1000/h at most", rich_help_panel=MANY)]
JournalFile = Annotated[
    Path | None, typer.Option(help="keeps what was published; default: FILE.journal", rich_help_panel=MANY)
]
VideoIds = Annotated[
    Literal["name", "folder", "path"] | None,
    typer.Option(help="objects: what names the artefacts; default: name", rich_help_panel=MANY),
]
Again = Annotated[bool, typer.Option("--again", help="publish also what the journal has", rich_help_panel=MANY)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="check every row, publish nothing", rich_help_panel=MANY)]


def submit(
    audio: Audio = None,
    from_: From = None,
    video_id: Annotated[str | None, typer.Option(help="names the artefacts; default: the name of the file")] = None,
    job_id: Annotated[str | None, typer.Option(help="idempotency key; default: a new one")] = None,
    force_method: Annotated[Method, typer.Option(help="beats every routing rule")] = Method.AUTO,
    output: Annotated[list[CaptionFormat] | None, typer.Option(help="captions besides the standard files")] = None,
    keyterm: KeytermOption = None,
    keyterms_file: KeytermsFile = None,
    channels: ChannelsOption = Channels.MIX,
    urgent: Annotated[bool, typer.Option("--urgent", help="priority urgent: taken before other jobs")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="until the job has ended; exit 1 if it failed")] = False,
    bucket: Annotated[str | None, typer.Option(envvar="AUDIO_BUCKET", help="where a file is uploaded to")] = None,
    timeout: Timeout = 3600.0,
    rate: Rate = None,
    journal: JournalFile = None,
    video_id_from: VideoIds = None,
    again: Again = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Publish a job, or thousands from a file or a bucket: run again, it goes on where it stopped."""
    from schemas.job import URGENT
    from worker.commands.job_fields import is_pattern, job_id_of, keyterms_of, video_id_of

    if (audio is None) == (from_ is None):
        raise typer.BadParameter("name the audio, or a file of jobs by --from", param_hint="AUDIO")
    keyterms, captions = keyterms_of(keyterm or [], keyterms_file), [wanted.value for wanted in output or []]
    asked = {"outputs": captions, "keyterms": keyterms, "priority": URGENT if urgent else None}
    chosen = {"channels": channels, "force_method": force_method}
    chosen = {name: one.value for name, one in chosen.items() if one not in {Channels.MIX, Method.AUTO}}
    fields: dict[str, Any] = {name: value for name, value in {**asked, **chosen}.items() if value}
    if audio is not None and not is_pattern(audio):
        given = {"rate": rate, "journal": journal, "video_id_from": video_id_from, "again": again, "dry_run": dry_run}
        _refuse("is for many jobs: --from FILE, or gs://bucket/folder/*", **given)
        from worker.commands.submit import submit as command

        fields["video_id"] = video_id_of(audio) if video_id is None else video_id
        fields["job_id"] = job_id_of(fields["video_id"]) if job_id is None else job_id
        command(audio, bucket, fields, wait=wait, timeout_seconds=timeout, as_json=as_json)
        return
    _refuse("is for one job", video_id=video_id, job_id=job_id)
    _refuse("has nothing to wait for: --dry-run publishes nothing", wait=wait and dry_run)
    from worker.commands.bulk.submit import BulkPlan, submit_many

    plan = BulkPlan(
        file=from_,
        pattern=audio or "",
        defaults=fields,
        rate=rate,
        journal=journal,
        video_id_from=video_id_from or "name",
        repeats=again,
        is_dry=dry_run,
        waits=wait,
        as_json=as_json,
        timeout_seconds=timeout,
    )
    submit_many(plan)


def _refuse(reason: str, **options: object) -> None:
    """End the command where one of the options is set, which do not go with the others."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise typer.BadParameter(reason, param_hint=f"--{name.replace('_', '-')}")


def watch(
    source: Annotated[
        str | None,
        typer.Argument(help="with --until-done: the file or the address of a bulk submission", metavar="FILE"),
    ] = None,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="wait for the jobs of FILE, else of all begun; exit 1 if one failed")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(help="with --until-done: seconds to wait at most", min=0, callback=finite)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print completion events as they come, or wait until many jobs have ended."""
    if until_done:
        from worker.commands.bulk.until_done import until_done as wait_for_all

        wait_for_all(source, timeout_seconds=timeout, as_json=as_json)
        return
    if source is not None or timeout is not None:
        raise typer.BadParameter("goes with --until-done", param_hint="FILE" if source is not None else "--timeout")
    from worker.commands.submit import watch as command

    command(as_json=as_json)


def job(
    job_id: Annotated[str, typer.Argument(help="or its beginning, where one job alone begins so", metavar="ID")],
    log: Annotated[bool, typer.Option("--log", help="only the query that finds its lines in Cloud Logging")] = False,
    as_json: Json = False,
) -> None:
    """One job's story from the state bucket: claim, chunks, faults, cost, events, first words. Changes nothing."""
    from worker.commands.job import job as command
    from worker.commands.job import log_query

    if log:
        log_query(job_id, as_json=as_json)
    else:
        command(job_id, as_json=as_json)
