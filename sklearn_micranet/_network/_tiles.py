"""Large images tile by tile, so that memory is bounded whatever the size of an image.

Up to its global maximum the network is convolutional: what a tile and its halo give inside the
tile is what the whole image gives there. Zeros are padded at the border of the image only.
"""

from math import ceil, isqrt
from typing import NamedTuple

import numpy as np

from ._shape import DEPTHS, STRIDE

# Two convolutions per depth, each of which reaches one pixel of its depth further.
RADIUS = sum(2 * 2 ** (depth - 1) for depth in DEPTHS)  # px around what a pixel of L8 covers
HALO = -(-RADIUS // STRIDE) * STRIDE  # px, so that the poolings of tile and image coincide

MAX_BYTES = 2**29  # of what is computed at a time


class Tile(NamedTuple):
    """A piece of an image, as slices of its rows and of its columns."""

    inside: tuple  # what the tile is for
    read: tuple  # the same with its halo, where the image has one

    def within(self, stride=1):
        """Return the slices of the inside in what is read, of pixels that cover `stride` px."""
        return tuple(
            slice((inside.start - read.start) // stride, ceil((inside.stop - read.start) / stride))
            for inside, read in zip(self.inside, self.read, strict=True)
        )


def max_pixels(n_values_per_pixel, itemsize=4):
    """Return how many pixels are computed at a time, where each takes so many values."""
    return max(1, MAX_BYTES // (n_values_per_pixel * itemsize))


def tiles_of(size, n_pixels, *, halo=HALO, unit=STRIDE):
    """Cut an image into tiles of about `n_pixels` with their halo.

    Parameters
    ----------
    size : tuple of int
        Height and width of the image, px.
    n_pixels : int
        An image of so many pixels, or fewer, is one tile.
    halo : int
        Width of what is read around a tile, px, a multiple of `unit`.
    unit : int
        The corners of tiles lie at multiples of it, px.

    Returns
    -------
    tiles : list of Tile
        In row-major order.
    """
    side = max(isqrt(n_pixels) - 2 * halo, halo, unit)
    rows, columns = (
        [slice(0, n)] if size[0] * size[1] <= n_pixels else _pieces(n, side, unit) for n in size
    )
    return [
        Tile(
            (of_rows, of_columns),
            tuple(
                slice(max(0, part.start - halo), min(n, part.stop + halo))
                for part, n in zip((of_rows, of_columns), size, strict=True)
            ),
        )
        for of_rows in rows
        for of_columns in columns
    ]


def _pieces(length, side, unit):
    """Cut a length into pieces of about equal length, `side` at most if that is a multiple."""
    step = ceil(length / ceil(length / side) / unit) * unit
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def in_parts(rows, n_pixels_of, n_pixels):
    """Split rows so that the images of a part have at most `n_pixels` together, or are one.

    Parameters
    ----------
    rows : iterable of int
    n_pixels_of : callable
        Returns the pixels of the image of a row; None if it is not known before it is read.
    n_pixels : int

    Returns
    -------
    parts : list of ndarray of int
    """
    parts, total = [], np.inf
    for row in rows:
        n = n_pixels_of(row) or n_pixels
        if total + n > n_pixels:
            parts.append([])
            total = 0
        parts[-1].append(row)
        total += n
    return [np.array(part) for part in parts]
