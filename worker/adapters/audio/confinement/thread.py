"""A thread for what cannot be undone: Linux keeps restrictions for each thread, and this one ends after its task."""

import gc
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_COLLECTION_OFF = threading.Lock()


def in_own_thread(task: Callable[[], T]) -> T:
    """Run the task in a thread of its own and wait for it. Returns its result. Raises the OSError that it raises.

    No garbage is collected meanwhile: a restricted thread must not run others' finalizers, which may need what it
    lacks, or start threads that would lack it for good.
    """
    outcome: list[T | OSError] = []

    def run() -> None:
        try:
            outcome.append(task())
        except OSError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run, name="confined")
    with _COLLECTION_OFF:
        collects = gc.isenabled()
        gc.disable()
        try:
            thread.start()
            thread.join()
        finally:
            if collects:
                gc.enable()
    (result,) = outcome
    if isinstance(result, OSError):
        raise result
    return result
