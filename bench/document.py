"""docs/BENCHMARKS.md: one section per benchmark, each written only by the command that measures it."""

import re
from collections.abc import Mapping
from pathlib import Path

PREFACE = """# Benchmarks

Every section is written by the command in its first line, with `--write docs/BENCHMARKS.md`: machine, versions and date
included. Nothing here is typed. What a section compares was measured in one run, in turns."""

GPU_UNMEASURED = "**The GPU part is unmeasured**: no section here comes from a machine with a CUDA GPU."

ON_GPU = "-cuda"
"""Suffix of the keys of sections measured on a GPU."""

_SECTION = re.compile(r"<!-- bench:([\w.-]+) -->\n(.*?)\n<!-- /bench:\1 -->", re.DOTALL)


def write_section(path: Path, key: str, body: str) -> None:
    """Put the section into the document in place of its former self; the other sections stay as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text("utf-8") if path.exists() else ""
    path.write_text(document({**sections(text), key: body}), "utf-8")


def sections(text: str) -> Mapping[str, str]:
    """Return the sections of a document by key."""
    return {found[1]: found[2].strip() for found in _SECTION.finditer(text)}


def document(by_key: Mapping[str, str]) -> str:
    """Return the whole document, with its sections in alphabetical order of their keys."""
    told = [PREFACE] if any(key.endswith(ON_GPU) for key in by_key) else [PREFACE, GPU_UNMEASURED]
    marked = (f"<!-- bench:{key} -->\n\n{by_key[key].strip()}\n\n<!-- /bench:{key} -->" for key in sorted(by_key))
    return "\n\n".join([*told, *marked]) + "\n"
