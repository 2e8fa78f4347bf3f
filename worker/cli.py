"""The commands. Each imports what it needs when it is run: help and usage errors stay fast."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from schemas.codes import CaptionFormat, Channels, Method
from worker.commands.group import EXIT_CODES, CommandGroup, examples, run_to_exit
from worker.dlq_cli import Json, dlq
from worker.jobs_cli import KeytermOption, KeytermsFile, job, submit, watch


class LocalOutput(StrEnum):
    """Formats that `transcribe` writes besides the standard files."""

    SRT = "srt"
    VTT = "vtt"
    HTML = "html"


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

PubSubPort = Annotated[int, typer.Option(help="port of the Pub/Sub server; 0: any free one")]
StoragePort = Annotated[int, typer.Option(help="port of the Cloud Storage server; 0: any free one")]
PagePort = Annotated[int, typer.Option(help="port of the page; 0: any free one")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="show log lines on stderr")]
OpensBrowser = Annotated[bool, typer.Option(help="open the page where there is a browser")]


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
    url: Annotated[list[str] | None, typer.Argument(help="addresses of health ports; default: the one here")] = None,
    interval: Annotated[float, typer.Option(help="seconds between two looks", min=0.2)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="print one look and end")] = False,
    as_json: Json = False,
) -> None:
    """Workers at a glance: jobs with their progress, speed, GPU, cost so far, fallback share."""
    from worker.commands.top import top as command

    command(url or [], interval_seconds=interval, once=once, as_json=as_json)


@app.command(rich_help_panel=TRY)
def demo(
    audio: Annotated[
        Path | None, typer.Argument(help="your own audio instead of the samples", exists=True, dir_okay=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for what it leaves")] = Path("demo-output"),
    fallback: Annotated[
        bool, typer.Option("--fallback", help="kill the inference process at work; a stand-in for Deepgram steps in")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Three jobs through the whole worker on this machine; no cloud account, no GPU."""
    from worker.commands.console import demand_checkout

    demand_checkout("demo")
    if fallback:
        if audio is not None:
            raise typer.BadParameter("the stand-in for Deepgram knows the samples only", param_hint="AUDIO")
        from worker.commands.demo_fallback import demo_fallback

        demo_fallback(out, verbose=verbose)
        return
    from worker.commands.demo import demo as command

    command(audio, out, verbose=verbose)


@app.command(rich_help_panel=TRY, epilog=examples("emulators", "emulators --env"))
def emulators(
    root: Annotated[Path, typer.Option(help="folder for the objects")] = Path("demo-output/gcs"),
    pubsub_port: PubSubPort = 8085,
    storage_port: StoragePort = 4443,
    pubsub_host: Annotated[
        str | None, typer.Option(help="host:port of Google's emulator: make the topics there, start no server of ours")
    ] = None,
    env: Annotated[bool, typer.Option("--env", help="only print the exports, for eval; start nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the variables as one JSON document, not as exports")] = False,
) -> None:
    """Development servers for Pub/Sub and Cloud Storage, in the foreground."""
    from worker.commands.console import demand_checkout

    demand_checkout("emulators")
    from worker.commands import emulators as command

    if env:
        pubsub, storage = pubsub_host or f"127.0.0.1:{pubsub_port}", f"http://127.0.0.1:{storage_port}"
        command.print_environment(pubsub, storage, as_json=as_json)
        return
    ports = {"pubsub_port": pubsub_port, "storage_port": storage_port}
    command.emulators(root, **ports, pubsub_host=pubsub_host, as_json=as_json)


@app.command(rich_help_panel=TRY)
def dev(
    root: Annotated[Path, typer.Option(help="folder for objects, uploads and the log")] = Path("dev-output"),
    port: PagePort = 8090,
    pubsub_port: PubSubPort = 8085,
    storage_port: StoragePort = 4443,
    browser: OpensBrowser = True,
) -> None:
    """Everything on this machine: development servers, a worker, and a page to drop audio on. Ctrl-C ends it all."""
    from worker.commands.console import demand_checkout

    demand_checkout("dev")
    from worker.commands.dev import Ports
    from worker.commands.dev import dev as command

    command(root, Ports(page=port, pubsub=pubsub_port, storage=storage_port), opens_browser=browser)


@app.command(rich_help_panel=WORKER, epilog=examples("page http://10.0.0.5:8080 http://10.0.0.6:8080"))
def page(
    url: Annotated[list[str] | None, typer.Argument(help="addresses of health ports; default: the one here")] = None,
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
        typer.Option(help="hours of synthetic speech; default without AUDIO: 0.5, 2 and 4", min=0.001),
    ] = None,
    method: Annotated[list[Method] | None, typer.Option(help="each is forced on every audio; default: auto")] = None,
    copies: Annotated[int, typer.Option(help="jobs of each audio and method", min=1)] = 1,
    at_once: Annotated[int, typer.Option(help="jobs in flight at once", min=1)] = 1,
    bucket: Annotated[
        str | None, typer.Option(envvar="AUDIO_BUCKET", help="where speech and files are uploaded to")
    ] = None,
    timeout: Annotated[float, typer.Option(help="seconds to wait at most")] = 3600.0,
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
        list[LocalOutput] | None, typer.Option(help="captions, or a page to read, besides the standard files")
    ] = None,
    keyterm: KeytermOption = None,
    keyterms_file: KeytermsFile = None,
    channels: Annotated[Channels, typer.Option(help="apart: each channel is transcribed by itself")] = Channels.MIX,
    embed_audio: Annotated[
        bool, typer.Option("--embed-audio", help="for the page: the audio inside it, not beside it")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite files that are not of the same audio")] = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Print the text of local files, and write words, paragraphs and transcript (audio_NAME_...) without Pub/Sub."""
    from worker.commands.keyterms import keyterms_of
    from worker.commands.transcribe import Choices, PageOptions
    from worker.commands.transcribe import transcribe as command

    captions = [CaptionFormat(wanted.value) for wanted in output or [] if wanted is not LocalOutput.HTML]
    page = PageOptions(embeds_audio=embed_audio) if LocalOutput.HTML in (output or []) else None
    command(
        files,
        out,
        video_id=video_id,
        captions=captions,
        page=page,
        choices=Choices(keyterms=keyterms_of(keyterm or [], keyterms_file), channels=channels),
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
    from worker.commands.keyterms import keyterms_of

    command(manifest, keyterms=keyterms_of(keyterm or [], keyterms_file), as_json=as_json)


@app.command(rich_help_panel=MODELS, epilog=examples("prepare nvidia/parakeet-tdt-0.6b-v2 model.nemo"))
def prepare(
    model: Annotated[str, typer.Argument(help="a hub name, or a path to a .nemo file")],
    out: Annotated[Path, typer.Argument(help="the .nemo file to write", dir_okay=False)],
    precision: Annotated[str, typer.Option(help="GPU_PRECISION of the workers that will read it")] = "bfloat16",
) -> None:
    """Write a model in the precision that it is used in, half the bytes to load, with its checksum note."""
    from worker.commands.prepare import prepare as command

    if precision not in {"bfloat16", "float16", "float32"}:
        raise typer.BadParameter("is bfloat16, float16 or float32", param_hint="--precision")
    command(model, out, precision)  # type: ignore[arg-type]


@app.command(rich_help_panel=OPERATE, epilog=examples("costs --since 30d --html costs.html", "costs --explain"))
def costs(
    since: Annotated[str, typer.Option(help="how far back: 36h, 7d, 2w")] = "7d",
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
    by: Annotated[str, typer.Option(help="what is compared: revision, or group (of the roll-out)")] = "revision",
    old: Annotated[str | None, typer.Option(help="default: the revision before the newest; deepgram")] = None,
    new: Annotated[str | None, typer.Option(help="default: the newest revision; parakeet")] = None,
    since: Annotated[str, typer.Option(help="how far back: 36h, 7d, 2w")] = "1d",
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
    from worker.commands.console import EXIT_USAGE, fail

    if by not in {"revision", "group"}:
        fail(f"--by {by}: say revision or group", EXIT_USAGE)
    command.canary("group" if by == "group" else "revision", old, new, since, table, file, as_json=as_json)


_submits = ("submit talk.mp3 --wait", "submit gs://my-audio/talk.mp3 --output srt", "submit --from jobs.csv")
app.command(rich_help_panel=JOBS, epilog=examples(*_submits))(submit)
app.command(rich_help_panel=JOBS, epilog=examples("watch --json", "watch --until-done jobs.csv"))(watch)
app.command(rich_help_panel=JOBS, epilog=examples("job vod-2301234567", "job vod-2301234567 --log"))(job)
app.add_typer(dlq, name="dlq", rich_help_panel=OPERATE)


def main() -> None:
    """Run the command line and exit with its code."""
    run_to_exit(app)
