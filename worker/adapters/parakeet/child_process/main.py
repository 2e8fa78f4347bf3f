"""The start of the inference process: `python -m worker.adapters.parakeet.child_process.main DESCRIPTOR`.

multiprocessing would start it too, with the worker's whole environment and with a second process that has it as well.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import TypeAlias

from worker.adapters.machine.own_memory import hide_memory
from worker.adapters.parakeet.environment import passed_on
from worker.adapters.parakeet.protocol import EngineOptions

Program: TypeAlias = Callable[[Connection, int, EngineOptions], None]

_STDERR = 2


def start(program: Program, options: EngineOptions) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a Python process that runs `program`, a function of a module. Returns it and our end of its pipe.

    It inherits the signal mask, stderr, the other end of the pipe and what `passed_on` lets through. Raises OSError.
    """
    ours, its = Pipe()
    with its:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(its.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,
            env=passed_on(os.environ),
            pass_fds=[its.fileno()],
        )
    with contextlib.suppress(BrokenPipeError):  # it has ended already, as the end of the pipe tells the reader
        ours.send_bytes(pickle.dumps((program, os.getpid(), options)))
    return process, ours


def main(descriptor: int) -> None:
    """Run the program that comes through the pipe."""
    hide_memory()
    pipe = Connection(descriptor)
    program, parent_pid, options = pickle.loads(pipe.recv_bytes())  # noqa: S301  # from the process that started this one
    program(pipe, parent_pid, options)


if __name__ == "__main__":
    main(int(sys.argv[1]))
