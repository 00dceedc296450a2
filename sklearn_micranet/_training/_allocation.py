"""Memory that is freed and soon asked for again."""

import ctypes
import os
import sys
import threading
from contextlib import contextmanager
from functools import cache

# Parameters of mallopt(3) in <malloc.h>, and the most that glibc sets them to by itself.
_M_TRIM_THRESHOLD, _TRIM_THRESHOLD = -1, 2**26
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD = -3, 2**25
_NEVER = 2**31 - 1  # the largest int

SWITCH = "SKLEARN_MICRANET_KEEP_FREED_MEMORY"  # "0" switches it off
_SET_FROM_OUTSIDE = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")

_lock = threading.Lock()
_n_inside = 0


@contextmanager
def freed_memory_kept():
    """Keep the memory of freed tensors for the next ones while inside.

    glibc maps a block of more than 32 MiB anew every time, and the system then clears it page by
    page. An epoch frees and allocates many such blocks for each batch. What was kept goes back to
    the system when the last of those who are inside leaves, in whatever threads they are.

    Nothing happens without glibc, where the environment variable of `SWITCH` is "0", and where one
    of glibc's own variables has set its limits already.
    """
    libc = _glibc()
    if libc is None or os.environ.get(SWITCH) == "0" or _is_set_from_outside():
        yield
        return
    _enter(libc)
    try:
        yield
    finally:
        _leave(libc)


def _enter(libc):
    global _n_inside
    with _lock:
        if _n_inside == 0:
            libc.mallopt(_M_MMAP_THRESHOLD, _NEVER)
            libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
        _n_inside += 1


def _leave(libc):
    global _n_inside
    with _lock:
        _n_inside -= 1
        if _n_inside == 0:
            libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
            libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
            libc.malloc_trim(_TRIM_THRESHOLD)


def _is_set_from_outside():
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc." in tunables or any(name in os.environ for name in _SET_FROM_OUTSIDE)


@cache
def _glibc():
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
