"""The benchmarks' commands; like the others, each imports what it needs when it is run."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="How fast this machine is, against the alternatives in the same run. Exit 1 where a promise is not kept.",
)

Json = Annotated[bool, typer.Option("--json", help="one JSON object instead of tables")]
Write = Annotated[
    Path | None, typer.Option(help="write the section of this benchmark there, such as docs/BENCHMARKS.md")
]
Repeats = Annotated[int, typer.Option(help="turns of each", min=1)]
Weights = Annotated[str, typer.Option(help="tiny, random-0.6b, a hub name or a .nemo file")]
Device = Annotated[str, typer.Option(help="cuda, cpu or auto")]


@app.command()
def inference(
    weights: Weights = "tiny",
    device: Device = "auto",
    minutes: Annotated[float | None, typer.Option(help="of speech; default: 20 on a CPU, 120 on a GPU")] = None,
    chunk_minutes: Annotated[float | None, typer.Option(help="of NeMo's; default: 5 on a CPU, 10 on a GPU")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(help="of NeMo on windows; the best is taken")] = None,
    threads: Annotated[int | None, typer.Option(help="of ours, on a CPU; default: the cores there are", min=1)] = None,
    repeats: Repeats = 3,
    as_json: Json = False,
    write: Write = None,
) -> None:
    """Ours against NeMo's transcribe(): speed, tokens, memory, stages, share of the device's ceiling."""
    from bench.inference import Wish
    from bench.inference import inference as command

    wish = Wish(
        weights=weights,
        device=device,
        minutes=minutes,
        chunk_minutes=chunk_minutes,
        batch_sizes=batch_size or (),
        threads=threads,
        repeats=repeats,
    )
    command(wish, as_json=as_json, write=write)


@app.command()
def pipeline(
    weights: Weights = "tiny",
    device: Device = "auto",
    hours: Annotated[list[float] | None, typer.Option(help="of a file; default: 0.5, 1, 2, 4 and 12", min=0.01)] = None,
    short_files: Annotated[int, typer.Option(help="of 1 to 10 min, sent at once, and as many clips", min=0)] = 50,
    repeats: Repeats = 3,
    as_json: Json = False,
    write: Write = None,
) -> None:
    """Files through the whole worker against its inference alone: time, memory, how busy the engine is."""
    from bench.pipeline import pipeline as command
    from bench.pipeline_report import Wish

    lengths = hours or [0.5, 1.0, 2.0, 4.0, 12.0]
    wish = Wish(weights=weights, device=device, hours=lengths, short_files=short_files, repeats=repeats)
    command(wish, as_json=as_json, write=write)


@app.command()
def decode(
    minutes: Annotated[float, typer.Option(help="of speech in each codec", min=1)] = 60.0,
    parts: Annotated[int | None, typer.Option(help="side by side; default: the cores there are", min=1)] = None,
    repeats: Repeats = 3,
    as_json: Json = False,
    write: Write = None,
) -> None:
    """One ffmpeg against ours in parts, codec by codec."""
    from bench.decode import decode as command

    command(minutes, parts, repeats, as_json=as_json, write=write)


@app.command()
def scale(
    workers: Annotated[list[int] | None, typer.Option(help="how many; default: 1, 2 and 4", min=1)] = None,
    jobs: Annotated[int, typer.Option(help="for each worker; published at once", min=1)] = 12,
    minutes: Annotated[float, typer.Option(help="of each job", min=0.1)] = 5.0,
    speed: Annotated[float, typer.Option(help="of each engine, in times real time", min=1)] = 200.0,
    repeats: Repeats = 3,
    as_json: Json = False,
    write: Write = None,
) -> None:
    """Several workers on one subscription, with a timer for an engine: throughput and fairness."""
    from bench.scale import Wish
    from bench.scale import scale as command

    wish = Wish(workers=workers or (1, 2, 4), jobs=jobs, minutes=minutes, speed=speed, repeats=repeats)
    command(wish, as_json=as_json, write=write)


@app.command()
def startup(repeats: Repeats = 3, as_json: Json = False, write: Write = None) -> None:
    """From the start of a process to what it was started for, taken apart."""
    from bench.startup import startup as command

    command(repeats, as_json=as_json, write=write)
