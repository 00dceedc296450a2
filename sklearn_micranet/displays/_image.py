"""The image under a display: which sample, how bright, how large."""

from math import floor, log10
from numbers import Integral, Real

import numpy as np

from sklearn_micranet._stack._numbers import check_scalar

NM_PER_UNIT = {"um": 1e3, "nm": 1.0, "mm": 1e6}
BAR_SHARE = 0.25  # largest share of the image's width that the scale bar takes
MAX_PERCENTILE_PIXELS = 4_000_000  # pixels from which percentiles are taken


def pick_sample(arrays, sample, name, n_samples=None):
    """Return one sample of a stack or a list as an array.

    Parameters
    ----------
    arrays : array-like, lazy stack or list
    sample : int
        Which one; negative numbers count from the end.
    name : str
        What error messages call `arrays`.
    n_samples : int, default=None
        Number of samples that is required.
    """
    check_scalar(sample, "sample", Integral)
    if n_samples is not None and len(arrays) != n_samples:
        raise ValueError(
            f"{name} must hold one array for each of the {n_samples} images. "
            f"Got {len(arrays)} instead."
        )
    if not -len(arrays) <= sample < len(arrays):
        raise ValueError(
            f"sample must be the number of one of the {len(arrays)} {name}, from 0 on. "
            f"Got {sample} instead."
        )
    return np.asarray(arrays[sample])


def image_like(image, size):
    """Return an image, unflattened where `size`, (height, width) of its maps, says how."""
    if image.ndim == 1 and all(size) and image.size % (size[0] * size[-1]) == 0:
        image = image.reshape(*size, -1)
    return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image


def check_image(image, channel=None):
    """Return an image of shape (height, width) or, in colours, (height, width, 3)."""
    image = np.asarray(image)
    if image.ndim not in (2, 3) or 0 in image.shape or image.dtype.kind not in "buif":
        raise ValueError(
            "An image must be numbers of shape (height, width) or (height, width, n_channels). "
            f"Got shape {image.shape} and dtype {image.dtype} instead. Images are passed as a "
            "list or stack: a single one as image[np.newaxis]."
        )
    n_channels = 1 if image.ndim == 2 else image.shape[2]
    if channel is not None:
        check_scalar(channel, "channel", Integral, min_val=0, max_val=n_channels - 1)
        return image if image.ndim == 2 else image[..., channel]
    if n_channels not in (1, 3):
        raise ValueError(
            "An image must have one channel, or three to be shown as red, green and blue. Got "
            f"{n_channels} instead. Pass channel=0, or another of 0 to {n_channels - 1}."
        )
    return image[..., 0] if image.ndim == 3 and n_channels == 1 else image


def contrast_limits(image, percentiles):
    """Return the values that are shown black and white.

    Parameters
    ----------
    image : ndarray
    percentiles : tuple of two floats or None
        ``None`` stands for the range of the dtype, that is 0 to 1 for floats.
    """
    if percentiles is None:
        if image.dtype.kind in "iu":
            return tuple(
                float(end) for end in (np.iinfo(image.dtype).min, np.iinfo(image.dtype).max)
            )
        return 0.0, 1.0
    step = max(1, round((image.size / MAX_PERCENTILE_PIXELS) ** 0.5))
    values = image[::step, ::step].astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, percentiles)
    if low == high:  # a few bright spots on a flat background
        low, high = values.min(), values.max()
    return (float(low), float(high)) if low < high else (float(low), float(low) + 1)


def check_percentiles(percentiles):
    """Raise unless `percentiles` are two ascending numbers in [0, 100], or None."""
    if percentiles is None:
        return
    shape = np.shape(percentiles)
    if shape != (2,) or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError(
            "percentiles must be two ascending numbers from 0 to 100, or None. "
            f"Got {percentiles} instead."
        )


def check_scale(pixel_size, unit):
    """Raise unless `pixel_size` is a length in `unit`, or None."""
    if unit not in NM_PER_UNIT:
        raise ValueError(f'unit must be "um", "nm" or "mm". Got {unit!r} instead.')
    if pixel_size is not None:
        check_scalar(pixel_size, "pixel_size", Real, min_val=0, include_boundaries="neither")
        if not np.isfinite(pixel_size):
            raise ValueError(f"pixel_size must be finite. Got {pixel_size} instead.")


def show_image(ax, image, *, percentiles, pixel_size=None, unit="um"):
    """Draw an image that `check_image` returned, with a scale bar if the pixel size is known."""
    low, high = contrast_limits(image, percentiles)
    if image.ndim == 3:  # one range for the three channels, so that hues stay what they are
        shown = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
        drawn = ax.imshow(np.nan_to_num(shown))
    else:
        drawn = ax.imshow(image, cmap="gray", vmin=low, vmax=high)
    ax.set(xticks=[], yticks=[])
    if pixel_size is not None:
        add_scale_bar(ax, image.shape[:2], pixel_size * NM_PER_UNIT[unit])
    return drawn


def bar_length(width):
    """Return the largest of 1, 2, 5, 10, 20, ... that is at most a quarter of `width`."""
    longest = BAR_SHARE * width
    power = 10.0 ** floor(log10(longest))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= longest)


def add_scale_bar(ax, image_size, nm_per_px):
    """Draw a bar of a round length in the lower right corner."""
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    height, width = image_size
    length = bar_length(width * nm_per_px)
    scale, unit = next((s, u) for s, u in ((1e6, "mm"), (1e3, "µm"), (0, "nm")) if length >= s)
    bar = AnchoredSizeBar(
        ax.transData,
        length / nm_per_px,
        f"{length / (scale or 1):g} {unit}",
        "lower right",
        pad=0.3,
        sep=2,
        color="white",
        size_vertical=height / 100,
        fontproperties=FontProperties(size="small"),
    )
    bar.patch.set(facecolor="black", alpha=0.6, edgecolor="none")
    ax.add_artist(bar)
