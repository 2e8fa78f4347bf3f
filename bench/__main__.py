"""The list of benches, one line each. Run as `python -m bench`."""

import ast
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent


def benches() -> Iterator[tuple[str, str]]:
    """Yield the name and the first docstring line of every module that can be run, without importing any."""
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        if path.stem != "__main__" and any(
            "__main__" in ast.unparse(node) for node in tree.body if isinstance(node, ast.If)
        ):
            yield path.stem, (ast.get_docstring(tree) or "").partition("\n")[0]


if __name__ == "__main__":
    for name, line in benches():
        print(f"python -m bench.{name:16} {line}")
