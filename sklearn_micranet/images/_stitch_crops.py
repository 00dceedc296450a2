"""Put crops, or what was predicted on them, back in place."""

import numpy as np
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_micranet._labels._hints import refuse_paths
from sklearn_micranet._stack._lazy_stack import n_samples, take

_CROPS_PER_BATCH = 32


@validate_params(
    {"method": [StrOptions({"mean", "max"})], "channels_last": ["boolean"]},
    prefer_skip_nested_validation=True,
)
def stitch_crops(crops, positions, image_shapes, *, method="mean", channels_last=False):
    """Put crops, or what was predicted on them, back in place.

    Parameters
    ----------
    crops : array-like of shape (n_crops, ..., size, size) or \
            (n_crops, size, size, n_channels)
        Masks, feature maps or images of the crops' size, in the order of `positions`. Lazy
        stacks, and HDF5, Zarr and Dask arrays, are read batch by batch.
    positions : array-like of shape (n_crops, 3)
        Image index, row and column of each crop's first pixel, px, from :func:`extract_crops`.
    image_shapes : array-like of shape (n_images, 2)
        Height and width of the images, px, from :func:`extract_crops`.
    method : {"mean", "max"}, default="mean"
        How crops that overlap are combined: averaged (in floating point; the share of votes for
        masks) or the largest value (in the crops' dtype).
    channels_last : bool, default=False
        Whether the last axis of `crops` is channels, as in images. Otherwise rows and columns are
        the last two axes, as in masks and feature maps.

    Returns
    -------
    stitched : list of n_images ndarray of shape (..., height, width) or \
            (height, width, n_channels)
        0 where no crop lies.

    See Also
    --------
    extract_crops : Cut images into crops.

    Notes
    -----
    Memory grows with the stitched images alone (plus 4 bytes per pixel of one of them).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet.images import extract_crops, stitch_crops
    >>> images = [np.arange(35).reshape(5, 7), np.ones((3, 4), int)]
    >>> crops = extract_crops(images, size=4, step=3)
    >>> stitched = stitch_crops(crops.images, crops.positions, crops.image_shapes)
    >>> [np.array_equal(image, back) for image, back in zip(images, stitched)]
    [True, True]
    """
    refuse_paths("crops", crops)
    crops = crops if hasattr(crops, "ndim") else np.asarray(crops)
    positions = np.asarray(positions)
    if positions.shape != (n_samples(crops), 3):
        raise ValueError(
            f"positions must have shape (n_crops, 3) with n_crops={n_samples(crops)}. "
            f"Got {positions.shape} instead."
        )
    size = crops.shape[-3:-1] if channels_last else crops.shape[-2:]
    _check_positions(positions, image_shapes, size)
    return [
        _stitch_one(crops, positions, index, tuple(image_shape), method, channels_last)
        for index, image_shape in enumerate(image_shapes)
    ]


def _check_positions(positions, image_shapes, size):
    """Raise ValueError unless every crop shows a pixel of one of the images."""
    indices, corners = positions[:, 0], positions[:, 1:]
    wrong = (indices < 0) | (indices >= len(image_shapes))
    if not wrong.any():
        shapes = np.asarray(image_shapes)[indices]
        wrong = np.any((corners >= shapes) | (np.add(corners, size) <= 0), axis=1)
    if wrong.any():
        raise ValueError(
            f"positions must lie in one of the {len(image_shapes)} images of image_shapes. Got "
            f"crops of {tuple(size)} px outside, the first at {positions[wrong][0].tolist()}, "
            "instead. Pass positions and image_shapes of the same extract_crops."
        )


def _stitch_one(crops, positions, index, image_shape, method, channels_last):
    """Combine the crops of one image."""
    shape = crops.shape[1:]
    *leading, n_rows, n_columns = (shape[-1], *shape[:-1]) if channels_last else shape
    dtype = np.result_type(crops.dtype, np.float32) if method == "mean" else crops.dtype
    start_value = 0 if method == "mean" else _smallest(dtype)
    image = np.full((*leading, *image_shape), start_value, dtype)
    n_crops = np.zeros(image_shape, np.uint32)
    combine = np.add if method == "mean" else np.maximum

    members = np.flatnonzero(positions[:, 0] == index)
    for first in range(0, len(members), _CROPS_PER_BATCH):
        batch = members[first : first + _CROPS_PER_BATCH]
        for crop, corner in zip(take(crops, batch), positions[batch, 1:], strict=True):
            crop = np.moveaxis(crop, -1, 0) if channels_last else crop
            start = np.maximum(corner, 0)
            stop = np.minimum(np.add(corner, (n_rows, n_columns)), image_shape)
            inside = (..., *map(slice, start, stop))
            visible = crop[(..., *map(slice, start - corner, stop - corner))]
            combine(image[inside], visible, out=image[inside])
            n_crops[inside] += 1

    if method == "mean":
        np.divide(image, n_crops, out=image, where=n_crops > 0)
    else:
        image[..., n_crops == 0] = 0
    return np.moveaxis(image, 0, -1) if channels_last else image


def _smallest(dtype):
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    return False if dtype.kind == "b" else -np.inf
