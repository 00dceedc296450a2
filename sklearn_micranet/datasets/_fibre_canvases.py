"""Canvases with thin dim filaments beside bright blobs."""

from numbers import Integral

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial import KDTree
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from sklearn_micranet._stack._numbers import Interval
from sklearn_micranet.datasets._drawing import (
    draw_entropy,
    draw_waves,
    irregular_disc,
    standardised,
)

DESCR = """\
Fibre canvases
==============

Synthetic fluorescence images. Half of them show curved filaments, 2 to 4 px wide, dim, and all of
them bright blobs, blur, haze, and the noise of photons and of the camera.
"""

PRESENCE = 0.5  # probability of fibres
MAX_FIBRES, MAX_BLOBS, MIN_BLOBS = 3, 6, 2
FIBRE_WIDTH = (2, 4)  # px
FIBRE_LENGTH = (0.5, 1.1)  # of the canvas
STEP = 0.5  # px along a fibre
CURVATURE, CURVATURE_SCALE = 1 / 30, 12  # standard deviation, 1 per px; px, sigma
UNEVENNESS, UNEVENNESS_SCALE = 0.15, 5  # of the brightness; px, sigma
BLOB_RADIUS, BLOB_EDGE = (3.5, 8), 3  # px
BLOB_WAVE = 0.1  # of the radius, for each harmonic

# Brightness, where 1 is white.
BACKGROUND, HAZE, HAZE_SCALE = 0.10, 0.015, 20  # px, sigma
FIBRE_HEIGHT, BLOB_HEIGHT = (0.14, 0.22), (0.4, 0.8)

BLUR = 0.8  # px, sigma of the microscope
N_PHOTONS = 200  # of white
READ_NOISE = 0.01


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "image_size": [Interval(Integral, 64, None, closed="left")],
        "return_X_y": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_fibre_canvases(n_samples=100, *, image_size=96, return_X_y=False, random_state=None):
    r"""Generate canvases with thin dim fibres beside blobs that are several times as bright.

    A hard case for thresholds: the brightest structures say nothing about the label, and those
    that do are hardly wider than the blur and little above the noise.

    Parameters
    ----------
    n_samples : int, default=100
        Number of canvases. The first canvases do not depend on it.
    image_size : int, default=96
        Height and width of a canvas, px; at least 64. Fibres grow longer with it.
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
        labels : ndarray of shape (n_samples,), int
            1 where the canvas shows fibres, else 0.
        masks : ndarray of shape (n_samples, 1, image_size, image_size), bool
            The pixels of the fibres, before the blur.
        distractors : ndarray of shape (n_samples, image_size, image_size), bool
            The pixels of the blobs, before the blur, up to half their height.
        target_names : list of str
            ``["fibre"]``, the order of the masks.
        DESCR : str
            What the canvases show.

    (images, labels) : tuple if `return_X_y=True`

    Raises
    ------
    ValueError
        If a parameter is not as described above.

    Notes
    -----
    **Fibres**: one to three on half of the canvases, 0.5 to 1.1 times `image_size` long, 2 to 4 px
    wide, 0.14 to 0.22 above the background of 0.1. Their heading changes smoothly; that of a
    typical bend has a radius of 30 px. The middle of each lies in the inner half of the canvas.

    **Blobs**: two to six, of irregular outline and 3.5 to 8 px radius, 0.4 to 0.8 above the
    background, beside the fibres but not on them. A canvas without fibres leaves the same gaps,
    so that the blobs are distributed alike.

    **Appearance**: a slow haze (sigma 20 px, standard deviation 0.015), a Gaussian blur (sigma
    0.8 px), Poisson noise of 200 photons for white, Gaussian noise of standard deviation 0.01, and
    a clip to [0, 1].

    **Memory** is `n_samples` x `image_size` :sup:`2` x 6 bytes.

    Examples
    --------
    >>> from sklearn_micranet.datasets import make_fibre_canvases
    >>> canvases = make_fibre_canvases(8, random_state=0)
    >>> canvases.images.shape, canvases.labels.shape, canvases.masks.shape
    ((8, 96, 96), (8,), (8, 1, 96, 96))
    >>> fibres = canvases.images[canvases.masks[:, 0]]
    >>> blobs = canvases.images[canvases.distractors]
    >>> bool(blobs.mean() > 2 * fibres.mean())
    True
    """
    images = np.empty((n_samples, image_size, image_size), dtype=np.float32)
    masks = np.zeros((n_samples, 1, image_size, image_size), dtype=bool)
    distractors = np.zeros((n_samples, image_size, image_size), dtype=bool)
    # A stream for each canvas: what one draws leaves the others as they are.
    streams = np.random.SeedSequence(draw_entropy(random_state)).spawn(n_samples)
    for index, stream in enumerate(streams):
        rng = np.random.default_rng(stream)
        clean = _draw_background(rng, image_size)
        fibres, gap = _draw_fibres(rng, image_size)
        if rng.random() < PRESENCE:
            clean += fibres
            masks[index] = gap <= 0
        blobs, distractors[index] = _draw_blobs(rng, gap)
        images[index] = _expose(rng, gaussian_filter(clean + blobs, BLUR))
    labels = masks.any(axis=(1, 2, 3)).astype(int)
    if return_X_y:
        return images, labels
    return Bunch(
        images=images,
        labels=labels,
        masks=masks,
        distractors=distractors,
        target_names=["fibre"],
        DESCR=DESCR,
    )


def _draw_background(rng, size):
    haze = standardised(gaussian_filter(rng.standard_normal((size, size)), HAZE_SCALE))
    return BACKGROUND + HAZE * haze


def _draw_fibres(rng, size):
    """Return the brightness of the fibres, and each pixel's distance to them, negative inside."""
    pixels = np.indices((size, size)).reshape(2, -1).T
    brightness, gap = np.zeros(size**2), np.full(size**2, np.inf)
    for _ in range(rng.integers(1, MAX_FIBRES + 1)):
        line = _draw_line(rng, size)
        distance, nearest = KDTree(line).query(pixels)
        own_gap = distance - rng.uniform(*FIBRE_WIDTH) / 2
        height = rng.uniform(*FIBRE_HEIGHT) * (
            1 + UNEVENNESS * _smooth_noise(rng, len(line), UNEVENNESS_SCALE)
        )
        covered = (0.5 - own_gap).clip(0, 1)  # the share of a pixel on the edge
        brightness = np.maximum(brightness, height[nearest] * covered)
        gap = np.minimum(gap, own_gap)
    return brightness.reshape(size, size), gap.reshape(size, size)


def _draw_line(rng, size):
    """Return points (row, column) along a smooth curve, px."""
    n_points = int(rng.uniform(*FIBRE_LENGTH) * size / STEP)
    curvature = CURVATURE * _smooth_noise(rng, n_points, CURVATURE_SCALE)
    heading = rng.uniform(0, 2 * np.pi) + STEP * curvature.cumsum()
    line = STEP * np.stack([np.sin(heading), np.cos(heading)], axis=1).cumsum(axis=0)
    middle = rng.uniform(size / 4, size * 3 / 4, size=2)
    return line - line[n_points // 2] + middle


def _smooth_noise(rng, n_points, scale):
    """Return noise along a line, of zero mean and unit variance, smooth over `scale` px."""
    return standardised(gaussian_filter1d(rng.standard_normal(n_points), scale / STEP))


def _draw_blobs(rng, gap):
    """Return the brightness and the mask of blobs that keep to where `gap` leaves room."""
    brightness, mask = np.zeros(gap.shape), np.zeros(gap.shape, dtype=bool)
    for _ in range(rng.integers(MIN_BLOBS, MAX_BLOBS + 1)):
        radius, waves = rng.uniform(*BLOB_RADIUS), draw_waves(rng, BLOB_WAVE)
        reach = radius * (1 + waves[0].sum()) + BLOB_EDGE / 2
        free = np.argwhere(gap > reach)
        if len(free):
            depth = irregular_disc(gap.shape, rng.choice(free), radius, waves)
            profile = (0.5 + depth / BLOB_EDGE).clip(0, 1)
            brightness = np.maximum(brightness, rng.uniform(*BLOB_HEIGHT) * profile)
            mask |= depth >= 0
    return brightness, mask


def _expose(rng, image):
    """Return what a camera makes of an image: photons are counted, and read with an error."""
    counted = rng.poisson(image * N_PHOTONS) / N_PHOTONS
    return (counted + READ_NOISE * rng.standard_normal(image.shape)).clip(0, 1)
