"""Arrays of large images: in a file above some size, and worked on by blocks of rows.

Memory then holds a block at a time, whatever the size of an image.
"""

import mmap
import os
from contextlib import suppress
from math import prod
from tempfile import TemporaryFile

import numpy as np

MAX_BYTES = 2**27  # of an array that lies in memory
N_VALUES_AT_ONCE = 2**20  # of a block of rows, about
_UNIT = 8  # rows of a block are a multiple of it, as poolings make it


class _File(mmap.mmap):
    """Pages of a file of ours: those that users have mapped are not to be let go of."""


def zeros(shape, dtype=np.float32):
    """Return an array of zeros, if it is large in a file that ends with the array.

    The file lies where :func:`tempfile.gettempdir` says, and has no name where the system allows
    that. Where there is no room for it the array lies in memory.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy dtype, default=float32

    Returns
    -------
    array : ndarray of shape `shape`
        Not an :class:`numpy.memmap`: it is used, copied and pickled as any other array.
    """
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    if n_bytes > MAX_BYTES:
        with suppress(OSError), TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # a full disk would end the process later
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
            return np.ndarray(shape, dtype, _File(file.fileno(), n_bytes))
    return np.zeros(shape, dtype)


def let_go(*arrays):
    """Give back the memory that arrays made by :func:`zeros` take; their values stay in the file.

    Other arrays are left alone.
    """
    for array in arrays:
        while isinstance(array, np.ndarray):
            array = array.base
        if isinstance(array, _File) and hasattr(mmap, "MADV_DONTNEED"):
            array.madvise(mmap.MADV_DONTNEED)


def blocks_of_rows(*arrays):
    """Yield slices that together are all rows of arrays (..., height, width), a block each.

    The memory of the arrays is given back after each block. A small array is one block.
    """
    shape = arrays[0].shape
    n_rows = N_VALUES_AT_ONCE // max(1, prod(shape[:-2]) * shape[-1])
    n_rows = max(_UNIT, n_rows // _UNIT * _UNIT)
    for start in range(0, shape[-2], n_rows):
        yield slice(start, min(start + n_rows, shape[-2]))
        let_go(*arrays)


def extremes(array):
    """Return the smallest and the largest value of an array of shape (..., height, width)."""
    found = [
        (part.min(), part.max()) for part in (array[..., rows, :] for rows in blocks_of_rows(array))
    ]
    lows, highs = zip(*found, strict=True)
    return np.min(lows), np.max(highs)
