"""Masks and segments of the feature maps of one image."""

import numpy as np
from scipy import ndimage
from sklearn.utils.validation import assert_all_finite

from ._learned_threshold import best_threshold, count_levels
from ._shapes import cleaned
from ._thresholds import above_threshold


def masks_of(feature_maps, *, prepare, cut, clean):
    """Return the masks of the classes of one image.

    Parameters
    ----------
    feature_maps : ndarray of shape (n_classes, height, width)
    prepare : dict
        Parameters of `prepared`.
    cut : Cut
    clean : dict
        Parameters of `cleaned`.

    Returns
    -------
    masks : ndarray of bool of shape (n_classes, height, width)
    """
    if cut.thresholds is not None and len(feature_maps) != len(cut.thresholds):
        raise ValueError(
            f"X must have {len(cut.thresholds)} class(es), as the feature maps that "
            f"ThresholdSegmenter was fitted on. Got {len(feature_maps)} instead."
        )
    masks = np.zeros(feature_maps.shape, dtype=bool)
    for k, feature_map, considered in prepared(feature_maps, **prepare):
        masks[k] = cleaned(above_threshold(feature_map, considered, k, cut), feature_map, **clean)
    return masks


def segments_of(feature_maps, **parameters):
    """Return the feature maps inside their masks, and 0 outside: parameters of `masks_of`."""
    masks = masks_of(feature_maps, **parameters)
    segments = np.zeros(feature_maps.shape, dtype=np.float32)
    inside = feature_maps[masks].astype(np.float32)
    # A value of 0 would look like background to whoever reads the segment.
    inside[inside == 0] = np.finfo(np.float32).tiny
    segments[masks] = inside
    return segments


def prepared(feature_maps, *, ignore_zeros, subtract_competitors, sigma):
    """Yield (class index, map to threshold, pixels that count) of the maps that vary.

    Parameters
    ----------
    feature_maps : ndarray of shape (n_classes, height, width)
    ignore_zeros, subtract_competitors
        As in :class:`ThresholdSegmenter`.
    sigma : sequence of float
        Standard deviations, in px, of the Gaussians that follow each other.
    """
    # Integers would wrap when they are subtracted.
    feature_maps = feature_maps.astype(np.result_type(feature_maps, np.float32), copy=False)
    for k, feature_map in enumerate(feature_maps):
        if feature_map.min() == feature_map.max():
            continue
        considered = feature_map != 0 if ignore_zeros else np.ones(feature_map.shape, bool)
        if subtract_competitors and len(feature_maps) > 1:
            feature_map = feature_map - np.delete(feature_maps, k, axis=0).max(axis=0)
        for width in sigma:
            feature_map = ndimage.gaussian_filter(feature_map, width)
        yield k, feature_map, considered


def learn_thresholds(stack, masks, prepare):
    """Return the best threshold of each class, reading each sample once and keeping counts only.

    Parameters
    ----------
    stack : LazyStack of shape (n_samples, n_classes, height, width)
    masks : ndarray of bool of shape (n_samples, n_classes, height, width)
    prepare : dict
        Parameters of `prepared`.
    """
    pairs = [[] for _ in range(masks.shape[1])]
    for sample, sample_masks in zip(stack, masks, strict=True):
        assert_all_finite(sample, input_name="X")
        for k, feature_map, considered in prepared(sample, **prepare):
            inside = sample_masks[k]
            pairs[k].append(
                (inside.sum(), *count_levels(feature_map[considered], inside[considered]))
            )
    n_present = masks.any(axis=(2, 3)).sum(axis=0)
    return np.array([best_threshold(*of_class) for of_class in zip(pairs, n_present, strict=True)])
