"""The start of the inference process: `python -m worker.adapters.parakeet.child_process.main DESCRIPTOR`."""

import pickle
import sys
from multiprocessing.connection import Connection

from worker.adapters.machine.process import hide_memory


def main(descriptor: int) -> None:
    """Run the program that comes through the pipe."""
    hide_memory()
    pipe = Connection(descriptor)
    program, parent_pid, options = pickle.loads(pipe.recv_bytes())  # noqa: S301  from the process that started this one
    program(pipe, parent_pid, options)


if __name__ == "__main__":
    main(int(sys.argv[1]))
