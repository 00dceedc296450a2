"""The gate: where the last layer sees each class, and the prior that follows from it.

Under a global max-pool the Grad-CAM of the last layer is, up to a factor, the sum of its
activations with the class's own weights, S_c = sum_k w_ck A_k. It is positive where the class is
seen. One of its cells covers `CELL` x `CELL` pixels of the image.
"""

from typing import NamedTuple

import numpy as np

from sklearn_micranet._network._tiles import Tile
from sklearn_micranet._stack._large_arrays import blocks_of_rows, by_rows

CELL = 8  # px: three poolings
MAX_SUM = 0.9  # a pixel is background with a probability of 0.1 at least
SEEN = 0.02  # share of its maximum from which a gate is open
_WIDEST = 0.15  # exponent of a gate in the prior
DENSE_FROM = 0.4  # of an image filled: what crowds images differs in area from one to the next
_FILLED = 0.1  # share of its maximum from which a cell counts as filled by a class


class Reading(NamedTuple):
    """What one image leaves in the network."""

    scores: np.ndarray  # S_c, (n_classes, ceil(height / 8), ceil(width / 8))
    present: np.ndarray  # bool, (n_classes,)
    parts: object  # the image in one `Part`, or an iterable that computes several when it is read


class Part(NamedTuple):
    """What a tile of an image leaves in the network, the halo of the tile included."""

    tile: Tile
    activations: list  # of one layer a resolution, (n_filters, height / f, width / f), f = 1, 2, 4

    @property
    def size(self):
        """Height and width of what was read, px."""
        return tuple(read.stop - read.start for read in self.tile.read)


def gates(scores, size):
    """Return the scores of an image's classes as fractions of their maxima, at full size.

    Parameters
    ----------
    scores : ndarray of shape (n_classes, height / 8, width / 8)
        S_c, of any sign; sides rounded up.
    size : tuple of int
        Height and width of the image, in px.

    Returns
    -------
    gates : float32 ndarray of shape (n_classes, height, width)
        In [0, 1], linear between the centres of cells; zero for a class without positive scores.
        In a file if it is large.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet._guided._gate import gates
    >>> [float(x) for x in gates(np.array([[[-1.0, 2.0]]]), (1, 16))[0, 0, 3:12]]
    [0.0, 0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125, 0.9375]
    """
    cells = cell_gates(scores)
    return by_rows(lambda rows: enlarge(cells, CELL, size, rows), (len(cells), *size))


def cell_gates(scores):
    """Return max(S_c, 0) / max S_c, float32 of the shape of the scores."""
    positive = np.maximum(scores, 0).astype(np.float32)
    peak = positive.max(axis=(1, 2), keepdims=True)
    return positive / np.where(peak > 0, peak, 1)


def enlarge(maps, factor, size, rows=None):
    """Enlarge maps (n, height, width) by an even factor, linear between centres of their pixels.

    Given a slice of rows of what is enlarged, only these are returned.
    """
    start, stop = (0, size[0]) if rows is None else (rows.start, rows.stop)
    if factor == 1:
        return maps[:, start:stop, : size[1]]
    first = max(0, (start + factor // 2) // factor - 1)  # what rows lie between, and no more
    used = maps[:, first : (stop + factor // 2) // factor + 1]
    wide = _stretch(used.swapaxes(1, 2), factor, 0, size[1]).swapaxes(1, 2)
    # Rows come last: they are what is contiguous in memory.
    return _stretch(
        np.ascontiguousarray(wide), factor, start - first * factor, stop - first * factor
    )


def _stretch(maps, factor, start, stop):
    """Enlarge the second axis of maps, and return pixels of it."""
    padded = np.concatenate([maps[:, :1], maps, maps[:, -1:]], axis=1)
    # Pixels between the centres of two neighbours, all alike.
    upper = ((np.arange(factor, dtype=np.float32) + 0.5) / factor)[:, np.newaxis]
    step = (padded[:, 1:] - padded[:, :-1])[:, :, np.newaxis]
    between = padded[:, :-1, np.newaxis] + upper * step
    half = factor // 2
    return between.reshape(len(maps), -1, maps.shape[2])[:, start + half : stop + half]


def prior(gates, present, *, top, floor, gamma=1.0):
    """Return the probability of each class at each pixel, before the image is looked at.

    ``top * gate ** gamma + floor`` where the class is present, otherwise 0, scaled down where the
    sum over the classes passes 0.9.

    Parameters
    ----------
    gates : ndarray of shape (n_classes, ...)
        In [0, 1].
    present : bool ndarray of shape (n_classes,)
    top, floor : float
    gamma : float or array-like of shape (n_classes,), default=1.0

    Returns
    -------
    prior : float32 ndarray of the shape of the gates
    """
    at_class = (-1,) + (1,) * (gates.ndim - 1)
    if np.ndim(gamma) or gamma != 1:  # a power takes as long as all else
        gates = gates ** np.broadcast_to(gamma, len(gates)).astype(gates.dtype).reshape(at_class)
    probability = (top * gates + floor) * np.reshape(present, at_class)
    total = probability.sum(axis=0)
    return (probability * (MAX_SUM / np.maximum(total, MAX_SUM))).astype(np.float32)


def filled_area(cells):
    """Return the share of gates (..., height, width) that is above a tenth of their maxima."""
    n_filled = sum(
        np.count_nonzero(cells[..., rows, :] > _FILLED, axis=(-2, -1))
        for rows in blocks_of_rows(cells)
    )
    return n_filled / (cells.shape[-2] * cells.shape[-1])


def exponents(area):
    """Return the exponents of classes' gates in the prior: in `fit`, and in use.

    Where a class fills little of an image, the gate is wider than the structures: in `fit` only its
    peaks are trusted. Where it fills much, the gate misses parts of them, and is widened.
    """
    area = np.asarray(area)
    return np.clip(2.5 - 3.5 * area, _WIDEST, 2), np.maximum(_WIDEST, 1 - 1.25 * area)
