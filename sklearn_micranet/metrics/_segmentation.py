"""Agreement of predicted masks with true ones."""

from functools import partial
from numbers import Integral, Real

import numpy as np
from scipy.ndimage import binary_erosion

from sklearn_micranet._stack._numbers import check_scalar
from sklearn_micranet._stack._sources import is_ragged


def iou_score(masks_true, masks_pred, *, zero_division=1.0):
    r"""Intersection over union (Jaccard index) of each pair of masks.

    .. math:: \mathrm{IoU}(A, B) = \frac{|A \cap B|}{|A \cup B|}

    Parameters
    ----------
    masks_true : array-like of shape (..., height, width), bool or 0/1 integers
        True masks, :math:`A`.
    masks_pred : array-like of shape (..., height, width), bool or 0/1 integers
        Predicted masks, :math:`B`, of the same shape.
    zero_division : float, default=1.0
        Score where both masks are empty. With ``np.nan``, `numpy.nanmean` leaves such pairs out.

    Returns
    -------
    score : float or ndarray of shape (...), float64
        Scores in [0, 1]; a float for a single pair of images.

    Raises
    ------
    TypeError
        If masks are neither bool nor integers, or `zero_division` is not a number.
    ValueError
        If integers other than 0 and 1 occur, or the shapes differ.

    See Also
    --------
    dice_score : :math:`2\,\mathrm{IoU} / (1 + \mathrm{IoU})`, the F1 score of the pixels.

    Notes
    -----
    Besides the masks, memory holds a few copies of one image in bool.

    Examples
    --------
    >>> from sklearn_micranet.metrics import iou_score
    >>> iou_score([[True, True, False, False]], [[True, False, False, False]])
    0.5
    """
    return _score_images(_intersection_over_union, masks_true, masks_pred, zero_division)


def dice_score(masks_true, masks_pred, *, zero_division=1.0):
    r"""Dice coefficient, the F1 score of the pixels, of each pair of masks.

    .. math:: \mathrm{Dice}(A, B) = \frac{2 |A \cap B|}{|A| + |B|}

    Parameters
    ----------
    masks_true : array-like of shape (..., height, width), bool or 0/1 integers
        True masks, :math:`A`.
    masks_pred : array-like of shape (..., height, width), bool or 0/1 integers
        Predicted masks, :math:`B`, of the same shape.
    zero_division : float, default=1.0
        Score where both masks are empty. With ``np.nan``, `numpy.nanmean` leaves such pairs out.

    Returns
    -------
    score : float or ndarray of shape (...), float64
        Scores in [0, 1]; a float for a single pair of images.

    Raises
    ------
    TypeError
        If masks are neither bool nor integers, or `zero_division` is not a number.
    ValueError
        If integers other than 0 and 1 occur, or the shapes differ.

    See Also
    --------
    symmetric_boundary_dice_score : The same near the outlines only.

    Notes
    -----
    Besides the masks, memory holds a few copies of one image in bool.

    Examples
    --------
    >>> from sklearn_micranet.metrics import dice_score
    >>> dice_score([[True, True, True, False]], [[True, False, False, False]])
    0.5
    """
    return _score_images(_dice, masks_true, masks_pred, zero_division)


def symmetric_boundary_dice_score(masks_true, masks_pred, *, radius=2, zero_division=1.0):
    r"""Dice coefficient around the outlines of each pair of masks.

    The Dice coefficient is taken inside a disc around every boundary pixel of either mask, then
    averaged [1]_:

    .. math::

        \mathrm{SBD}(A, B) =
        \frac{\sum_{x \in \partial A} D(x) + \sum_{x \in \partial B} D(x)}
             {|\partial A| + |\partial B|},
        \qquad
        D(x) = \frac{2 |A \cap B \cap N_x|}{|A \cap N_x| + |B \cap N_x|}

    with :math:`N_x` the pixels no farther than `radius` from :math:`x`. The boundary
    :math:`\partial A` is the pixels of :math:`A` that share an edge with a pixel outside
    :math:`A`; whatever lies beyond the image is outside. A pixel on both boundaries counts twice.

    Parameters
    ----------
    masks_true : array-like of shape (..., height, width), bool or 0/1 integers
        True masks, :math:`A`.
    masks_pred : array-like of shape (..., height, width), bool or 0/1 integers
        Predicted masks, :math:`B`, of the same shape.
    radius : int, default=2
        Radius of the disc in px, at least 1. Only pixels up to this far from an outline count; a
        disc larger than the image gives `dice_score`. The default is one resolution element of
        an image sampled at Nyquist's rate: no outline is known better than that.
    zero_division : float, default=1.0
        Score where both masks are empty. With ``np.nan``, `numpy.nanmean` leaves such pairs out.
        Where only one mask is empty, the score is 0.

    Returns
    -------
    score : float or ndarray of shape (...), float64
        Scores in [0, 1]; a float for a single pair of images.

    Raises
    ------
    TypeError
        If masks are neither bool nor integers, `radius` is not an integer, or `zero_division` is
        not a number.
    ValueError
        If integers other than 0 and 1 occur, the shapes differ, or `radius` is below 1.

    See Also
    --------
    dice_score : The same over the whole masks.

    References
    ----------
    .. [1] V. Yeghiazaryan and I. Voiculescu, "Family of boundary overlap metrics for the
       evaluation of medical image segmentation", Journal of Medical Imaging 5(1), 015006, 2018.
       https://doi.org/10.1117/1.JMI.5.1.015006

    Examples
    --------
    A square and the same square one pixel to the right:

    >>> import numpy as np
    >>> from sklearn_micranet.metrics import dice_score, symmetric_boundary_dice_score
    >>> mask_true = np.zeros((32, 32), dtype=bool)
    >>> mask_true[6:26, 5:25] = True
    >>> mask_pred = np.roll(mask_true, 1, axis=1)
    >>> round(dice_score(mask_true, mask_pred), 2)
    0.95
    >>> round(symmetric_boundary_dice_score(mask_true, mask_pred), 2)
    0.86
    """
    radius = int(check_scalar(radius, "radius", Integral, min_val=1))
    offsets = np.arange(-radius, radius + 1)
    disc = (offsets[:, np.newaxis] ** 2 + offsets**2 <= radius**2).astype(np.int32)
    boundary_dice = partial(_boundary_dice, disc=disc)
    return _score_images(boundary_dice, masks_true, masks_pred, zero_division)


def _intersection_over_union(mask_true, mask_pred):
    return np.count_nonzero(mask_true & mask_pred), np.count_nonzero(mask_true | mask_pred)


def _dice(mask_true, mask_pred):
    n_pixels = np.count_nonzero(mask_true) + np.count_nonzero(mask_pred)
    return 2 * np.count_nonzero(mask_true & mask_pred), n_pixels


def _boundary_dice(mask_true, mask_pred, *, disc):
    from scipy.signal import convolve  # here, because it is slow to import

    boundaries = [mask & ~binary_erosion(mask) for mask in (mask_true, mask_pred)]
    n_boundary_pixels = sum(np.count_nonzero(boundary) for boundary in boundaries)
    if n_boundary_pixels == 0:
        return 0, 0
    # Integers, because only for them does `convolve` give exact counts also by FFT.
    n_common = convolve((mask_true & mask_pred).astype(np.int32), disc, mode="same")
    n_pixels = convolve(mask_true.astype(np.int32) + mask_pred, disc, mode="same")
    dice_sum = sum(np.sum(2 * n_common[on] / n_pixels[on]) for on in boundaries)
    return dice_sum, n_boundary_pixels


def _score_images(fraction, masks_true, masks_pred, zero_division):
    """Score image by image, so that temporary arrays have the size of one image.

    ``fraction(mask_true, mask_pred)`` returns the numerator and the denominator of a score.
    """
    check_scalar(zero_division, "zero_division", Real)
    masks_true = check_masks(masks_true, "masks_true")
    masks_pred = check_masks(masks_pred, "masks_pred")
    if masks_pred.shape != masks_true.shape:
        raise ValueError(
            f"masks_pred must have the shape of masks_true, {masks_true.shape}. "
            f"Got {masks_pred.shape} instead."
        )
    scores = np.empty(masks_true.shape[:-2])
    for index in np.ndindex(scores.shape):
        numerator, denominator = fraction(
            masks_true[index].astype(bool, copy=False), masks_pred[index].astype(bool, copy=False)
        )
        scores[index] = numerator / denominator if denominator else zero_division
    return scores if scores.ndim else float(scores)


def check_masks(masks, name):
    if is_ragged(masks):
        raise ValueError(
            f"{name} must all have one shape. Got masks of different shapes instead: score them "
            "one by one."
        )
    masks = np.asarray(masks)
    if masks.dtype.kind not in "biu":
        raise TypeError(
            f"{name} must be bool, or integers 0 and 1. Got {masks.dtype} instead. "
            "Threshold real-valued maps first, for example `feature_map > 0.5`."
        )
    if masks.ndim < 2:
        raise ValueError(
            f"{name} must have shape (..., height, width). Got shape {masks.shape} instead."
        )
    if masks.dtype.kind != "b" and masks.size and (masks.min() < 0 or masks.max() > 1):
        raise ValueError(
            f"{name} must be bool, or integers 0 and 1. Got integers from {masks.min()} to "
            f"{masks.max()} instead. For labelled regions, pass `{name} > 0`."
        )
    return masks
