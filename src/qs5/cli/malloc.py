"""Keep big temporaries: glibc gives each back to the kernel and faults it in again, which costs 1.3 to 1.7x.

Must run before JAX allocates anything; hence the command line does it first of all, and `import qs5` never.
Set QS5_MALLOC=default to leave the allocator alone.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_INT_MAX = 2**31 - 1


def tune_malloc() -> bool:
    """One arena, no mmap for big blocks, no trimming. True if glibc accepted all of it, False if left alone."""
    if os.environ.get("QS5_MALLOC") == "default" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl and others have no mallopt
        return False
    settings = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _INT_MAX),
        (_M_TRIM_THRESHOLD, _INT_MAX),
        (_M_TOP_PAD, 256 << 20),
    )
    return all(mallopt(key, value) == 1 for key, value in settings)
