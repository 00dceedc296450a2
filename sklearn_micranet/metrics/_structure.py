"""How much of a structure lies inside a mask, judged by the image instead of an expert."""

from numbers import Real

import numpy as np
from sklearn.utils import check_array

from sklearn_micranet._stack._numbers import check_scalar

from ._segmentation import check_masks


def spectrum_change(image, mask, *, pixel_size, periods=(170, 200)):
    r"""Relative change of the spectrum at given spatial periods, from the image to its mask.

    With :math:`|\hat I(f)|^2` the power spectrum of the image without its mean, and
    :math:`\hat I_M` that of the image inside the mask, 0 outside:

    .. math::

        \frac{\sum_{f} |\hat I_M(f)|^2 - \sum_{f} |\hat I(f)|^2}{\sum_{f} |\hat I(f)|^2},
        \qquad \text{over all } f \text{ with } p_1 \le 1 / |f| < p_2.

    A mask that holds every periodic structure changes nothing (0); without any the power is lost
    (-1). The default periods are those of the rings of F-actin in axons and dendrites, which the
    score was made for [1]_.

    Parameters
    ----------
    image : array-like of shape (height, width)
        Image, any real dtype.
    mask : array-like of shape (height, width), bool or 0/1 integers
        Mask of the structure.
    pixel_size : float
        Side of a pixel, in the unit of the periods (nm for the default).
    periods : tuple (float, float), default=(170, 200)
        Spatial periods :math:`p_1`, inclusive, and :math:`p_2`, exclusive.

    Returns
    -------
    change : float
        From -1. Values above 0 are possible, if the outline of the mask adds power. NaN if the
        image has no power at these periods.

    Raises
    ------
    TypeError
        If the mask is neither bool nor integers, or `pixel_size` or `periods` are not numbers.
    ValueError
        If the shapes differ, the image is not finite, `pixel_size` is not positive, the periods
        are not ascending, or no frequency of the image has such a period.

    See Also
    --------
    bright_share : For structures without a period.

    Notes
    -----
    The power of a structure grows with its area, so that -0.25 means that the mask misses about a
    quarter of it. (The sum of moduli does not: it rises if a mask cuts a part out, because the
    peaks widen.) The mean of the image is taken off so that the outline of the mask adds little.

    References
    ----------
    .. [1] A. Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       https://doi.org/10.1038/s42256-022-00472-w

    Examples
    --------
    A grating with a period of 200 nm, pixels of 20 nm, and a mask of three quarters of it:

    >>> import numpy as np
    >>> from sklearn_micranet.metrics import spectrum_change
    >>> column = np.arange(200)
    >>> image = np.tile(np.sin(2 * np.pi * column / 10), (200, 1))
    >>> mask = np.tile(column < 150, (200, 1))
    >>> change = spectrum_change(image, mask, pixel_size=20, periods=(150, 250))
    >>> round(change, 2)
    -0.27
    """
    image, mask = _check_image_and_mask(image, mask)
    check_scalar(pixel_size, "pixel_size", Real, min_val=0, include_boundaries="neither")
    if len(periods) != 2 or not all(isinstance(period, Real) for period in periods):
        raise TypeError(f"periods must be two numbers. Got {periods} instead.")
    if not 0 < periods[0] < periods[1]:
        raise ValueError(f"periods must be positive and ascending. Got {periods} instead.")
    frequencies = np.hypot(
        *np.meshgrid(*(np.fft.fftfreq(n, pixel_size) for n in image.shape), indexing="ij")
    )
    low, high = 1 / periods[1], 1 / periods[0]
    frequencies = frequencies / (1 + 1e-9)  # rounding must not decide whether a limit belongs
    in_band = (low < frequencies) & (frequencies <= high)
    if not in_band.any():
        raise ValueError(
            f"No frequency of an image of {image.shape} px of {pixel_size} has a period from "
            f"{periods[0]} to {periods[1]}: a period has two pixels or more, and the image must be "
            "several periods wide. Are pixel_size and periods in the same unit?"
        )
    image = image - image.mean()
    whole, masked = (np.abs(np.fft.fft2(part)) ** 2 for part in (image, image * mask))
    before, after = (float(power[in_band].sum()) for power in (whole, masked))
    # What is left by rounding errors is no structure.
    return (after - before) / before if before > 1e-20 * whole.sum() else np.nan


def bright_threshold(images, masks_true, *, pixel_percentile=25.0, image_percentile=90.0):
    """Learn from what lies outside the experts' masks how bright a structure must be.

    In each image, take the percentile `pixel_percentile` of the pixels outside its mask; of these
    values, the percentile `image_percentile` [1]_.

    Parameters
    ----------
    images : sequence of n_images array-like of shape (height, width)
        Images, which may differ in size.
    masks_true : sequence of n_images array-like of shape (height, width), bool or 0/1 integers
        True masks of the structure. An image that its mask covers has nothing to learn from.
    pixel_percentile : float, default=25.0
        Percentile over the pixels of an image, in [0, 100].
    image_percentile : float, default=90.0
        Percentile over the images, in [0, 100].

    Returns
    -------
    threshold : float
        In the unit of the images.

    Raises
    ------
    TypeError
        If masks are neither bool nor integers, or a percentile is not a number.
    ValueError
        If the numbers of images and masks or their shapes differ, images are not finite, no pixel
        lies outside the masks, or a percentile is out of range.

    See Also
    --------
    bright_share : The score with this threshold.

    References
    ----------
    .. [1] A. Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       https://doi.org/10.1038/s42256-022-00472-w

    Examples
    --------
    >>> from sklearn_micranet.metrics import bright_threshold
    >>> images = [[[1, 2, 3, 4, 5, 90]], [[5, 5, 5, 5, 80, 80]]]
    >>> masks_true = [[[0, 0, 0, 0, 0, 1]], [[0, 0, 0, 0, 1, 1]]]
    >>> bright_threshold(images, masks_true)
    4.7
    """
    for name, value in (
        ("pixel_percentile", pixel_percentile),
        ("image_percentile", image_percentile),
    ):
        check_scalar(value, name, Real, min_val=0, max_val=100)
    if len(masks_true) != len(images):
        raise ValueError(
            "masks_true must hold one mask for each of the images, "
            f"{len(images)}. Got {len(masks_true)} instead."
        )
    values = []
    for image, mask in zip(images, masks_true, strict=True):
        image, mask = _check_image_and_mask(image, mask)
        if not mask.all():
            values.append(np.percentile(image[~mask], pixel_percentile))
    if not values:
        raise ValueError(
            "At least one image must have pixels outside its mask to learn a threshold from. "
            "Got none instead."
        )
    return float(np.percentile(values, image_percentile))


def bright_share(image, mask, *, threshold):
    """Share of the pixels of a mask that are brighter than a threshold.

    Parameters
    ----------
    image : array-like of shape (height, width)
        Image, any real dtype.
    mask : array-like of shape (height, width), bool or 0/1 integers
        Mask of the structure.
    threshold : float
        In the unit of the image; that of `bright_threshold` for fibres of F-actin.

    Returns
    -------
    share : float
        In [0, 1]; NaN if the mask is empty.

    Raises
    ------
    TypeError
        If the mask is neither bool nor integers, or `threshold` is not a number.
    ValueError
        If the shapes differ, or the image is not finite.

    See Also
    --------
    spectrum_change : For structures with a period.

    Examples
    --------
    >>> from sklearn_micranet.metrics import bright_share
    >>> bright_share([[1, 5, 9, 9]], [[0, 1, 1, 1]], threshold=5)
    0.6666666666666666
    """
    image, mask = _check_image_and_mask(image, mask)
    check_scalar(threshold, "threshold", Real)
    return float(np.mean(image[mask] > threshold)) if mask.any() else np.nan


def _check_image_and_mask(image, mask):
    image = check_array(image, dtype=np.float64, input_name="image")
    mask = check_masks(mask, "mask").astype(bool, copy=False)
    if mask.shape != image.shape:
        raise ValueError(
            f"The mask must have the shape of its image, {image.shape}. Got {mask.shape} instead."
        )
    return image, mask
