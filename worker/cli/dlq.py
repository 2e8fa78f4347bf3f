"""The `dlq` commands. Each imports what it needs when it is run: help and usage errors stay fast."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from worker.commands.group import Json, examples, finite

if TYPE_CHECKING:
    from worker.core.dead_letters.entries import Selection

dlq = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, replay, drop, triage. Looking never consumes.")

Codes = Annotated[list[str] | None, typer.Option("--code", help="only these error codes")]
JobIds = Annotated[list[str] | None, typer.Option("--job", help="only these job ids")]
VideoIds = Annotated[list[str] | None, typer.Option("--video", help="only these video ids")]
MOST_HOURS = 1_000_000
OlderThan = Annotated[
    float | None,
    typer.Option(help="only what failed at least that many hours ago", min=0, max=MOST_HOURS, callback=finite),
]
NewerThan = Annotated[
    float | None,
    typer.Option(help="only what failed at most that many hours ago", min=0, max=MOST_HOURS, callback=finite),
]
Most = Annotated[int, typer.Option(help="messages held at once at most", min=1)]
Names = Annotated[list[str] | None, typer.Argument(help="only these ids, or beginnings of four characters or more")]
MaxReplays = Annotated[int, typer.Option(help="what was replayed that often stays", min=1)]
Execute = Annotated[bool, typer.Option("--execute", help="do it; without this nothing changes")]


@dlq.command("list", epilog=examples("dlq list --by code", "dlq list --newer-than 24"))
def dlq_list(
    code: Codes = None,
    job: JobIds = None,
    video: VideoIds = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    by: Annotated[Literal["code"] | None, typer.Option(help="one group a code, with its ages and its remedy")] = None,
    most: Most = 10_000,
    as_json: Json = False,
) -> None:
    """A table of dead letters, and how many there are of each code with what to do about them."""
    from worker.commands.dlq import show_all

    selection = _selection(code, job, video, older_than, newer_than)
    show_all(selection, most=most, as_json=as_json, by_code=by == "code")


@dlq.command("show", epilog=examples("dlq show 51c6"))
def dlq_show(
    dead_letter_id: Annotated[str, typer.Argument(help="an id, or a beginning of four characters or more")],
    most: Most = 10_000,
    as_json: Json = False,
) -> None:
    """One dead letter: what failed, why, what to do, and the command that replays it; all of it with [b]--json[/]."""
    from worker.commands.dlq import show_one

    show_one(dead_letter_id, most=most, as_json=as_json)


@dlq.command(
    "replay",
    epilog=examples("dlq replay 51c6 --execute", "dlq replay --code AUDIO_NOT_FOUND --set force_method=deepgram"),
)
def dlq_replay(
    dead_letter_id: Names = None,
    code: Codes = None,
    job: JobIds = None,
    video: VideoIds = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    edits: Annotated[list[str] | None, typer.Option("--set", help="field=value, such as force_method=deepgram")] = None,
    rate: Annotated[float, typer.Option(help="messages a second", min=0.01, callback=finite)] = 50.0,
    limit: Annotated[int, typer.Option(help="replay that many at most", min=1)] = 10_000,
    max_replays: MaxReplays = 3,
    most: Most = 10_000,
    execute: Execute = False,
    as_json: Json = False,
) -> None:
    """Publish dead letters again as the next run of their jobs. A dry run without [b]--execute[/]."""
    from worker.commands.dlq import parse_edits, republish
    from worker.core.dead_letters.replay import ReplayRules

    rules = ReplayRules(edits=parse_edits(edits or []), per_second=rate, limit=limit, max_replays=max_replays)
    selection = _selection(code, job, video, older_than, newer_than, dead_letter_id)
    republish(selection, rules, execute=execute, most=most, as_json=as_json)


@dlq.command("drop", epilog=examples("dlq drop --export dropped.jsonl --older-than 720"))
def dlq_drop(
    export: Annotated[Path, typer.Option(help="file of JSON lines that keeps what is dropped; appended to")],
    dead_letter_id: Names = None,
    code: Codes = None,
    job: JobIds = None,
    video: VideoIds = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    most: Most = 10_000,
    execute: Execute = False,
    as_json: Json = False,
) -> None:
    """Remove dead letters after writing them to a file. A dry run without [b]--execute[/]."""
    from worker.commands.dlq import discard

    selection = _selection(code, job, video, older_than, newer_than, dead_letter_id)
    discard(selection, export, execute=execute, most=most, as_json=as_json)


@dlq.command("triage", epilog=examples("dlq triage --code AUDIO_UNDECODABLE"))
def dlq_triage(
    dead_letter_id: Names = None,
    code: Codes = None,
    job: JobIds = None,
    video: VideoIds = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    export: Annotated[Path, typer.Option(help="file of JSON lines that keeps what is dropped")] = Path("dropped.jsonl"),
    max_replays: MaxReplays = 3,
    most: Most = 10_000,
) -> None:
    """Go through dead letters one by one on a terminal: replay, edit, drop or skip each."""
    from worker.commands.dlq_triage import triage

    selection = _selection(code, job, video, older_than, newer_than, dead_letter_id)
    triage(selection, export, max_replays=max_replays, most=most)


def _selection(
    codes: list[str] | None,
    job_ids: list[str] | None,
    video_ids: list[str] | None,
    older_than_hours: float | None,
    newer_than_hours: float | None,
    ids: list[str] | None = None,
) -> "Selection":
    from worker.core.dead_letters.entries import Selection

    if older_than_hours is not None and newer_than_hours is not None and older_than_hours > newer_than_hours:
        reason = f"leaves nothing: no letter is older than {older_than_hours:g} h and newer than {newer_than_hours:g} h"
        raise typer.BadParameter(reason, param_hint="--newer-than")
    return Selection(
        ids=frozenset(ids or ()),
        codes=frozenset(code.upper() for code in codes or ()),
        job_ids=frozenset(job_ids or ()),
        video_ids=frozenset(video_ids or ()),
        older_than=None if older_than_hours is None else timedelta(hours=older_than_hours),
        newer_than=None if newer_than_hours is None else timedelta(hours=newer_than_hours),
    )
