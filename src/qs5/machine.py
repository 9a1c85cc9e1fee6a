"""What the program may use of the machine it runs on. The standard library only."""

import os


def processors() -> int:
    """Hardware threads that this process may use: those of its affinity mask where the system has one, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
