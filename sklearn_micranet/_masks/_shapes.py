"""Shapes of masks: components, holes, and touching objects."""

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.morphology import reconstruction, remove_small_holes, remove_small_objects
from skimage.segmentation import watershed

NEIGHBOURS = np.ones((3, 3), dtype=bool)  # connected are pixels that share an edge or a corner


def cleaned(mask, feature_map, *, keep, max_hole_size, min_size, min_distance):
    """Reduce a mask to one component, fill, remove small components, and split.

    Parameters
    ----------
    mask : ndarray of bool of shape (height, width)
    feature_map : ndarray of shape (height, width)
    keep, max_hole_size, min_size, min_distance
        As in :class:`ThresholdSegmenter`.
    """
    if keep == "peak" and mask.any():
        labels, _ = ndimage.label(mask, structure=NEIGHBOURS)
        mask = labels == labels.flat[np.where(mask, feature_map, -np.inf).argmax()]
    if max_hole_size:
        # `remove_small_holes` alone also fills small background at the border of the image.
        filled = remove_small_holes(mask, max_size=max_hole_size)
        mask = filled & ndimage.binary_fill_holes(mask)
    if min_size:
        mask = remove_small_objects(mask, max_size=min_size - 1, connectivity=2)
    if min_distance is not None:
        mask = _split(mask, min_distance)
    return mask


def _split(mask, min_distance):
    """Part touching objects by a watershed of the distance to the background."""
    components, _ = ndimage.label(mask, structure=NEIGHBOURS)
    distance = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(
        distance, min_distance=min_distance, labels=components, exclude_border=False
    )
    # A peak floods the ridge around it, down to 1 px lower, so that a rod remains one object.
    summits, _ = ndimage.label(distance > reconstruction(distance - 1, distance), NEIGHBOURS)
    markers = np.where(np.isin(summits, summits[tuple(peaks.T)]), summits, 0)
    # watershed_line=True takes minutes and gigabytes for some masks: the line is drawn here.
    objects = watershed(-distance, markers, connectivity=2, mask=mask)
    return (objects > 0) & (objects == ndimage.maximum_filter(objects, footprint=NEIGHBOURS))
