"""Masks, instances and segments of the feature maps of one image."""

import numpy as np
from scipy import ndimage
from sklearn.utils.validation import assert_all_finite

from sklearn_micranet._stack._large_arrays import by_rows, extremes

from ._instances import number_objects
from ._learned_threshold import best_threshold, count_levels
from ._segment_stack import PIXEL
from ._shapes import cleaned
from ._thresholds import above_threshold


def masks_of(feature_maps, **parameters):
    """Return the masks of the classes of one image.

    Parameters
    ----------
    feature_maps : ndarray of shape (n_classes, height, width)
    **parameters
        Those of `_each_mask`.

    Returns
    -------
    masks : ndarray of bool of shape (n_classes, height, width)
    """
    masks = np.zeros(feature_maps.shape, dtype=bool)
    for k, mask, _ in _each_mask(feature_maps, **parameters):
        masks[k] = mask
    return masks


def instances_of(feature_maps, *, objects, **parameters):
    """Return int32 instances: as `masks_of`, with `objects`, the parameters of `number_objects`."""
    instances = np.zeros(feature_maps.shape, dtype=np.int32)
    for k, mask, feature_map in _each_mask(feature_maps, **parameters):
        instances[k] = number_objects(mask, feature_map, **objects)
    return instances


def pixels_of(feature_maps, **parameters):
    """Return the feature maps inside their masks, 0 outside, with the instances, as `PIXEL`."""
    pixels = np.zeros(feature_maps.shape, dtype=PIXEL)
    pixels["instance"] = instances_of(feature_maps, **parameters)
    masks = pixels["instance"] > 0
    inside = feature_maps[masks].astype(np.float32)
    # A value of 0 would look like background to whoever reads the segment.
    inside[inside == 0] = np.finfo(np.float32).tiny
    pixels["value"][masks] = inside
    return pixels


def _each_mask(feature_maps, *, prepare, cut, clean):
    """Yield (class index, mask, map as thresholded) of the maps that vary.

    Parameters
    ----------
    feature_maps : ndarray of shape (n_classes, height, width)
    prepare : dict
        Parameters of `prepared`.
    cut : Cut
    clean : dict
        Parameters of `cleaned`.
    """
    check_n_classes(len(feature_maps), cut)
    for k, feature_map, considered in prepared(feature_maps, **prepare):
        mask = above_threshold(feature_map, considered, k, cut)
        yield k, cleaned(mask, feature_map, **clean), feature_map


def check_n_classes(n_classes, cut):
    """Raise ValueError unless thresholds that were learned are those of so many classes."""
    if cut.thresholds is not None and n_classes != len(cut.thresholds):
        raise ValueError(
            f"X must have {len(cut.thresholds)} class(es), as the feature maps that "
            f"ThresholdSegmenter was fitted on. Got {n_classes} instead."
        )


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
    # Integers would wrap when they are subtracted, and filters know no other floats.
    dtype = np.float32 if np.can_cast(feature_maps.dtype, np.float32) else np.float64
    feature_maps = feature_maps.astype(dtype, copy=False)
    for k, feature_map in enumerate(feature_maps):
        low, high = extremes(feature_map)
        if low == high:
            continue
        considered = feature_map != 0 if ignore_zeros else np.ones(feature_map.shape, bool)
        if subtract_competitors and len(feature_maps) > 1:
            feature_map = _less_competitors(feature_maps, k)
        for width in sigma:
            feature_map = ndimage.gaussian_filter(feature_map, width)
        yield k, feature_map, considered


def _less_competitors(feature_maps, k):
    """Return the map of class k less the largest of the other classes."""
    return by_rows(
        lambda rows: (
            feature_maps[k, rows] - np.delete(feature_maps[:, rows], k, axis=0).max(axis=0)
        ),
        feature_maps.shape,
        feature_maps,
    )


def learn_thresholds(stack, masks, prepare):
    """Return the best threshold of each class, reading each sample once and keeping counts only.

    Parameters
    ----------
    stack : LazyStack of n_samples ndarray of shape (n_classes, height, width)
    masks : sequence of ndarray of bool of shape (n_classes, height, width)
    prepare : dict
        Parameters of `prepared`.
    """
    pairs = [[] for _ in masks[0]]
    for sample, sample_masks in zip(stack, masks, strict=True):
        assert_all_finite(sample, input_name="X")
        for k, feature_map, considered in prepared(sample, **prepare):
            inside = sample_masks[k]
            pairs[k].append(
                (inside.sum(), *count_levels(feature_map[considered], inside[considered]))
            )
    n_present = np.sum([sample_masks.any(axis=(1, 2)) for sample_masks in masks], axis=0)
    return np.array([best_threshold(*of_class) for of_class in zip(pairs, n_present, strict=True)])
