"""Outlines of structures that stand out by their brightness.

The noise is equalised, then each object is cut a fixed fraction of the way from its surroundings
to itself.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from sklearn_micranet._stack._large_arrays import (
    blocks_of_rows,
    by_rows,
    let_go,
    with_halo,
    zeros,
)

from ._near import COARSE, PULL, Near, block_means, edge_of

_SECOND_DIFFERENCES = np.outer([1, -2, 1], [1, -2, 1]) / 6.0  # unit gain for white noise
_N_BINS = 16
_MIN_PER_BIN = 50
_SMALLEST_NOISE = 1e-3  # of the range of brightness, where an image has less
_TINY = 1e-6
_BLURRED = (3, 5, 7)  # iterations
OUTLINE = 0.6  # height at which a blurred structure is cut
CUT = 0.55  # a little inside, as blur widens thin structures; the level itself is applied last
_SLOPE = 0.7  # px: slopes are those of an image smoothed by so much
# Blur from the apparent one, px; chosen on training images of digits, MNIST canvases and nuclei.
_GAIN, _LEAST, _MIN_BLUR, _MAX_BLUR = 2.5, 0.5, 1.0, 2.0
HALO = 8  # px: further than any of these Gaussians reaches, and a slope
_MAD = 0.6745  # median of |x| of a standard normal x


class NoiseCurve(NamedTuple):
    """Variance of the noise of a pixel: ``gain * brightness + offset``, and the range it is of."""

    gain: float
    offset: float
    low: float
    high: float

    def deviation(self, brightness):
        """Return the standard deviation of the noise at a brightness."""
        return np.sqrt(self.gain * np.clip(brightness, self.low, self.high) + self.offset)


def noise_samples(image):
    """Return local brightness and squared second difference of the pixels of an image.

    Parameters
    ----------
    image : ndarray of shape (height, width)

    Returns
    -------
    samples : float32 ndarray of shape (2, n_pixels)
        Brightness, the mean of 3 x 3 pixels, and noise, whose standard deviation is that of a
        pixel where the image is smooth. Border pixels are left out.
    """
    image = np.asarray(image, dtype=np.float32)
    brightness = ndimage.uniform_filter(image, 3)[1:-1, 1:-1]
    noise = ndimage.convolve(image, _SECOND_DIFFERENCES.astype(np.float32))[1:-1, 1:-1]
    return np.stack([brightness.ravel(), noise.ravel()])


def noise_curve(samples):
    """Fit a straight line to the variance of the noise against brightness.

    Parameters
    ----------
    samples : ndarray of shape (2, n_pixels)
        Those of several images, see :func:`noise_samples`.

    Returns
    -------
    curve : NoiseCurve
        Nowhere below a hundredth of its maximum over the range of brightness, nor below a
        standard deviation of a thousandth of the range.
    """
    brightness, noise = samples
    if not len(brightness):  # of images that are all border
        return NoiseCurve(0.0, 1.0, 0.0, 0.0)
    low, high = np.percentile(brightness, [0.5, 99.5])
    if not high > low:
        return NoiseCurve(0.0, 1.0, float(low), float(low))
    edges = np.linspace(low, high, _N_BINS + 1)
    index = np.clip(np.searchsorted(edges, brightness) - 1, 0, _N_BINS - 1)
    x, variance, weight = [], [], []
    for i in range(_N_BINS):
        inside = index == i
        if (n := np.count_nonzero(inside)) >= _MIN_PER_BIN:
            x.append(np.median(brightness[inside]))
            variance.append((np.median(np.abs(noise[inside])) / _MAD) ** 2)
            weight.append(n)
    return _line(np.array(x), np.array(variance), np.array(weight), low, high)


def _line(x, variance, weight, low, high):
    smallest = (_SMALLEST_NOISE * (high - low)) ** 2
    if len(x) < 2 or not variance.max() > smallest:
        return NoiseCurve(0.0, smallest, float(low), float(high))
    # The error of a variance grows with it: relative errors are what a fit has to balance.
    weight = np.sqrt(weight) / np.maximum(variance, 0.05 * variance.max())
    gain, offset = np.polyfit(x, variance, 1, w=weight)
    ends = gain * np.array([low, high]) + offset
    ends = np.maximum(ends, max(0.01 * ends.max(), smallest))
    gain = (ends[1] - ends[0]) / (high - low)
    return NoiseCurve(float(gain), float(ends[0] - gain * low), float(low), float(high))


def equalise_noise(image, curve):
    """Return the image on a scale on which the noise has the standard deviation 1.

    The integral of 1 / sqrt(gain I + offset) from `low`, straight beyond the range of the curve.
    """
    image = np.asarray(image, dtype=np.float32)
    gain, offset, low, high = curve
    inside = np.clip(image, low, high)
    ends = [np.sqrt(gain * end + offset) for end in (low, high)]
    root = np.sqrt(gain * inside + offset)
    # 2 (root - ends[0]) / gain, without a division by a gain of zero
    value = 2 * (inside - low) / (root + ends[0])
    return value + (image - inside) / np.where(image > high, ends[1], ends[0])


def halfway_height(
    view, start, *, within=None, min_contrast=0.0, is_blurred=False, sigma=8.0, n_iterations=8
):
    """Return how far each pixel is on the way from its surroundings to the object.

    Objects are cut about half-way, their mean and that of their surroundings are taken anew, and
    so on.

    Parameters
    ----------
    view : ndarray of shape (height, width)
        On which the structures are high, its noise equal everywhere.
    start : bool ndarray of shape (height, width)
        Where structures are, roughly.
    within : bool ndarray of shape (height, width), default=None
        Where structures may be at all.
    min_contrast : float, default=0.0
        Smallest difference between object and surroundings. Where there is no object, noise would
        be cut half-way otherwise.
    is_blurred : bool, default=False
        Whether to take back what blur has done. It widens thin structures: they are cut where the
        outline of what was found would lie after it, and heights are shifted by what `OUTLINE` is
        off from there.
    sigma : float, default=8.0
        Standard deviation of the Gaussian that says what is near, in px.
    n_iterations : int, default=8

    Returns
    -------
    height : ndarray of float of shape (height, width)
        0 is the surroundings, 1 the object; not limited to these. 0 outside `within`. In a file
        if it is large.
    """
    view = np.asarray(view, dtype=np.float32)
    near, foreground = Near(view, sigma), start

    def height_of(rows):
        height = (view[rows] - near.enlarge(outside, rows)) / near.enlarge(contrast, rows)
        let_go(view)
        return height

    def above_lowest(rows):
        above = view[rows] > near.enlarge(lowest, rows)
        return above if within is None else above & within[rows]

    def final_height(rows):
        height = height_of(rows)
        if is_blurred:
            height += near.enlarge(OUTLINE - cut, rows)
        return height if within is None else np.where(within[rows], height, np.float32(0))

    cut = np.full_like(near.view, CUT)
    for i in range(n_iterations):
        inside, outside = near.sides(view, near.view, foreground)
        contrast = np.maximum(inside - outside, max(min_contrast, _TINY))
        if is_blurred and i in _BLURRED:  # what is found has to be an object first
            if i == _BLURRED[0]:
                blur = _blur(height_of, foreground)
            cut = _height_of_outline(near, foreground, blur)
        if i < n_iterations - 1:
            lowest = outside + cut * contrast
            foreground = by_rows(above_lowest, view.shape, view, within)
    return by_rows(final_height, view.shape, within)


def _blur(height_of, foreground):
    """Return the blur that the slope of outlines tells of, a standard deviation in px.

    `height_of` returns the height of a slice of rows.

    The outline of a large object under a blur s has the slope 1 / (sqrt(2 pi) s). Noise, pixels and
    bent outlines add to that: the line from there to blur was chosen on training images.
    """
    edge, n = edge_of(foreground), 0
    slopes = zeros((np.count_nonzero(edge),), np.float64)
    if not len(slopes) or min(edge.shape) < 2:
        return _MIN_BLUR
    for rows in blocks_of_rows(edge, slopes):
        read, inner = with_halo(rows, len(edge), HALO)
        gradient = np.gradient(ndimage.gaussian_filter(height_of(read), _SLOPE, truncate=3))
        found = np.hypot(*(along_axis[inner][edge[rows]] for along_axis in gradient))
        slopes[n : n + len(found)] = found
        n += len(found)
    steepness = np.median(slopes, overwrite_input=True)
    apparent = 1 / (np.sqrt(2 * np.pi) * max(steepness, _TINY))
    return float(np.clip(_GAIN * (apparent - _LEAST), _MIN_BLUR, _MAX_BLUR))


def _height_of_outline(near, foreground, blur):
    """Return where between surroundings and object the outline of a blurred mask lies."""

    def blurred_rows(rows):
        return ndimage.gaussian_filter(foreground[rows].astype(np.float32), blur, truncate=3)

    blurred = by_rows(blurred_rows, foreground.shape, foreground, halo=HALO)
    inside, outside = near.sides(blurred, near(blurred), foreground)
    edge = edge_of(foreground)
    for rows in blocks_of_rows(blurred, edge):
        blurred[rows] *= edge[rows]
    outline = (near(blurred) + 0.5 * PULL) / (near(edge) + PULL)
    return np.clip((outline - outside) / np.maximum(inside - outside, 0.05), 0.5, 0.9)


def as_map(height, level):
    """Return heights as a map in [0, 1] that is 0.5 at `level`, 0 at 0 and 1 at 1."""
    below, above = height * (0.5 / level), 0.5 + (height - level) * (0.5 / (1 - level))
    return np.clip(np.where(height < level, below, above), 0, 1).astype(np.float32)


def share_out(prior, foreground, *, sigma=3.0, n_steps=5):
    """Give each pixel of the foreground to a class.

    Parameters
    ----------
    prior : ndarray of shape (n_classes, height, width)
    foreground : bool ndarray of shape (height, width)
    sigma : float, default=3.0
        Standard deviation of a step along the foreground, in px.
    n_steps : int, default=5

    Returns
    -------
    winner : int ndarray of shape (height, width)
        The class whose prior is the largest after it was averaged along the foreground, never
        across the background.
    """
    prior, inside = block_means(prior, COARSE), block_means(foreground, COARSE)
    step = sigma / COARSE
    weight = inside / (ndimage.gaussian_filter(inside, step, truncate=3) + _TINY)
    spread = prior * inside
    for _ in range(n_steps):
        spread = ndimage.gaussian_filter(spread, (0, step, step), truncate=3)
        spread *= weight
    winner = np.where(inside, spread, prior).argmax(axis=0)
    winner = winner.astype(np.min_scalar_type(len(prior)))  # one byte for each pixel is enough
    height, width = foreground.shape
    return winner.repeat(COARSE, axis=0).repeat(COARSE, axis=1)[:height, :width]
