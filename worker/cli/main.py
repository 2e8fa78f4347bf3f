"""The commands. Each imports what it needs when it is run: help and usage errors stay fast."""

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from schemas.codes import Artefact, Channels, Method
from worker.cli.dlq import dlq
from worker.cli.jobs import ChannelsOption, KeytermOption, KeytermsFile, job, submit, watch
from worker.commands.group import (
    EXIT_CODES,
    CommandGroup,
    Json,
    OpensBrowser,
    PagePort,
    Timeout,
    Verbose,
    examples,
    finite,
    run_to_exit,
)


class LocalOutput(StrEnum):
    """Formats that `transcribe` writes besides the standard files."""

    SRT = "srt"
    VTT = "vtt"
    HTML = "html"


Urls = Annotated[list[str] | None, typer.Argument(help="addresses of health ports; default: the one here")]
Since = Annotated[str, typer.Option(help="how far back: 36h, 7d, 2w")]

app = typer.Typer(
    cls=CommandGroup,
    name="klipstream-worker",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

WORKER, TRY, JOBS, OPERATE, MODELS = "A worker", "See it work", "Jobs", "Operate a fleet", "Models"
"""Panels of the help."""


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version
        from platform import python_version

        typer.echo(f"klipstream-worker {version('klipstream-worker')}, Python {python_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version and exit")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error; at any place")] = False,
) -> None:
    """Transcription jobs from Pub/Sub: Parakeet on this machine, Deepgram as the fallback."""


@app.command(rich_help_panel=WORKER)
def run() -> None:
    """Run the worker: pull jobs until SIGTERM. Settings come from the environment."""
    from worker.commands.run import run as command

    command()


@app.command(rich_help_panel=WORKER)
def check(as_json: Json = False) -> None:
    """Verify everything that [b]run[/] needs; each line is ok or says what to do."""
    from worker.commands.check import check as command

    command(as_json=as_json)


@app.command(rich_help_panel=WORKER, epilog=examples("health http://10.0.0.5:8080"))
def health(
    url: Annotated[str | None, typer.Argument(help="address of its health port; default: HEALTH_PORT here")] = None,
    live: Annotated[bool, typer.Option("--live", help="only whether it should be left alone")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document, as without a terminal")] = False,
) -> None:
    """Print the worker's health, through a pipe as JSON; exit 1 unless it can do jobs now, as container checks need."""
    from worker.commands.health import health as command

    command(url, "live" if live else "health", as_json=as_json)


@app.command(rich_help_panel=WORKER, epilog=examples("top", "top http://10.0.0.5:8080 http://10.0.0.6:8080"))
def top(
    url: Urls = None,
    interval: Annotated[
        float, typer.Option(help="seconds between two looks", min=0.2, max=3600, callback=finite)
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="print one look and end, as without a terminal")] = False,
    as_json: Json = False,
) -> None:
    """Workers at a glance: jobs with their progress, speed, GPU, cost so far, fallback share."""
    from worker.commands.top import top as command

    command(url or [], interval_seconds=interval, once=once, as_json=as_json)


if find_spec("worker.cli.checkout"):
    from worker.cli.checkout import demo, dev, emulators

    app.command(rich_help_panel=TRY)(demo)
    app.command(rich_help_panel=TRY, epilog=examples("emulators", "emulators --env"))(emulators)
    app.command(rich_help_panel=TRY)(dev)
else:  # the wheel

    def _needs_a_checkout(context: typer.Context) -> None:
        """A checkout has this command."""
        from worker.commands.console import EXIT_USAGE, fail, note

        note("the wheel leaves out the development servers, the tiny model and the recordings; a checkout has them")
        program = ".venv/bin/klipstream-worker"
        fail(f"run the command in a checkout: make install, then {program} {context.info_name}", EXIT_USAGE)

    for _name in ("demo", "emulators", "dev"):
        _any = {"ignore_unknown_options": True, "allow_extra_args": True}
        app.command(_name, rich_help_panel=TRY, context_settings=_any)(_needs_a_checkout)


@app.command(rich_help_panel=WORKER, epilog=examples("page http://10.0.0.5:8080 http://10.0.0.6:8080"))
def page(
    url: Urls = None,
    port: PagePort = 8090,
    browser: OpensBrowser = True,
) -> None:
    """Serve a read-only page of a fleet, from reachable health ports and the state bucket, with your credentials."""
    from worker.commands.page import page as command

    command(url or [], port=port, opens_browser=browser)


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples("validate --hours 0.5 --bucket my-audio", "validate gs://my-audio/talk.mp3 --method deepgram"),
)
def validate(
    audio: Annotated[
        list[str] | None, typer.Argument(help="gs://bucket/object, or a file here; default: made speech")
    ] = None,
    hours: Annotated[
        list[float] | None,
        typer.Option(
            help="hours of synthetic speech; default without AUDIO: 0.5, 2 and 4", min=0.001, max=1000, callback=finite
        ),
    ] = None,
    method: Annotated[list[Method] | None, typer.Option(help="each is forced on every audio; default: auto")] = None,
    copies: Annotated[int, typer.Option(help="jobs of each audio and method", min=1, max=100_000)] = 1,
    at_once: Annotated[int, typer.Option(help="jobs in flight at once", min=1)] = 1,
    bucket: Annotated[
        str | None, typer.Option(envvar="AUDIO_BUCKET", help="where speech and files are uploaded to")
    ] = None,
    timeout: Timeout = 3600.0,
    as_json: Json = False,
) -> None:
    """Run the acceptance test of a deployed environment: send jobs and judge them by the promises."""
    from worker.commands.validate import AcceptancePlan
    from worker.commands.validate import validate as command

    plan = AcceptancePlan(
        audio=audio or [],
        hours=hours or ([] if audio else [0.5, 2.0, 4.0]),
        methods=method or [Method.AUTO],
        copies=copies,
        at_once=at_once,
        bucket=bucket,
        timeout_seconds=timeout,
    )
    command(plan, as_json=as_json)


@app.command(
    rich_help_panel=JOBS,
    epilog=examples("transcribe talk.mp3", "transcribe *.mp3 --out transcripts --output srt --output html"),
)
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="audio files", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="folder for the artefacts; default: here", file_okay=False)] = Path(),
    video_id: Annotated[str | None, typer.Option(help="for one file; default: the file's name")] = None,
    output: Annotated[
        list[LocalOutput] | None,
        typer.Option(help="captions, or a page to read, besides the standard files"),
    ] = None,
    keyterm: KeytermOption = None,
    keyterms_file: KeytermsFile = None,
    channels: ChannelsOption = Channels.MIX,
    embed_audio: Annotated[
        bool, typer.Option("--embed-audio", help="for the page: the audio inside it, not beside it")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite files that are not of the same audio")] = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Print the text of local files, and write words, paragraphs and transcript (audio_NAME_...) without Pub/Sub."""
    from worker.commands.job_fields import Choices, Outputs, keyterms_of
    from worker.commands.transcribe import transcribe as command

    wanted = output or []
    if embed_audio and "html" not in wanted:
        raise typer.BadParameter("goes with --output html", param_hint="--embed-audio")
    captions = frozenset(Artefact[name.name] for name in wanted if name != "html")
    place: Literal["inside", "beside"] = "inside" if embed_audio else "beside"
    command(
        files,
        Outputs(folder=out, captions=captions, page=place if "html" in wanted else None),
        Choices(keyterms=keyterms_of(keyterm or [], keyterms_file), channels=channels),
        video_id=video_id,
        as_json=as_json,
        overwrites=force,
        verbose=verbose,
    )


@app.command(rich_help_panel=MODELS, epilog=examples("accuracy --manifest test.jsonl"))
def accuracy(
    manifest: Annotated[
        Path, typer.Option(help="JSON lines with audio_filepath and text, as NeMo's", exists=True, dir_okay=False)
    ],
    keyterm: KeytermOption = None,
    keyterms_file: KeytermsFile = None,
    as_json: Json = False,
) -> None:
    """Word error rate of files whose words are known, by file, format and condition, with the model that is set."""
    from worker.commands.accuracy import accuracy as command
    from worker.commands.job_fields import keyterms_of

    command(manifest, keyterms=keyterms_of(keyterm or [], keyterms_file), as_json=as_json)


@app.command(rich_help_panel=MODELS, epilog=examples("prepare nvidia/parakeet-tdt-0.6b-v2 model.nemo"))
def prepare(
    model: Annotated[str, typer.Argument(help="a hub name, or a path to a .nemo file")],
    out: Annotated[Path, typer.Argument(help="the .nemo file to write", dir_okay=False)],
    precision: Annotated[
        Literal["bfloat16", "float16", "float32"], typer.Option(help="GPU_PRECISION of the workers that will read it")
    ] = "bfloat16",
) -> None:
    """Write a model in the precision that it is used in, half the bytes to load, with its checksum note."""
    from worker.commands.prepare import prepare as command

    command(model, out, precision)


@app.command(rich_help_panel=OPERATE, epilog=examples("costs --since 30d --html costs.html", "costs --explain"))
def costs(
    since: Since = "7d",
    file: Annotated[
        Path | None,
        typer.Option(
            help="events as JSON lines (as [b]watch --json[/] prints them), not the state bucket",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="write a page with plots there as well", dir_okay=False)] = None,
    explain: Annotated[bool, typer.Option("--explain", help="how prices and speed make the savings")] = False,
    as_json: Json = False,
) -> None:
    """Show the costs of jobs by day and engine, and the savings against Deepgram."""
    from worker.commands import costs as command

    if explain:
        command.explain(as_json=as_json)
    else:
        command.costs(since, file, html, as_json=as_json)


@app.command(
    rich_help_panel=OPERATE,
    epilog=examples("canary --table my-project.klipstream.costs", "canary --by group --file events.jsonl"),
)
def canary(
    by: Annotated[
        Literal["revision", "group"], typer.Option(help="what is compared: revisions, or groups of the roll-out")
    ] = "revision",
    old: Annotated[str | None, typer.Option(help="default: the revision before the newest; deepgram")] = None,
    new: Annotated[str | None, typer.Option(help="default: the newest revision; parakeet")] = None,
    since: Since = "1d",
    table: Annotated[
        str | None, typer.Option(help="PROJECT.DATASET.TABLE, read with bq", envvar="COST_TABLE_NAME")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="exported cost events as JSON lines, not BigQuery", exists=True, dir_okay=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Is the new revision as good as the old one? pass, fail (exit 1), or not enough jobs yet (exit 3)."""
    from worker.commands import canary as command

    command.canary(by, old, new, since, table, file, as_json=as_json)


_submits = ("submit talk.mp3 --wait", "submit gs://my-audio/talk.mp3 --output srt", "submit --from jobs.csv")
app.command(rich_help_panel=JOBS, epilog=examples(*_submits))(submit)
app.command(rich_help_panel=JOBS, epilog=examples("watch --json", "watch --until-done jobs.csv"))(watch)
app.command(rich_help_panel=JOBS, epilog=examples("job vod-2301234567", "job vod-2301234567 --log"))(job)
app.add_typer(dlq, name="dlq", rich_help_panel=OPERATE)


def main() -> None:
    """Run the command line and exit with its code."""
    run_to_exit(app)
