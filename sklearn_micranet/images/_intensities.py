"""Offset and scale of the intensities of one image."""

import numpy as np

_ROUNDING = 0.001  # by which images of a float dtype may leave [0, 1]


def scale_image(image, *, method, per_channel, bit_depth, stack_dtype=None, **parameters):
    """Scale one image to float32.

    Parameters
    ----------
    image : ndarray of shape (height, width) or (height, width, n_channels)
    method, per_channel, bit_depth, **parameters
        As for :class:`IntensityScaler`, and its `training_range`, (lowest, highest).
    stack_dtype : dtype, default=None
        Of the stack that the image is from, if images of other dtypes may be in it.
    """
    channels = _channels(image, per_channel)
    if method == "dtype":
        if bit_depth is None and stack_dtype is not None:
            check_one_dtype([stack_dtype, image.dtype])
        parameters["largest"] = _largest_intensity(image.dtype, bit_depth)
    offset, scale = _offset_and_scale(channels, method=method, **parameters)
    # One value per pixel of a row, as NumPy takes ten times as long for one per channel.
    offset, scale = (np.tile(values, (channels.shape[1], 1)) for values in (offset, scale))
    # Up to 16 bits float32 is exact; beyond, the difference must be taken in float64.
    scaled = np.subtract(channels, offset, dtype=np.result_type(image.dtype, np.float32))
    scaled /= np.where(scale == 0, np.inf, scale)
    if method == "percentile":
        np.clip(scaled, 0, 1, out=scaled)
    return scaled.reshape(image.shape).astype(np.float32, copy=False)


def extremes(image, *, per_channel):
    """Return the smallest and the largest intensity, float64 of shape (n_channels,) or (1,)."""
    channels = _channels(image, per_channel)
    # One axis at a time, as NumPy takes 70 times as long for both at once.
    low, high = channels.min(axis=0).min(axis=0), channels.max(axis=0).max(axis=0)
    low, high = low.astype(np.float64), high.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            "X must hold finite intensities. Got an image with NaN or infinity instead: replace "
            "these pixels, or leave the image out."
        )
    return low, high


def check_one_dtype(dtypes):
    """Refuse images of several dtypes, whose intensities have no largest one in common."""
    names = {str(np.dtype(dtype).newbyteorder("=")) for dtype in dtypes}
    if len(names) > 1:
        raise ValueError(
            f'method="dtype" requires images of one dtype. Got {", ".join(sorted(names))} '
            "instead: set bit_depth to the number of bits that all of them use, or convert them."
        )


def check_no_alpha(images):
    """Refuse images of shape (height, width, n_channels) of which the last channel is opaque."""
    last = [image[..., -1] for image in images]
    n_channels = images[0].shape[-1]
    opaque = np.iinfo(last[0].dtype).max if last[0].dtype.kind in "iu" else 1
    if n_channels in (2, 4) and all((channel == opaque).all() for channel in last):
        raise ValueError(
            f"X must have no alpha channel (transparency). Got {n_channels} channels, the last of "
            f"which is {opaque} in every pixel, instead: pass X[..., :{n_channels - 1}]."
        )


def _channels(image, per_channel):
    """Return an image as (height, width, n_channels) of what is scaled by itself."""
    return image if per_channel and image.ndim == 3 else image.reshape(len(image), -1, 1)


def _offset_and_scale(channels, *, method, percentiles, invert, training_range, largest=None):
    """Return offset and scale of each channel, float64 of shape (n_channels,)."""
    low, high = extremes(channels, per_channel=True)
    if method == "standard":
        # Rounding would leave a constant channel with a tiny standard deviation.
        scale = np.where(low == high, 0, channels.std(axis=(0, 1), dtype=np.float64))
        return channels.mean(axis=(0, 1), dtype=np.float64), -scale if invert else scale
    if method == "dtype":
        _check_largest(low, high, largest, channels.dtype)
        low, high = np.zeros_like(low), np.full_like(high, largest)
    elif method == "training_range":
        low = training_range[0]
        high = low + 0.8 * (training_range[1] - low)
    elif method == "percentile":
        # NumPy takes no percentiles of bool.
        values = channels.view(np.uint8) if channels.dtype == bool else channels
        lower, upper = np.percentile(values, percentiles, axis=(0, 1))
        low, high = np.where(lower < upper, (lower, upper), (low, high))
    if invert:
        low, high = high, low
    return low, high - low


def _largest_intensity(dtype, bit_depth):
    if bit_depth is not None:
        return 2**bit_depth - 1
    if dtype.kind in "bf":
        return 1
    if dtype.itemsize > 2:
        raise ValueError(
            f'method="dtype" requires images of at most 16 bits. Got {dtype} instead, which no '
            "camera fills: set bit_depth to the number of bits that are used."
        )
    return np.iinfo(dtype).max


def _check_largest(low, high, largest, dtype):
    """Refuse intensities that show that the largest one is not what it is taken for."""
    smallest = 0 if dtype.kind == "f" and largest == 1 else -np.inf
    if low.min() < smallest - _ROUNDING or high.max() > largest + _ROUNDING:
        required = "in [0, 1]" if smallest == 0 else f"of at most {largest}"
        raise ValueError(
            f'method="dtype" requires {dtype} images to hold intensities {required}. Got '
            f"{low.min():g} to {high.max():g} instead: set bit_depth to the number of bits of the "
            "camera, or use another method."
        )
