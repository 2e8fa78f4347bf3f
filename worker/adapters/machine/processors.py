"""Number of processors available to this process."""

import os
import sys


def processors(most: float) -> int:
    """Return the number of processors the system allows this process, at most the instance's vCPUs."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(allowed, int(most))
