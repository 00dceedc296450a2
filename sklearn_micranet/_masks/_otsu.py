"""Otsu's method for values of any scale, and for each block of a feature map."""

import numpy as np
from skimage.filters import threshold_otsu

from sklearn_micranet._stack._large_arrays import blocks_of_rows, extremes

_N_BINS = 256


def otsu(values):
    """Return the threshold of :func:`skimage.filters.threshold_otsu`, where that has one.

    That function squares values, which float32 cannot hold for maps such as 1e-25 or 1e25, fails
    where its 256 bins would be narrower than the spacing of floats, and copies values; here they
    are counted block by block.

    Parameters
    ----------
    values : ndarray of float, of one or two dimensions
        At least one. If all are equal, so is the threshold.
    """
    values = values.reshape(len(values), -1)
    low, high = extremes(values)
    if low == high:
        return low
    exponent = np.frexp(np.maximum(abs(low), abs(high)))[1]
    low, high = np.ldexp(low, -exponent), np.ldexp(high, -exponent)  # exact, and below 1
    if high <= low + 1024 * np.finfo(values.dtype).eps:
        scaled = np.sort(np.ldexp(values, -exponent), axis=None)[np.newaxis].astype(np.float64)
        threshold = _otsu_of_sorted_rows(scaled, np.array([scaled.size]))[0]
    else:
        counts = 0
        for rows in blocks_of_rows(values):
            scaled = np.ldexp(values[rows], -exponent)
            of_rows, edges = np.histogram(scaled, _N_BINS, (low, high))
            counts = counts + of_rows
        threshold = threshold_otsu(hist=(counts, (edges[:-1] + edges[1:]) / 2))
    return np.ldexp(threshold, exponent)


def block_otsu_thresholds(feature_map, considered, block_size):
    """Return Otsu's threshold of each block at each of its pixels.

    Parameters
    ----------
    feature_map : ndarray of shape (height, width)
    considered : ndarray of bool of shape (height, width)
        Other pixels do not count.
    block_size : int
        Side of the blocks, in px; the last ones may be smaller.

    Returns
    -------
    thresholds : ndarray of shape (height, width)
        Infinite in blocks whose range is not above the Otsu threshold of all blocks' ranges.
    """
    height, width = feature_map.shape
    values = np.where(considered, feature_map, np.nan).astype(np.float64)
    pad = [(0, -n % block_size) for n in (height, width)]
    values = np.pad(values, pad, constant_values=np.nan)
    n_rows, n_columns = (n // block_size for n in values.shape)
    values = values.reshape(n_rows, block_size, n_columns, block_size).swapaxes(1, 2)
    values = np.sort(values.reshape(n_rows * n_columns, -1), axis=1)  # NaN last
    count = np.isfinite(values).sum(axis=1)
    last = np.take_along_axis(values, np.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
    ranges = np.where(count > 0, last - values[:, 0], 0)
    thresholds = np.full(len(values), np.inf)
    is_structured = ranges > (otsu(ranges) if np.ptp(ranges) > 0 else 0)
    thresholds[is_structured] = _otsu_of_sorted_rows(values[is_structured], count[is_structured])
    thresholds = thresholds.reshape(n_rows, n_columns)
    full = thresholds.repeat(block_size, axis=0).repeat(block_size, axis=1)
    return full[:height, :width]


def _otsu_of_sorted_rows(values, count):
    """Otsu's threshold of each row, exact: every value is tried, without a histogram.

    The variance between the classes that a threshold after the k-th of n values makes is, up to a
    constant, (k S_n / n - S_k)^2 / (k (n - k)), S_k being the sum of the k smallest values.
    """
    k, n = np.arange(1, values.shape[1]), count[:, None]
    differences = values - values[:, :1]  # the sums of values far from 0 are not exact
    scale = np.nanmax(differences, axis=1, initial=0, keepdims=True)
    differences = np.divide(differences, scale, where=scale > 0, out=differences)
    sums = np.nancumsum(differences, axis=1)
    distinct = values[:, :-1] < values[:, 1:]  # equal values fall on one side; false for NaN
    weight = np.where(distinct, k * (n - k), 1)
    between = np.where(distinct, (k * sums[:, -1:] / n - sums[:, :-1]) ** 2 / weight, -1)
    return np.take_along_axis(values, between.argmax(axis=1)[:, None], axis=1)[:, 0]
