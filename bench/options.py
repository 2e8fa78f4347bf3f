"""Command-line options that several benches share."""

from pathlib import Path
from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="print one JSON object instead of tables")]
Write = Annotated[Path | None, typer.Option(help="write this bench's section there, such as docs/BENCHMARKS.md")]
Repeats = Annotated[int, typer.Option(help="turns of each way", min=1)]
WeightsOption = Annotated[str, typer.Option(help="tiny, random-0.6b, a hub name or a .nemo file")]
DeviceOption = Annotated[str, typer.Option(help="cuda, cpu or auto")]
