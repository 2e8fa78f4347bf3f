"""Errors that are kept while their job waits."""

from typing import TypeVar

from worker.errors import WorkerError

Error = TypeVar("Error", bound=WorkerError)


def without_frames(error: Error) -> Error:
    """Return the error without its traceback and causes, whose frames hold the samples of a chunk."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
