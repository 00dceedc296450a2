"""Cut images of any size into crops with image-level labels, and remember their place."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from sklearn_micranet._labels._coverage import MIN_COVERAGE, is_covered, warn_of_small
from sklearn_micranet._labels._hints import refuse_paths
from sklearn_micranet._stack._lazy_stack import LazyStack, n_samples
from sklearn_micranet._stack._numbers import Interval

from ._cut_crops import CutCrops, OneImage, crops_overlap, shapes_and_dtype
from ._weak_labels import (
    check_objects,
    contain_boxes,
    contain_points,
    count_pixels,
    nearest_pixels,
)

_CROPS_PER_BATCH = 32


@validate_params(
    {
        "size": [Interval(Integral, 1, None, closed="left"), tuple],
        "step": [Interval(Integral, 1, None, closed="left"), tuple, None],
        "n_classes": [Interval(Integral, 1, None, closed="left"), None],
        "min_coverage": [Interval(Real, 0, 1, closed="both")],
        "min_overlap": [Interval(Real, 0, 1, closed="right")],
        "center_on_points": ["boolean"],
        "min_foreground": [Interval(Real, 0, 1, closed="both")],
    },
    prefer_skip_nested_validation=True,
)
def extract_crops(
    images,
    *,
    size,
    step=None,
    masks=None,
    boxes=None,
    points=None,
    n_classes=None,
    min_coverage=MIN_COVERAGE,
    min_overlap=0.05,
    center_on_points=False,
    foreground=None,
    min_foreground=0.1,
):
    """Cut images of any size into crops and label each from a coarse annotation.

    At most one of `masks`, `boxes` and `points` is given. Crops that reach beyond the border
    show the image mirrored there, as ``numpy.pad(mode="reflect")``; annotations are not mirrored.

    Parameters
    ----------
    images : array-like of shape (n_images, height, width) or \
            (n_images, height, width, n_channels), or sequence of such images
        Images may differ in size. Memory-mapped arrays, Zarr and HDF5 data sets, Dask arrays and
        lazy stacks are read crop by crop, when the crops are read; images from files
        (:func:`read_images`) are decoded once per batch of 32 crops that shows them.
    size : int or (int, int)
        Height and width of a crop, px.
    step : int or (int, int), default=None
        Distance between neighbouring crops, px, at most `size`. ``None`` is `size`: no overlap.
        The last crop of a row or column may reach beyond the border, so that no pixel is lost.
    masks : array-like of shape (n_images, height, width) or (n_images, n_classes, height, width), \
            or sequence of such masks, default=None
        Non-zero pixels, such as those of instance labels, belong to the class. A class is present
        in a crop when it covers at least `min_coverage` of its area.
    boxes : sequence of n_images array-like of shape (n_boxes, 4) or (n_boxes, 5), default=None
        First row, first column, end row and end column of each box, px, end excluded (as the
        ``bbox`` of :func:`skimage.measure.regionprops`); five columns start with the class index.
        A class is present in a crop that holds at least `min_overlap` of one of its boxes.
    points : sequence of n_images array-like of shape (n_points, 2) or (n_points, 3), default=None
        Row and column of each object's centre, px, (0, 0) being the centre of the top-left pixel;
        three columns start with the class index. A class is present where a centre is inside.
    n_classes : int, default=None
        Number of classes of boxes or points with a class index. ``None`` is the largest index + 1.
    min_coverage : float, default=0.01
        Share of the crop that a mask must cover, in [0, 1]; it must have one pixel there at least.
    min_overlap : float, default=0.05
        Share of a box that the crop must hold, in (0, 1].
    center_on_points : bool, default=False
        Cut a crop around every point, and of the regular crops keep those that share no pixel
        with any of these.
    foreground : array-like of shape (n_images, height, width), or sequence of masks, default=None
        Where there is something to see, such as the dendrites. ``None`` keeps every crop.
    min_foreground : float, default=0.1
        Crops with less than this share of `foreground` are dropped, in [0, 1].

    Returns
    -------
    crops : :class:`sklearn.utils.Bunch`
        images : LazyStack of shape (n_crops, size, size) or (n_crops, size, size, n_channels)
            The crops in the images' dtype, cut when read.
        labels : ndarray of shape (n_crops,) or (n_crops, n_classes), int64, or None
            1 where the class is present, one column per class if there are several; ``None``
            without annotation.
        positions : ndarray of shape (n_crops, 3), int64
            Image index, row and column of each crop's first pixel, px; negative above or left of
            the image.
        groups : ndarray of shape (n_crops,), int64
            Image index. Crops of one image are alike, and may show the same pixels: pass the
            groups wherever crops are split, as in ``fit(crops.images, crops.labels,
            groups=crops.groups)`` or :class:`sklearn.model_selection.GroupKFold`.
        overlap : bool
            Whether two crops share a pixel, which takes ``step < size`` or `center_on_points`.
            (Crops that reach beyond the border repeat pixels of their neighbours in any case.)
        image_shapes : ndarray of shape (n_images, 2), int64
            Height and width of the images, px, for :func:`stitch_crops`.

    Raises
    ------
    ValueError
        If images and annotations do not fit each other, or no crop is left.
    TypeError
        If paths are passed for arrays.

    Warns
    -----
    UserWarning
        If most crops with a pixel of a mask count as without, under the default `min_coverage`.

    See Also
    --------
    stitch_crops : Put crop-sized results back in place.

    Notes
    -----
    Memory grows with the number of crops (40 bytes each, plus their labels), not with their
    pixels: reading a batch of crops holds that batch. A crop's mask is read once, for its label.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet.images import extract_crops
    >>> image = np.arange(36).reshape(6, 6)
    >>> crops = extract_crops([image], size=4, step=2, points=[[(0, 5)]])
    >>> crops.positions
    array([[0, 0, 0],
           [0, 0, 2],
           [0, 2, 0],
           [0, 2, 2]])
    >>> crops.labels
    array([0, 1, 0, 0])
    >>> crops.images[1]
    array([[ 2,  3,  4,  5],
           [ 8,  9, 10, 11],
           [14, 15, 16, 17],
           [20, 21, 22, 23]])
    """
    size, step = _check_window(size, step)
    _check_arrays(images=images, masks=masks, foreground=foreground, boxes=boxes, points=points)
    shapes, dtype = shapes_and_dtype(images)
    image_shapes = [shape[:2] for shape in shapes]
    given = _check_annotations(
        len(shapes), center_on_points, foreground, masks=masks, boxes=boxes, points=points
    )
    if boxes is not None:
        boxes, n_classes = check_objects("boxes", boxes, 4, n_classes)
    elif points is not None:
        points, n_classes = check_objects("points", points, 2, n_classes)
        pixels = [nearest_pixels(*pair) for pair in zip(points, image_shapes, strict=True)]

    positions, labels, has_pixels = [], [], []
    for index, image_shape in enumerate(image_shapes):
        corners = _grid(image_shape, size, step)
        if center_on_points:
            corners = _center(corners, pixels[index], size)
        if foreground is not None:
            mask = OneImage(foreground, index)
            n_pixels = count_pixels(mask, corners, size, image_shape, "foreground")
            corners = corners[n_pixels.max(axis=1) / np.prod(size) >= min_foreground]
        positions.append(np.insert(corners, 0, index, axis=1))
        if masks is not None:
            mask = OneImage(masks, index)
            n_pixels = count_pixels(mask, corners, size, image_shape, "masks")
            labels.append(is_covered(n_pixels, np.prod(size), min_coverage))
            has_pixels.append(n_pixels > 0)
        elif boxes is not None:
            labels.append(contain_boxes(corners, size, boxes[index], n_classes, min_overlap))
        elif points is not None:
            found = contain_points(corners, size, points[index], pixels[index], n_classes)
            labels.append(found)

    positions = np.concatenate(positions)
    may_overlap = center_on_points or step[0] < size[0] or step[1] < size[1]
    if not len(positions):
        raise ValueError(
            f"No crop has a foreground share of at least min_foreground={min_foreground}. Lower "
            "it, or check that foreground is non-zero where there is something to see."
        )
    labels = _join_labels(labels) if given else None
    if has_pixels and min_coverage == MIN_COVERAGE:
        warn_of_small(labels.reshape(len(positions), -1), np.concatenate(has_pixels), "crop")
    return Bunch(
        images=LazyStack(
            positions,
            CutCrops(images, size, image_shapes, dtype),
            item_shape=(*size, *shapes[0][2:]),
            dtype=dtype,
            batch_size=_CROPS_PER_BATCH,
        ),
        labels=labels,
        positions=positions,
        groups=positions[:, 0].copy(),
        overlap=may_overlap and crops_overlap(positions, size),
        image_shapes=np.array(image_shapes),
    )


def _check_arrays(**arguments):
    for name, value in arguments.items():
        if name in ("boxes", "points") and value is not None:
            refuse_paths(name, value, "one table of numbers per image")
        elif value is not None:
            refuse_paths(name, value)


def _check_window(size, step):
    pairs = []
    for name, value in {"size": size, "step": size if step is None else step}.items():
        pair = (value, value) if isinstance(value, Integral) else value
        if len(pair) != 2 or any(not isinstance(v, Integral) or v < 1 for v in pair):
            raise ValueError(
                f"{name} must be a positive int or a (height, width) pair of them, px. "
                f"Got {value!r} instead."
            )
        pairs.append(tuple(int(v) for v in pair))
    size, step = pairs
    if step[0] > size[0] or step[1] > size[1]:
        raise ValueError(
            "step must be at most size, or the pixels between the crops are lost. "
            f"Got step={step} and size={size} instead."
        )
    return size, step


def _check_annotations(n_images, center_on_points, foreground, **annotations):
    given = {name: value for name, value in annotations.items() if value is not None}
    if len(given) > 1:
        raise ValueError(
            f"At most one of masks, boxes and points labels the crops. Got {sorted(given)} instead."
        )
    if center_on_points and "points" not in given:
        raise ValueError("center_on_points=True requires points. Got points=None instead.")
    sized = given if foreground is None else {**given, "foreground": foreground}
    for name, value in sized.items():
        if n_samples(value) != n_images:
            raise ValueError(
                f"{name} must hold one entry per image, {n_images} in all. "
                f"Got {n_samples(value)} instead."
            )
    return given


def _grid(image_shape, size, step):
    """Return the first row and column of crops that leave no pixel out."""
    rows, columns = (
        np.arange(0, max(length - extent, 0) + stride, stride)
        for length, extent, stride in zip(image_shape, size, step, strict=True)
    )
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _center(grid, pixels, size):
    """Return crops around `pixels`, then those of the grid that touch none of them."""
    centered = pixels - np.floor_divide(size, 2)
    touching = np.all(np.abs(grid[:, np.newaxis] - centered) < size, axis=-1).any(axis=1)
    return np.concatenate([centered, grid[~touching]])


def _join_labels(labels):
    if len({label.shape[1] for label in labels}) > 1:
        raise ValueError("The masks of all images must have the same number of classes.")
    labels = np.concatenate(labels).astype(np.int64)
    return labels[:, 0] if labels.shape[1] == 1 else labels
