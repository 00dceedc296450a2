"""Arrays of large images: in a file above some size, and worked on by blocks of rows.

Memory then holds a block at a time, whatever the size of an image.
"""

import mmap
import os
import shutil
from contextlib import suppress
from math import prod
from tempfile import TemporaryFile, gettempdir

import numpy as np

MAX_BYTES = 2**25  # of an array that lies in memory
N_VALUES_AT_ONCE = 2**20  # of a block of rows, about
_UNIT = 8  # rows of a block are a multiple of it, as poolings make it


class _File(mmap.mmap):
    """Pages of a file of ours: those that users have mapped are not to be let go of."""


def zeros(shape, dtype=np.float32):
    """Return an array of zeros. A large one lies in a temporary file, deleted with the array.

    The file lies where ``tempfile.gettempdir()`` says, and has no name where the system allows
    that. Where there is no room for it the array lies in memory. It is shared with processes that
    are forked: what one of them writes, all see.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy dtype, default=float32

    Returns
    -------
    array : ndarray of shape `shape`
        Not an :class:`numpy.memmap`: it is copied and pickled as any other array.
    """
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    if n_bytes > MAX_BYTES:
        with suppress(OSError), TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # a full disk would end the process later
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            elif shutil.disk_usage(gettempdir()).free < n_bytes:
                return np.zeros(shape, dtype)
            else:
                file.truncate(n_bytes)
            return np.ndarray(shape, dtype, _File(file.fileno(), n_bytes))
    return np.zeros(shape, dtype)


def let_go(*arrays):
    """Give back the memory that arrays made by :func:`zeros` take; their values stay in the file.

    Other arrays, and systems that cannot do that, are left alone.
    """
    for array in arrays:
        while isinstance(array, np.ndarray):
            array = array.base
        if isinstance(array, _File) and hasattr(mmap, "MADV_DONTNEED"):
            array.madvise(mmap.MADV_DONTNEED)


def blocks_of_rows(*arrays):
    """Yield slices that together are all rows of arrays (..., height, width), a block each.

    After each block :func:`let_go` is called with the arrays. A small array is one block.
    """
    for rows in _blocks(arrays[0].shape):
        yield rows
        let_go(*arrays)


def _blocks(shape):
    n_rows = N_VALUES_AT_ONCE // max(1, prod(shape[:-2]) * shape[-1])
    n_rows = max(_UNIT, n_rows // _UNIT * _UNIT)
    starts = range(0, shape[-2], n_rows)
    return [slice(start, min(start + n_rows, shape[-2])) for start in starts]


def with_halo(rows, n, halo):
    """Return a slice of rows, widened at both sides within n rows, and where its own are in it."""
    read = slice(max(0, rows.start - halo), min(n, rows.stop + halo))
    return read, slice(rows.start - read.start, rows.stop - read.start)


def by_rows(function, shape, *arrays, halo=0):
    """Return what a function makes of slices of rows, computed block by block.

    Parameters
    ----------
    function : callable
        Maps a slice of rows to an array of shape (..., n_rows, width).
    shape : tuple of int
        (..., height, width) of the largest array that is read: it says how high a block is.
    *arrays : ndarray
        What the function reads: their memory is given back after each block.
    halo : int, default=0
        How many rows more the function is asked for on both sides of a block, where there are any.

    Returns
    -------
    array : ndarray of shape (..., height, width)
        As of :func:`zeros`.
    """
    blocks = _blocks(shape)
    if len(blocks) == 1:
        return function(blocks[0])
    result = None
    for rows in blocks:
        read, inner = with_halo(rows, shape[-2], halo)
        block = function(read)[..., inner, :]
        if result is None:
            result = zeros((*block.shape[:-2], shape[-2], block.shape[-1]), block.dtype)
        result[..., rows, :] = block
        let_go(result, *arrays)
    return result


def extremes(array):
    """Return the smallest and the largest value of an array of shape (..., height, width)."""
    found = [
        (part.min(), part.max()) for part in (array[..., rows, :] for rows in blocks_of_rows(array))
    ]
    lows, highs = zip(*found, strict=True)
    return np.min(lows), np.max(highs)
