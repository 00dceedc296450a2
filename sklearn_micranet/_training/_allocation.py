"""Memory that is freed and soon asked for again."""

import ctypes
import sys
from contextlib import contextmanager
from functools import cache

# Parameters of mallopt(3) in <malloc.h>, and the most that glibc sets them to by itself.
_M_TRIM_THRESHOLD, _TRIM_THRESHOLD = -1, 2**26
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD = -3, 2**25
_NEVER = 2**31 - 1  # the largest int


@contextmanager
def freed_memory_kept():
    """Keep the memory of freed tensors for the next ones while inside.

    glibc maps a block of more than 32 MiB anew every time, and the system then clears it page by
    page. An epoch frees and allocates many such blocks for each batch. What was kept goes back to
    the system on leaving. Without glibc nothing happens.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _NEVER)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        libc.malloc_trim(_TRIM_THRESHOLD)


@cache
def _glibc():
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
