"""Keep big temporaries, in huge pages.

glibc gives each back to the kernel and faults it in again, which costs 1.3 to 1.7x. And a training step walks through
some 600 MB in 4 KiB pages: on a virtual machine the misses of the address translation cost it another sixth.

Must run before JAX allocates anything; hence the command line does it first of all, and `import qs5` never.
Set QS5_MALLOC=default to leave the allocator alone.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_INT_MAX = 2**31 - 1
_MADV_HUGEPAGE = 14
_PIECE, _PIECES = 1 << 30, 8
"""How much of the heap's address space is marked for huge pages, at most, and at most half of what the machine has;
memory is used only when something lies there."""


def tune_malloc() -> bool:
    """One arena, no mmap for big blocks, no trimming. True if glibc accepted all of it, False if left alone."""
    if os.environ.get("QS5_MALLOC") == "default" or not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):  # musl and others have no mallopt
        return False
    settings = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _INT_MAX),
        (_M_TRIM_THRESHOLD, -1),  # never
        (_M_TOP_PAD, 256 << 20),
    )
    tuned = all(mallopt(key, value) == 1 for key, value in settings)
    if tuned:
        _mark_for_huge_pages(libc)
    return tuned


def _mark_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Grow the heap, mark what it grew by, and leave it free and untouched at the heap's top.

    A kernel without huge pages refuses, and small pages stay in use.
    """
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    page = os.sysconf("SC_PAGESIZE")
    count = min(_PIECES, page * os.sysconf("SC_PHYS_PAGES") // 2 // _PIECE)
    pieces = [p for p in (libc.malloc(_PIECE) for _ in range(count)) if p]
    for p in pieces:
        first = -(-p // page) * page
        libc.madvise(first, (p + _PIECE - first) // page * page, _MADV_HUGEPAGE)
    for p in reversed(pieces):
        libc.free(p)
