"""Objects of a mask: numbered components, those that touch split by a watershed."""

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from ._shapes import NEIGHBOURS


def number_objects(mask, feature_map, *, split, min_distance):
    """Return a mask with its objects numbered from 1, in the order of their first pixels.

    Parameters
    ----------
    mask : ndarray of bool of shape (height, width)
    feature_map : ndarray of shape (height, width)
    split, min_distance
        As in :class:`ThresholdSegmenter`.

    Returns
    -------
    instances : ndarray of int of shape (height, width)
        Above 0 exactly inside the mask; the pixels of each object are connected.
    """
    objects = mask
    if mask.any() and (callable(split) or min_distance is not None):
        if callable(split):
            height = feature_map
            markers = _check_markers(split(mask.copy(), feature_map.copy()), mask)
        else:
            height, tops = _SPLITS[split](mask, feature_map)
            markers = _markers_of_peaks(height, tops, mask, min_distance)
        # Not `watershed_line=True`, which takes minutes and gigabytes for some masks.
        objects = watershed(-height, markers, connectivity=2, mask=mask)
        objects[mask & (objects == 0)] = objects.max() + 1  # components without a marker
    return label(objects, connectivity=2)


def _by_shape(mask, feature_map):
    distance = ndimage.distance_transform_edt(mask)
    # A peak floods the ridge around it, down to 1 px lower, so that a rod remains one object.
    return distance, distance > reconstruction(distance - 1, distance)


def _by_peaks(mask, feature_map):
    height = np.where(mask, feature_map, feature_map.min())  # no peak lies outside
    return height, local_maxima(height, connectivity=2)


_SPLITS = {  # each maps a mask and a map to what is flooded from above, and where peaks may lie
    "shape": _by_shape,
    "peaks": _by_peaks,
}
SPLITS = tuple(_SPLITS)


def _markers_of_peaks(height, tops, mask, min_distance):
    components, _ = ndimage.label(mask, structure=NEIGHBOURS)
    peaks = _peaks(height, components, min_distance)
    tops, _ = ndimage.label(tops & mask, structure=NEIGHBOURS)
    return np.where(np.isin(tops, tops[tuple(peaks.T)]), tops, 0)


def _peaks(height, components, min_distance):
    """Return the peaks of each component, of which the highest count within `min_distance`.

    They are those of `peak_local_max` with `min_distance`, whose time grows with the square of
    their number.
    """
    footprint = np.ones((2 * min_distance + 1,) * 2, bool)
    peaks = peak_local_max(height, footprint=footprint, labels=components, exclude_border=False)
    if min_distance == 1:
        return peaks
    reach = min_distance - 1
    is_taken = np.zeros(components.shape, bool)
    kept = []
    for row, column in peaks.tolist():  # in each component the highest first
        if not is_taken[row, column]:
            kept.append((row, column))
            rows, columns = (slice(max(i - reach, 0), i + reach + 1) for i in (row, column))
            near = components[rows, columns] == components[row, column]
            is_taken[rows, columns] |= near
    return np.array(kept, int).reshape(-1, 2)


def _check_markers(markers, mask):
    markers = np.asarray(markers)
    if markers.dtype.kind not in "iu" or markers.shape != mask.shape:
        hint = " Number them: `skimage.measure.label(markers)`." if markers.dtype == bool else ""
        raise ValueError(
            "split must return markers as for skimage.segmentation.watershed: integers of the "
            f"shape of the mask, {mask.shape}, 0 where there is none. Got {markers.dtype} of shape "
            f"{markers.shape} instead.{hint}"
        )
    if markers.min() < 0:
        raise ValueError(
            f"split must return markers that are not negative. Got {markers.min()} instead."
        )
    return markers
