"""Speech in five conditions with its manifest, for `accuracy`: `python -m bench.conditions FOLDER [SEED ...]`.

Writes ten minutes of the speech bank for each seed: clean, with white noise 20, 10 and 5 dB below the speech, and as
the pipeline's MP3; the grammar's names are the keyterms. Then, with the tiny model and any other settings:

    klipstream-worker accuracy --manifest FOLDER/manifest.jsonl
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from examples.tiny_model.grammar import NAMES
from tests.support.audio.conditions import manifest_lines

SECONDS = 600.0


def main(
    folder: Annotated[Path, typer.Argument(help="for the files; made when absent")],
    seeds: Annotated[list[int] | None, typer.Argument(help="of the speech; default: 1")] = None,
) -> None:
    """Write the files and the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line for seed in seeds or [1] for line in manifest_lines(folder, seed, SECONDS, NAMES)]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    print(manifest)


if __name__ == "__main__":
    typer.run(main)
