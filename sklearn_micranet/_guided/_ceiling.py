"""Outlines where all objects are equally bright, and blur dims those that are thin.

The contrast of an object then says how wide the blur is against it, and with that at which height
its outline lies.
"""

import numpy as np
from scipy.special import erf

from sklearn_micranet._stack._large_arrays import by_rows

from ._choice import signed_views
from ._intensity import CUT, OUTLINE
from ._near import Near, edge_of, grow

_N_OBJECTS = 20  # of which to say that they are equally bright
# What 5 % of objects exceed, against what 25 % exceed: 1.00 in training images of digits, 1.14 at
# least in those of nuclei.
_EQUAL_TO = 1.05
_TOP_OF_NOISE = 2.0  # standard deviations: what noise adds to the brightest pixel of an object
_N_ITERATIONS, _FOUND = 8, 2  # after `_FOUND` of them, what was found is an object, roughly
_AROUND = 3  # px around an object where its blur is not taken for background
_WIDEST_BLUR = 2.5  # px: what would need more is dim; chosen on training images of digits
_DIMMEST = 0.1  # contrast of an object, as a share of the ceiling
# Of a stripe of brightness 1 and width w under a blur s, by w / (sqrt(2) s): the mean inside, and
# where its edge lies as a fraction of that.
WIDTHS = np.geomspace(0.02, 50, 1000).astype(np.float32)
MEANS = erf(WIDTHS) + np.expm1(-(WIDTHS**2)) / (WIDTHS * np.sqrt(np.pi))
EDGES = np.minimum(erf(WIDTHS) / (2 * MEANS), 1)


def ceiling_of(surveys, view, curve, classes):
    """Return the contrast of objects of some classes if many share the largest, else NaN.

    The brightest object of each image is left out: of images that were scaled each by itself, these
    are all equally bright.

    Parameters
    ----------
    surveys : list of Survey
    view : ndarray of shape (n_channels,)
    curve : NoiseCurve
        Of that view.
    classes : list of bool
        Which classes count.
    """
    column = np.abs(signed_views(len(view)) - view).sum(axis=1).argmin()
    found = [np.empty(0)]
    for s in surveys:
        tops = [t[:, column] for t, is_one in zip(s.tops, classes, strict=True) if is_one]
        if view.sum() and tops and s.outside.any():
            tops = np.sort(np.concatenate(tops))[:-1]
            tops -= _TOP_OF_NOISE * curve.deviation(tops)
            found.append(tops - np.median(s.means[s.outside] @ view))
    found = np.concatenate(found)
    if len(found) < _N_OBJECTS:
        return np.nan
    many, top = np.quantile(found, [0.75, 0.95])
    return float(top) if 0 < top <= _EQUAL_TO * many else np.nan


def height_below(ceiling, view, start, *, within, sigma=8.0):
    """Return how far each pixel is on the way from its surroundings to the object.

    Parameters
    ----------
    ceiling : float
        Contrast of an object without blur.
    view : float32 ndarray of shape (height, width)
        Brightness, to which blur is linear: the noise is not equalised.
    start, sigma
        As of :func:`halfway_height`.
    within : bool ndarray of shape (height, width)
        Where structures may be.

    Returns
    -------
    height : float32 ndarray of shape (height, width)
        The outline is at `OUTLINE`; 0 outside `within`. In a file if it is large.
    """
    near, foreground = Near(view, sigma), start

    def height_of(rows):
        height = view[rows] - near.enlarge(outside, rows)
        height /= near.enlarge(contrast, rows)
        height += near.enlarge(OUTLINE - cut, rows)
        height[~within[rows]] = 0
        return height

    def above_outline(rows):
        return (view[rows] > near.enlarge(lowest, rows)) & within[rows]

    def around(rows):
        return grow(foreground[rows], _AROUND)

    cut = np.full_like(near.view, CUT)
    for i in range(_N_ITERATIONS):
        inside, outside = near.sides(view, near.view, foreground)
        if i >= _FOUND:
            grown = by_rows(around, view.shape, foreground, halo=_AROUND)
            _, outside = near.sides(view, near.view, grown)
        contrast = np.maximum(inside - outside, np.float32(_DIMMEST * ceiling))
        if i >= _FOUND:
            width = 4 * near(foreground) / (near(edge_of(foreground)) + 1e-6)  # 2 px of each edge
            least = width / (np.sqrt(2) * _WIDEST_BLUR)
            of_contrast = np.interp(contrast / ceiling, MEANS, WIDTHS)
            cut = np.interp(np.maximum(of_contrast, least), WIDTHS, EDGES).astype(np.float32)
        lowest = outside + cut * contrast
        if i < _N_ITERATIONS - 1:
            foreground = by_rows(above_outline, view.shape, view, within)
    return by_rows(height_of, view.shape, view, within)
