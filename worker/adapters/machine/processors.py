"""How many processors there are to work with."""

import os
import sys


def processors(most: float) -> int:
    """How many this process may use: what the system allows it, and no more than the instance is said to have."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(allowed, int(most))
