"""Shapes of masks: components and holes."""

import numpy as np
from scipy import ndimage
from skimage.morphology import remove_small_holes, remove_small_objects

NEIGHBOURS = np.ones((3, 3), dtype=bool)  # connected are pixels that share an edge or a corner


def cleaned(mask, feature_map, *, keep, max_hole_size, min_size):
    """Reduce a mask to one component, fill, and remove small components.

    Parameters
    ----------
    mask : ndarray of bool of shape (height, width)
    feature_map : ndarray of shape (height, width)
    keep, max_hole_size, min_size
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
    return mask
