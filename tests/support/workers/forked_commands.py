"""Command lines as processes of their own, many for the price of one interpreter: run as a program, it forks for each.

A case is a dictionary: `words`; `environment`; `interrupt_at`, the beginning of a module's name whose import gets
SIGINT; `pipe_closed`, that the reader of standard output has gone. The answer has `code`, `out` and `err`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

Case = Mapping[str, Any]


def run_forked(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Run the cases one after another; return their answers."""
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(cases), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


class _Interrupter:
    """A finder of modules that finds nothing, and interrupts the process at one of them."""

    def __init__(self, beginning: str) -> None:
        self._beginning = beginning

    def find_spec(self, name: str, *_: object) -> None:
        if self._beginning and name.startswith(self._beginning):
            self._beginning = ""
            signal.raise_signal(signal.SIGINT)


def _serve() -> None:
    import worker.cli.main  # noqa: F401, PLC0415  what all of them need

    # a test's own parent may ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.write(json.dumps([_forked(case) for case in json.load(sys.stdin)]))


def _forked(case: Case) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        if not (pid := os.fork()):
            _child(case, out, err)
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return {"code": os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1]}


def _child(case: Case, out: BinaryIO, err: BinaryIO) -> None:
    code: Any = 70
    try:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer if case.get("pipe_closed") else out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        os.environ.clear()
        os.environ.update(case.get("environment", {}))
        sys.argv = ["klipstream-worker", *case["words"]]
        sys.meta_path.insert(0, _Interrupter(case.get("interrupt_at", "")))  # type: ignore[arg-type]
        code = _ended()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120  # as the interpreter's
    finally:
        os._exit(code)


def _ended() -> int:
    """Return what the interpreter would exit with."""
    from worker.__main__ import main  # noqa: PLC0415

    try:
        main()
    except SystemExit as exit_:
        if isinstance(exit_.code, int | None):
            return exit_.code or 0
        sys.stderr.write(f"{exit_.code}\n")
        return 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve()
