"""The commands on single jobs and on many. Each imports what it needs when it is run: help stays fast."""

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.codes import CaptionFormat, Method
from worker.dlq_cli import Json

KeytermOption = Annotated[list[str] | None, typer.Option("--keyterm", help="name or term to prefer; repeat for more")]
KeytermsFile = Annotated[
    Path | None, typer.Option("--keyterms-file", help="keyterms, one a line", exists=True, dir_okay=False)
]


def submit(
    audio: Annotated[str, typer.Argument(help="gs://bucket/object, or a file here, which is uploaded first")],
    video_id: Annotated[str | None, typer.Option(help="names the artefacts; default: the name of the file")] = None,
    job_id: Annotated[str | None, typer.Option(help="idempotency key; default: a new one")] = None,
    force_method: Annotated[Method, typer.Option(help="beats every routing rule")] = Method.AUTO,
    output: Annotated[list[CaptionFormat] | None, typer.Option(help="captions besides the standard files")] = None,
    keyterm: KeytermOption = None,
    keyterms_file: KeytermsFile = None,
    urgent: Annotated[bool, typer.Option("--urgent", help="priority urgent: taken before other jobs")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="until the job has ended; exit 1 if it failed")] = False,
    bucket: Annotated[str | None, typer.Option(envvar="AUDIO_BUCKET", help="where a file is uploaded to")] = None,
    timeout: Annotated[float, typer.Option(help="seconds to wait at most")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Publish a job."""
    from schemas.job import URGENT
    from worker.commands.audio_file import located, video_id_of
    from worker.commands.keyterms import keyterms_of
    from worker.commands.submit import submit as command

    keyterms = keyterms_of(keyterm or [], keyterms_file)
    video_id = video_id or video_id_of(audio)
    audio_uri = located(audio, bucket, video_id)
    job: dict[str, Any] = {
        "job_id": job_id or f"{video_id[:100]}-{uuid.uuid4().hex[:8]}",
        "video_id": video_id,
        "audio_uri": audio_uri,
        "metadata": {"audio_uri": audio_uri},
        "force_method": force_method.value,
        "outputs": [wanted.value for wanted in output or []],
        **({"keyterms": keyterms} if keyterms else {}),
        **({"priority": URGENT} if urgent else {}),
    }
    command(job, wait=wait, timeout_seconds=timeout, as_json=as_json)


def watch(as_json: Json = False) -> None:
    """Print completion events as they come."""
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
        log_query(job_id)
    else:
        command(job_id, as_json=as_json)
