"""Where the windows of a field and the tiles lie that their scores are computed from."""

from dataclasses import dataclass
from math import ceil, gcd

import numpy as np

_N_BANDS = 10


@dataclass(frozen=True)
class WindowGrid:
    """The windows of a field: window (i, j) starts at row i * step and column j * step.

    They are those of :func:`~sklearn_micranet.images.extract_crops`: the last window of a row or
    column may reach beyond the border, so that no pixel is lost.

    Attributes
    ----------
    shape : tuple (height, width)
        Of the field, px.
    size, step : int
        Side of a window and distance of neighbours, px.
    """

    shape: tuple
    size: int
    step: int

    @property
    def n_windows(self):
        """Number of rows and columns of windows."""
        return tuple(ceil(max(n - self.size, 0) / self.step) + 1 for n in self.shape)

    @property
    def block(self):
        """Side of the largest blocks that both windows and steps consist of, px."""
        return gcd(self.size, self.step)

    @property
    def n_blocks(self):
        """Number of rows and columns of blocks that the windows cover."""
        return tuple(((n - 1) * self.step + self.size) // self.block for n in self.n_windows)

    def corner(self, index):
        """Return the first row and column of a window by its place in row-major order, px."""
        row, column = divmod(int(index), self.n_windows[1])
        return row * self.step, column * self.step

    def rows_of_tiles(self, tile_size):
        """Yield rows of tiles that cover all windows.

        Parameters
        ----------
        tile_size : int
            Side of a tile, px; rounded up to a multiple of the block.

        Yields
        ------
        tiles : list of tuple
            First row, end row, first column and end column of each, px.
        """
        side = ceil(tile_size / self.block) * self.block
        rows, columns = (_spans(n * self.block, side) for n in self.n_blocks)
        for span in rows:
            yield [(*span, *of_columns) for of_columns in columns]


def _spans(length, side):
    return [(start, min(start + side, length)) for start in range(0, length, side)]


def blocks_of(shape, side):
    """Return the squares that a field consists of, in rows, as first and end row and column."""
    rows, columns = (_spans(n, side) for n in shape)
    return [(*of_rows, *of_columns) for of_rows in rows for of_columns in columns]


def bands_of(corners):
    """Return in which band across the longer side of a field each window lies.

    Parameters
    ----------
    corners : ndarray of shape (n_windows, 2)
        First row and column of each, px.

    Returns
    -------
    bands : ndarray of int
        Up to ten bands, of as many rows or columns of windows each as possible.
    """
    along = corners[:, np.ptp(corners, axis=0).argmax()]
    places, place = np.unique(along, return_inverse=True)
    return place * min(_N_BANDS, len(places)) // len(places)


def step_of(size, step, stride, *, exact):
    """Return the distance between neighbouring windows, px, half of their size by default.

    Unless windows are `exact`, size and step are multiples of `stride`, a pixel of the last layer.
    """
    if step is not None and step > size:
        raise ValueError(
            "step must be at most size, or the pixels between the windows are lost. Got "
            f"step={step} and size={size} instead."
        )
    step = min(ceil(size / 2 / stride) * stride, size) if step is None else step
    if not exact and (size % stride or step % stride):
        raise ValueError(
            f"size and step must be multiples of {stride} px, a pixel of the last layer. Got "
            f"size={size} and step={step} instead: set exact=True to cut every window."
        )
    return step
