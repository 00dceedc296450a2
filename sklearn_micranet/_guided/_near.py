"""Means over what is near each pixel of an image, inside and outside a part of it."""

import numpy as np
from scipy import ndimage

from sklearn_micranet._stack._large_arrays import blocks_of_rows, by_rows

from ._gate import enlarge

COARSE = 4  # px: of what varies slowly
PULL = 0.02  # weight of the mean of the whole image where near pixels weigh 1
_MAX_SIDE = 2**14  # px, as a matrix grows with its square


class Near:
    """Means over near pixels, of images of one size.

    They vary slowly: they are computed on pixels of `COARSE` x `COARSE`, 16 times less to do.

    Parameters
    ----------
    view : ndarray of shape (height, width)
        Its own mean is kept as `view`.
    sigma : float
        Standard deviation of the Gaussian that says what is near, in px.
    """

    def __init__(self, view, sigma):
        self.size = view.shape
        self.factor = COARSE if sigma >= 2 * COARSE else 1
        self.sigma = sigma / self.factor
        # A Gaussian filter is a product with two matrices; of so few pixels it is the faster way.
        self.matrices = [
            _gaussian(-(-n // self.factor), self.sigma) for n in self.size if n <= _MAX_SIDE
        ]
        self.view = self(view)

    def __call__(self, image):
        return self._smooth(block_means(image, self.factor))

    def _smooth(self, means):
        if len(self.matrices) < 2:
            return ndimage.gaussian_filter(means, self.sigma, truncate=3)
        rows, columns = self.matrices
        return rows @ means @ columns.T

    def enlarge(self, mean, rows=None):
        return enlarge(mean[np.newaxis], self.factor, self.size, rows)[0]

    def sides(self, image, mean, part):
        """Average inside and outside a part what is near, and a little what is far.

        `mean` is that of the image. The outside is what the inside leaves of it.
        """
        n, total, rest, means = np.count_nonzero(part), 0.0, 0.0, []
        for rows in blocks_of_rows(image, part):
            inside = image[rows] * part[rows]
            of_rows = float(inside.sum())
            total, rest = total + of_rows, rest + float(image[rows].sum()) - of_rows
            means.append(block_means(inside, self.factor))
        n_out, whole = part.size - n, (total + rest) / part.size
        near, weight = self._smooth(np.concatenate(means)), self(part)
        return (
            (near + PULL * (total / n if n else whole)) / (weight + PULL),
            (mean - near + PULL * (rest / n_out if n_out else whole)) / (1 - weight + PULL),
        )


def _gaussian(n, sigma):
    return ndimage.gaussian_filter1d(np.eye(n, dtype=np.float32), sigma, axis=0, truncate=3)


def block_means(image, factor):
    """Return the means of blocks of factor x factor px; sides are filled up with the edge."""
    parts = [_block_means(image[..., rows, :], factor) for rows in blocks_of_rows(image)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)


def _block_means(image, factor):
    image = np.asarray(image, dtype=np.float32)
    if factor == 1:
        return image
    if any(n % factor for n in image.shape[-2:]):
        fill = [(0, 0)] * (image.ndim - 2) + [(0, -n % factor) for n in image.shape[-2:]]
        image = np.pad(image, fill, mode="edge")
    rows = image.reshape(*image.shape[:-2], -1, factor, image.shape[-1]).sum(axis=-2)
    return sum(rows[..., i::factor] for i in range(factor)) / np.float32(factor**2)


def edge_of(mask):
    """Return the pixels of which a neighbour, above, below, left or right, differs."""
    return by_rows(lambda rows: _edge(mask[rows]), mask.shape, mask, halo=1)


def _edge(mask):
    edge = np.zeros(mask.shape, dtype=bool)
    for changed, low, high in (
        (mask[1:] != mask[:-1], edge[:-1], edge[1:]),
        (mask[:, 1:] != mask[:, :-1], edge[:, :-1], edge[:, 1:]),
    ):
        low |= changed
        high |= changed
    return edge


def grow(mask, n):
    """Return the pixels that are at most n px from a mask, along rows and along columns."""
    for _ in range(2):  # rows, then columns
        grown = mask.copy(order="K")
        for i in range(1, n + 1):
            grown[i:] |= mask[:-i]
            grown[:-i] |= mask[i:]
        mask = grown.T
    return mask
