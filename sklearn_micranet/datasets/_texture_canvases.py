"""Canvases with structures of another texture, which brightness cannot tell from the background."""

from numbers import Integral

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from sklearn_micranet._stack._numbers import Interval
from sklearn_micranet.datasets._drawing import (
    beam,
    draw_entropy,
    draw_texture,
    draw_waves,
    frequencies,
    irregular_disc,
    ring,
    standardised,
)

DESCR = """\
Texture canvases
================

Synthetic. Blobs of two textures, stripes and fine grain, on a background of a third. All three are
filtered Gaussian noise of equal mean and variance, so that brightness tells nothing about them;
neither do a slow drift and a few bright spots, which all canvases have alike.
"""

TARGET_NAMES = ("stripes", "fine grain")
N_CLASSES = len(TARGET_NAMES)

COARSE, FINE = 0.14, 0.30  # peak frequencies, cycles per px
DIRECTION, MAX_TURN = np.deg2rad(45), np.deg2rad(20)  # of the stripes' waves
BEAM_WIDTH = 0.22  # rad

PRESENCE = 0.45  # probability of each class
MAX_BLOBS = 2  # of a class
BLOB_RADIUS, BLOB_WAVE = (11, 20), 0.18  # px; of the radius, for each harmonic
EDGE = 1  # px, sigma
GAP = 3  # px at least between two blobs, so that their edges do not mix
MAX_TRIES = 100

DRIFT, DRIFT_SCALE = 0.4, 25  # standard deviation; px, sigma
MAX_SPOTS, SPOT_HEIGHT, SPOT_SCALE = 2, (0.5, 1.2), (4, 8)  # px, sigma
BLACK, WHITE = -4, 5  # standard deviations of a texture


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "image_size": [Interval(Integral, 64, None, closed="left")],
        "return_X_y": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_texture_canvases(n_samples=100, *, image_size=96, return_X_y=False, random_state=None):
    r"""Generate canvases with blobs that differ from the background by their texture alone.

    A hard case for every method that follows brightness: mean and variance are the same
    everywhere, and the bright spots that do stand out say nothing about the labels.

    Parameters
    ----------
    n_samples : int, default=100
        Number of canvases. The first canvases do not depend on it.
    image_size : int, default=96
        Height and width of a canvas, px; at least 64.
    return_X_y : bool, default=False
        If True, return ``(images, labels)`` instead of a Bunch.
    random_state : int, RandomState instance or None, default=None
        Determines everything drawn. Pass an int for the same canvases in every call.

    Returns
    -------
    canvases : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : ndarray of shape (n_samples, image_size, image_size), float32
            Canvases, in [0, 1].
        labels : ndarray of shape (n_samples, 2), int
            1 where the class is on the canvas, else 0.
        masks : ndarray of shape (n_samples, 2, image_size, image_size), bool
            The blobs of each class, up to the middle of their soft edge. They do not overlap.
        target_names : list of str
            ``["stripes", "fine grain"]``, the order of labels and masks.
        DESCR : str
            What the canvases show.

    (images, labels) : tuple if `return_X_y=True`

    Raises
    ------
    ValueError
        If a parameter is not as described above.

    Notes
    -----
    **Textures** are white Gaussian noise filtered in the Fourier domain and standardised. With
    :math:`r` the frequency (cycles per px), the transfer function is
    :math:`\exp(-((r - r_0) / 0.05)^2)`, where :math:`r_0` is 0.14 for the background and the
    stripes and 0.30 for the fine grain. That of the stripes is multiplied by
    :math:`\exp(-(\varphi / 0.22)^2)`, with :math:`\varphi` the angle (rad) to the direction of
    their waves, which is 45 :math:`\pm` 20 degrees from the columns' to the rows' axis.

    **Blobs**: each class is present with a probability of 0.45, as one or two blobs with a radius
    of 11 to 20 px to which the second to fourth angular harmonic add up to 18 % each. A second
    blob is left out where it does not fit. Edges are soft (sigma 1 px) and keep the variance.

    **Brightness**: a slow drift (sigma 25 px, standard deviation 0.4) and up to two bright Gaussian
    spots (height 0.5 to 1.2, sigma 4 to 8 px) are added, whatever the labels. The range from -4
    to 5 standard deviations of a texture becomes [0, 1].

    **Memory** is `n_samples` x `image_size` :sup:`2` x 6 bytes.

    Examples
    --------
    >>> from sklearn_micranet.datasets import make_texture_canvases
    >>> canvases = make_texture_canvases(6, random_state=0)
    >>> canvases.images.shape, canvases.labels.shape, canvases.masks.shape
    ((6, 96, 96), (6, 2), (6, 2, 96, 96))
    >>> inside = canvases.images[canvases.masks.any(axis=1)]
    >>> outside = canvases.images[~canvases.masks.any(axis=1)]
    >>> bool(abs(inside.mean() - outside.mean()) < 0.02)
    True
    """
    images = np.empty((n_samples, image_size, image_size), dtype=np.float32)
    masks = np.zeros((n_samples, N_CLASSES, image_size, image_size), dtype=bool)
    # A stream for each canvas: what one draws leaves the others as they are.
    streams = np.random.SeedSequence(draw_entropy(random_state)).spawn(n_samples)
    for index, stream in enumerate(streams):
        rng = np.random.default_rng(stream)
        masks[index] = _draw_masks(rng, image_size)
        canvas = _blend(_draw_textures(rng, image_size), masks[index])
        canvas += DRIFT * _draw_drift(rng, image_size) + _draw_spots(rng, image_size)
        images[index] = ((canvas - BLACK) / (WHITE - BLACK)).clip(0, 1)
    labels = masks.any(axis=(2, 3)).astype(int)
    if return_X_y:
        return images, labels
    return Bunch(
        images=images, labels=labels, masks=masks, target_names=list(TARGET_NAMES), DESCR=DESCR
    )


def _draw_masks(rng, size):
    """Return the blobs of each class, of shape (n_classes, size, size)."""
    n_blobs = np.where(
        rng.random(N_CLASSES) < PRESENCE, rng.integers(1, MAX_BLOBS + 1, N_CLASSES), 0
    )
    while True:
        masks = np.zeros((N_CLASSES, size, size), dtype=bool)
        for nth in range(MAX_BLOBS):
            for index in np.flatnonzero(n_blobs > nth):
                blob = _draw_free_blob(rng, masks.any(axis=0))
                if blob is not None:
                    masks[index] |= blob
        if (masks.any(axis=(1, 2)) == (n_blobs > 0)).all():
            return masks


def _draw_free_blob(rng, taken):
    """Return the mask of a blob apart from what is taken, or None where that is not found."""
    taken = binary_dilation(taken, iterations=GAP)
    for _ in range(MAX_TRIES):
        radius = rng.uniform(*BLOB_RADIUS)
        centre = rng.uniform(radius, len(taken) - 1 - radius, size=2)
        blob = irregular_disc(taken.shape, centre, radius, draw_waves(rng, BLOB_WAVE)) >= 0
        if not (blob & taken).any():
            return blob
    return None


def _draw_textures(rng, size):
    """Return the textures of the background and of each class, of shape (3, size, size)."""
    radius, angle = frequencies(size)
    direction = DIRECTION + rng.uniform(-MAX_TURN, MAX_TURN)
    coarse = ring(radius, COARSE)
    transfers = [coarse, coarse * beam(angle, direction, BEAM_WIDTH), ring(radius, FINE)]
    return np.stack([draw_texture(rng, transfer) for transfer in transfers])


def _blend(textures, masks):
    """Return each texture where its mask is, with soft edges that keep the variance."""
    weights = np.stack([gaussian_filter(mask.astype(float), EDGE) for mask in masks])
    weights = np.concatenate([[1 - weights.sum(axis=0)], weights])
    return (weights * textures).sum(axis=0) / np.sqrt((weights**2).sum(axis=0))


def _draw_drift(rng, size):
    return standardised(gaussian_filter(rng.standard_normal((size, size)), DRIFT_SCALE))


def _draw_spots(rng, size):
    rows, columns = np.ogrid[:size, :size]
    spots = np.zeros((size, size))
    for _ in range(rng.integers(MAX_SPOTS + 1)):
        row, column = rng.uniform(0, size, 2)
        height, scale = rng.uniform(*SPOT_HEIGHT), rng.uniform(*SPOT_SCALE)
        squared_distance = (rows - row) ** 2 + (columns - column) ** 2
        spots += height * np.exp(-squared_distance / (2 * scale**2))
    return spots
