"""Which view of the image separates a class's gate from background, by labels alone."""

from itertools import combinations

import numpy as np
from scipy import ndimage
from scipy.stats import rankdata

from ._gate import CELL

_INSIDE, _OUTSIDE = 0.7, 0.05  # of the maximum of a gate
# Between the values of training images of fibres (.81) and of digits (.90 at least), and between
# those of micrographs (.64) and of fibres.
INTENSITY_FROM, BOTH_FROM = 0.87, 0.75
COLOUR_GAIN = 0.02
_N_MIXED = 20  # images with cells of both kinds: the mean over fewer is a matter of chance


def separation(values, is_inside):
    """Return the area under the ROC curve of values inside against values outside.

    Parameters
    ----------
    values : ndarray of shape (..., n)
    is_inside : bool ndarray of shape (n,)

    Returns
    -------
    auc : ndarray of shape (...)
        0.5 where nothing is inside or nothing outside. Ties count half.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet._guided._choice import separation
    >>> float(separation(np.array([1, 2, 3, 4]), np.array([False, True, False, True])))
    0.75
    """
    n_inside = np.count_nonzero(is_inside)
    n_outside = len(is_inside) - n_inside
    if not n_inside or not n_outside:
        return np.full(values.shape[:-1], 0.5)
    ranks = rankdata(values, axis=-1)[..., is_inside].sum(axis=-1)
    return (ranks - n_inside * (n_inside + 1) / 2) / (n_inside * n_outside)


def cell_means(image):
    """Return the mean of each channel over each cell that the image fills.

    A mean, as it is the same measure for bright and for dark structures: extremes of a cell would
    take any texture for brightness.

    Parameters
    ----------
    image : ndarray of shape (height, width, n_channels)

    Returns
    -------
    means : ndarray of shape (height // 8, width // 8, n_channels)
    """
    height, width = (n // CELL for n in image.shape[:2])
    filled = image[: height * CELL, : width * CELL]
    blocks = filled.reshape(height, CELL, width, CELL, image.shape[2])
    return blocks.mean(axis=(1, 3), dtype=np.float64)


def tops_of_objects(image, inside):
    """Return how bright each object is at its brightest pixel.

    Parameters
    ----------
    image : ndarray of shape (height, width, n_channels)
    inside : bool ndarray of shape (n_classes, height // 8, width // 8)
        Cells where a class surely is; those that touch are an object.

    Returns
    -------
    tops : list of n_classes ndarray of shape (n_objects, 2 * n_views)
        In the :func:`signed_views`.
    """
    views, _ = views_of(image.shape[2])
    if not inside.any():
        return [np.empty((0, 2 * len(views)))] * len(inside)
    height, width = inside.shape[1:]
    shape = height, CELL, width, CELL
    cells = []
    for view in views:
        seen = image[: height * CELL, : width * CELL] @ view.astype(image.dtype)
        blocks = seen.reshape(shape)
        cells += [blocks.max(axis=(1, 3)), -blocks.min(axis=(1, 3))]
    cells = [ndimage.maximum_filter(of_view, 3) for of_view in cells]  # it may lie beside
    tops = []
    for of_class in inside:
        labels, n = ndimage.label(of_class, np.ones((3, 3)))
        found = [ndimage.maximum(of_view, labels, np.arange(1, n + 1)) for of_view in cells]
        tops.append(np.transpose(found))
    return tops


def signed_views(n_channels):
    """Return the views of brightness, each as it is and negated, (2 * n_views, n_channels)."""
    views, _ = views_of(n_channels)
    return np.stack([views, -views], axis=1).reshape(-1, n_channels)


def inside_and_outside(cells, present):
    """Return where a class surely is, (n_classes, ...), and where none is, of cell gates."""
    seen = cells * np.reshape(present, (-1,) + (1,) * (cells.ndim - 1))
    return seen > _INSIDE, (seen < _OUTSIDE).all(axis=0)


def views_of(n_channels):
    """Return weights of the channels, their mean and each, and differences of two channels."""
    single = np.eye(n_channels)
    pairs = [single[i] - single[j] for i, j in combinations(range(n_channels), 2)]
    brightness = single if n_channels == 1 else [np.full(n_channels, 1 / n_channels), *single]
    return np.array(brightness), np.reshape(pairs, (-1, n_channels))


def separation_anywhere(values, is_inside, image):
    """Return the AUC of cells of all images, or the mean of the AUCs within images if that is more.

    Images that were scaled each by itself cannot be compared with each other: of an empty one, the
    background is as bright as the structures of others. Images count that hold cells of both
    kinds, if there are at least 20.

    Parameters
    ----------
    values : ndarray of shape (n_views, n_cells)
    is_inside : bool ndarray of shape (n_cells,)
    image : int ndarray of shape (n_cells,)
        Number of the image of each cell, in increasing order.

    Returns
    -------
    auc : ndarray of shape (n_views,)
    """
    starts = np.flatnonzero(np.diff(image)) + 1
    within = [
        separation(of_image, inside)
        for of_image, inside in zip(
            np.split(values, starts, axis=1), np.split(is_inside, starts), strict=True
        )
        if inside.any() and not inside.all()
    ]
    auc = separation(values, is_inside)
    if len(within) < _N_MIXED:
        return auc
    within = np.mean(within, axis=0)
    return np.where(np.abs(within - 0.5) > np.abs(auc - 0.5), within, auc)


def best_view(means, is_inside, is_outside, image):
    """Return the signed weights of the channels that separate best, and their AUC.

    Parameters
    ----------
    means : ndarray of shape (n_cells, n_channels)
    is_inside, is_outside : bool ndarray of shape (n_cells,)
    image : int ndarray of shape (n_cells,)
        As of :func:`separation_anywhere`.

    Returns
    -------
    weights : ndarray of shape (n_channels,)
        Negative where the structure is dark. A difference of channels is taken where it separates
        better, by `COLOUR_GAIN` at least, than each of them.
    auc : float
        In [0.5, 1].
    """
    used = is_inside | is_outside
    (first, auc), (second, of_colour) = (
        _best(views, means[used], is_inside[used], image[used])
        for views in views_of(means.shape[1])
    )
    return (second, of_colour) if of_colour >= auc + COLOUR_GAIN else (first, auc)


def _best(views, means, is_inside, image):
    if not len(views):
        return None, 0.0
    auc = separation_anywhere(views @ means.T, is_inside, image)
    best = int(np.abs(auc - 0.5).argmax())
    return (
        (views[best], float(auc[best]))
        if auc[best] >= 0.5
        else (-views[best], 1 - float(auc[best]))
    )


def mode_of(auc, view):
    """Return what a class's outlines are taken from: "intensity", "both" or "texture".

    Where colour tells more than brightness, parts of a structure differ in it as they do in a
    texture: pixels are classified.
    """
    if not view.sum() or auc < BOTH_FROM:
        return "texture"
    return "intensity" if auc >= INTENSITY_FROM else "both"
