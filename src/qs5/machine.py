"""What the program may use of the machine it runs on. The standard library only."""

import os


def processors() -> int:
    """Hardware threads that this process may use: those of its affinity mask where the system has one, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(parts: int) -> list[tuple[int, ...]]:
    """The processors that this process may use, shared out among `parts` processes; with more parts than processors
    some have the same one. Empty shares where the system cannot hold a process to its share."""
    if not hasattr(os, "sched_getaffinity"):
        return [()] * parts
    found = sorted(os.sched_getaffinity(0))
    n = len(found)
    if parts >= n:
        return [(found[i % n],) for i in range(parts)]
    return [tuple(found[i * n // parts : (i + 1) * n // parts]) for i in range(parts)]
