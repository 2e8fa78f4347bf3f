"""The commands. Each imports what it needs when it is run: help and usage errors stay fast."""

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.codes import CaptionFormat, Method

app = typer.Typer(
    name="klipstream-worker",
    help="Transcription jobs from Pub/Sub: Parakeet on this machine, Deepgram as the fallback.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)

Json = Annotated[bool, typer.Option("--json", help="one JSON object a line instead of text")]


@app.command()
def run() -> None:
    """The worker: pull jobs until SIGTERM. Settings come from the environment."""
    from worker.commands.run import run as command

    command()


@app.command()
def check(as_json: Json = False) -> None:
    """Verify everything that [b]run[/] needs; each line is ok or says what to do."""
    from worker.commands.check import check as command

    command(as_json=as_json)


@app.command()
def demo(
    audio: Annotated[Path | None, typer.Argument(help="your own audio instead of the samples", exists=True)] = None,
    out: Annotated[Path, typer.Option(help="folder for what it leaves")] = Path("demo-output"),
) -> None:
    """Three jobs through the whole worker on this machine; no cloud account, no GPU."""
    from worker.commands.demo import demo as command

    command(audio, out)


@app.command()
def emulators(
    root: Annotated[Path, typer.Option(help="folder for the objects")] = Path("demo-output/gcs"),
    pubsub_port: Annotated[int, typer.Option(help="0: any free one")] = 8085,
    storage_port: Annotated[int, typer.Option(help="0: any free one")] = 4443,
) -> None:
    """Development servers for Pub/Sub and Cloud Storage, in the foreground."""
    from worker.commands.emulators import emulators as command

    command(root, pubsub_port=pubsub_port, storage_port=storage_port)


@app.command()
def submit(
    audio_uri: Annotated[str, typer.Argument(help="gs://bucket/object")],
    video_id: Annotated[str, typer.Option(help="names the artefacts")],
    job_id: Annotated[str | None, typer.Option(help="idempotency key; default: a new one")] = None,
    force_method: Annotated[Method, typer.Option(help="beats every routing rule")] = Method.AUTO,
    output: Annotated[list[CaptionFormat] | None, typer.Option(help="captions besides the standard files")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="until the job has ended; exit 1 if it failed")] = False,
    timeout: Annotated[float, typer.Option(help="seconds to wait at most")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Publish a job."""
    from worker.commands.submit import submit as command

    job: dict[str, Any] = {
        "job_id": job_id or f"{video_id}-{uuid.uuid4().hex[:8]}",
        "video_id": video_id,
        "audio_uri": audio_uri,
        "force_method": force_method.value,
        "outputs": [wanted.value for wanted in output or []],
    }
    command(job, wait=wait, timeout_seconds=timeout, as_json=as_json)


@app.command()
def watch(as_json: Json = False) -> None:
    """Print completion events as they come."""
    from worker.commands.submit import watch as command

    command(as_json=as_json)


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="audio files", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="folder for the artefacts", file_okay=False)],
    video_id: Annotated[str | None, typer.Option(help="for one file; default: the file's name")] = None,
    output: Annotated[list[CaptionFormat] | None, typer.Option(help="captions besides the standard files")] = None,
    as_json: Json = False,
) -> None:
    """Transcribe local files with the worker's engine and artefacts, without Pub/Sub."""
    from worker.commands.transcribe import transcribe as command

    command(files, out, video_id=video_id, captions=output or [], as_json=as_json)


def main() -> None:
    """Run the command line."""
    app()
