"""The scale of a field: of its pixels, and one offset and one factor of intensities for all."""

from numbers import Real
from typing import NamedTuple

import numpy as np

from sklearn_micranet._stack._numbers import check_scalar

from ._grid import blocks_of

_SIDE = 1024  # px of the squares that are read at a time
_MAX_BITS = 16  # of integers that are counted one by one
_PER_FIELD = ("minmax", "standard", "percentile")
_SAME_SCALE = 0.01  # share by which pixel sizes may differ


def check_scale(pixel_size, trained):
    """Raise an error unless fields have the pixel size of the training, as far as both are said."""
    if pixel_size is None:
        return
    if trained is None:
        raise ValueError(
            f"pixel_size={pixel_size} needs that of the training to compare with. Got "
            "pixel_size=None of FieldSegmenter instead: set it, and call fit again."
        )
    check_scalar(pixel_size, "pixel_size", Real, min_val=0, include_boundaries="neither")
    factor = pixel_size / trained
    if not 1 / (1 + _SAME_SCALE) <= factor <= 1 + _SAME_SCALE:
        raise ValueError(
            f"Fields must have the pixel size of the training, {trained}. Got {pixel_size} "
            f"instead: objects are {1 / factor:.3g} times as large in px as those of the training. "
            f"Rescale the fields by a factor of {factor:.3g}."
        )


def scaled_fields(fields, scaler):
    """Return fields that are scaled by the intensities of each of them, when they are read.

    Parameters
    ----------
    fields : list of arrays
    scaler : IntensityScaler or None
    """
    if scaler is None:
        return fields
    if scaler.method not in _PER_FIELD:
        raise ValueError(
            f"The method of scaler must be one of {_PER_FIELD}. Got {scaler.method!r} instead, "
            "which does not depend on the field: make it a step of the estimator."
        )
    scaler._validate_params()
    names = ("method", "per_channel", "percentiles", "invert")
    parameters = {name: getattr(scaler, name) for name in names}
    return [ScaledField(field, range_of_field(field, **parameters)) for field in fields]


class ScaledField:
    """A field that is scaled where it is read.

    Parameters
    ----------
    field : array of shape (height, width[, n_channels])
    scale : callable
        Maps a part of the field to float32, pixel by pixel.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, field, scale):
        self.field = field
        self.scale = scale
        self.shape = tuple(field.shape)

    def __getitem__(self, key):
        return self.scale(np.asarray(self.field[key]))


class Range(NamedTuple):
    """Offset and scale, of each channel or of all."""

    offset: np.ndarray
    scale: np.ndarray
    clip: bool

    def __call__(self, pixels):
        """Scale pixels to float32; a channel without any range becomes 0."""
        dtype = np.result_type(pixels.dtype, np.float32)
        divisor = np.where(self.scale == 0, np.inf, self.scale).astype(dtype)
        scaled = np.subtract(pixels, self.offset.astype(dtype), dtype=dtype) / divisor
        return (np.clip(scaled, 0, 1) if self.clip else scaled).astype(np.float32)


def range_of_field(field, *, method, per_channel, percentiles, invert):
    """Return the range by which a whole field is scaled; it is read square by square.

    Parameters are those of :class:`~sklearn_micranet.IntensityScaler`, of the methods "minmax",
    "standard" and "percentile". Percentiles need integers of up to 16 bits, which are counted.
    """
    channels = field.shape[2:] if per_channel else ()
    if method == "standard":
        offset, scale = _mean_and_deviation(field, channels)
        return Range(offset, -scale if invert else scale, clip=False)
    low, high = _extremes(field, channels)
    if method == "percentile":
        lower, upper = _percentiles(field, channels, percentiles)
        low, high = np.where(lower < upper, (lower, upper), (low, high))
    if invert:
        low, high = high, low
    return Range(low, high - low, clip=method == "percentile")


def _squares(field, channels):
    """Yield the pixels of a field, of shape (n_pixels, *channels)."""
    for first_row, end_row, first_column, end_column in blocks_of(field.shape[:2], _SIDE):
        square = np.asarray(field[first_row:end_row, first_column:end_column])
        if not np.isfinite(square).all():
            raise ValueError("Fields must be finite. Got NaN or infinity instead.")
        yield square.reshape(-1, *channels)


def _extremes(field, channels):
    pairs = [(s.min(axis=0), s.max(axis=0)) for s in _squares(field, channels)]
    low, high = zip(*pairs, strict=True)
    return np.min(low, axis=0).astype(np.float64), np.max(high, axis=0).astype(np.float64)


def _mean_and_deviation(field, channels):
    """Merge means and sums of squares of the squares (Chan et al., as in NumPy's cookbooks)."""
    n, mean, total = 0, np.zeros(channels), np.zeros(channels)
    for square in _squares(field, channels):
        m = len(square)
        new_mean = square.mean(axis=0, dtype=np.float64)
        difference = new_mean - mean
        total += square.var(axis=0, dtype=np.float64) * m + difference**2 * n * m / (n + m)
        mean += difference * m / (n + m)
        n += m
    low, high = _extremes(field, channels)
    return mean, np.where(low == high, 0, np.sqrt(total / n))


def _percentiles(field, channels, percentiles):
    dtype = np.dtype(field.dtype)
    if dtype.kind not in "ui" or 8 * dtype.itemsize > _MAX_BITS:
        raise ValueError(
            'method="percentile" of a scaler of fields requires integers of at most '
            f'{_MAX_BITS} bits, which are counted. Got {dtype} instead: use method="standard" or '
            '"minmax", or scale the field before.'
        )
    least, n = np.iinfo(dtype).min, 2 ** (8 * dtype.itemsize)
    counts = np.zeros((int(np.prod(channels)), n), dtype=np.int64)
    for square in _squares(field, channels):
        for of_channel, values in zip(counts, square.reshape(len(square), -1).T, strict=True):
            of_channel += np.bincount(values.astype(np.int64) - least, minlength=n)
    found = [[_percentile(c, p) + least for c in counts] for p in percentiles]
    return np.reshape(found, (2, *channels))


def _percentile(counts, percentile):
    """Return the percentile of counted values, with linear interpolation as in NumPy."""
    ends = np.cumsum(counts)
    place = percentile / 100 * (ends[-1] - 1)
    below, above = (
        np.searchsorted(ends, k, side="right") for k in (np.floor(place), np.ceil(place))
    )
    return below + (place - np.floor(place)) * (above - below)
