"""Measure objects: one row of numbers per object."""

import numpy as np
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_micranet._stack._lazy_stack import n_samples

from ._instances import (
    PIXEL_SIZE,
    UNITS,
    as_table,
    check_class_names,
    check_length,
    check_sample_names,
    read_sample,
)

# Column names after each property of scikit-image, and the power of the pixel size in it.
_COLUMNS = {
    "label": ("object", 0),
    "centroid-0": ("row", 1),
    "centroid-1": ("column", 1),
    "bbox-0": ("first_row", 0),
    "bbox-1": ("first_column", 0),
    "bbox-2": ("end_row", 0),
    "bbox-3": ("end_column", 0),
    "area": ("area", 2),
    "_axis_lengths-0": ("axis_major_length", 1),
    "_axis_lengths-1": ("axis_minor_length", 1),
    "perimeter": ("perimeter", 1),
    "solidity": ("solidity", 0),
}
_ALWAYS = ("label", "centroid", "bbox")
_AXES = ("axis_major_length", "axis_minor_length")
_SHAPES = ("area", *_AXES, "perimeter", "solidity", "border_distance", "touches_border")
_INTENSITIES = ("intensity_mean", "intensity_min", "intensity_max")
_OF_SKIMAGE = ("area", "perimeter", "solidity", *_INTENSITIES)  # named alike there


@validate_params(
    {
        "properties": ["array-like", None],
        "pixel_size": PIXEL_SIZE,
        "unit": [StrOptions(UNITS)],
        "as_frame": ["boolean", StrOptions({"auto"})],
    },
    prefer_skip_nested_validation=True,
)
def measure_objects(
    instances,
    images=None,
    *,
    feature_maps=None,
    detections=None,
    class_names=None,
    sample_names=None,
    properties=None,
    pixel_size=None,
    unit="um",
    as_frame="auto",
):
    """Measure objects: one row of numbers per object.

    Parameters
    ----------
    instances : array-like of shape (n_samples, n_maps, height, width) or \
            (n_samples, height, width), of integers, or sequence of such samples
        0 for the background and one number per object, in any order and with gaps; an object may
        have several pieces. Samples may differ in size. They are read one by one: memory-mapped
        arrays, Zarr and HDF5 data sets, and lazy stacks are never loaded whole.
    images : array-like of shape (n_samples, height, width) or \
            (n_samples, height, width, n_channels), or sequence of images, default=None
        Images to measure intensities in, of any real dtype; read one by one too.
    feature_maps : array-like of shape (n_samples, n_maps, height, width), or sequence of such \
            samples, default=None
        Feature maps, each measured inside the objects of its own class.
    detections : sequence of n_samples array-like of shape (n_detections, 4), default=None
        Map index, row, column (px) and score of each detection, from
        :class:`~sklearn_micranet.HungarianDetector`. The score of an object is the highest of the
        detections in it, and NaN where there is none.
    class_names : array-like of shape (n_maps,), default=None
        Labels of the maps, such as ``map_classes_`` of a classifier. ``None`` is for a single map
        only, whose label is ``"object"``.
    sample_names : sequence of n_samples names, default=None
        Such as the file names of :func:`read_images`. ``None`` stands for the indices.
    properties : sequence of str, default=None
        Which of the columns from ``"area"`` to ``"intensity_max"``, below, are measured, such as
        ``["area", "intensity_mean"]``; intensities need `images`. ``None`` measures all. Solidity
        takes about half of the time.
    pixel_size : float, default=None
        Side of a square pixel in `unit`. With it, lengths and areas are also given in that unit.
    unit : {"um", "nm", "mm"}, default="um"
        Unit of `pixel_size`, which ends the names of the columns in it.
    as_frame : bool or "auto", default="auto"
        Whether the table is a DataFrame; ``"auto"`` makes it one where pandas is installed.

    Returns
    -------
    table : pandas.DataFrame, or dict of ndarray of shape (n_objects,)
        One row per object, by sample, class and number. Its columns are the following, without
        objects too:

        sample, class, object
            Name of the sample, label of the class, number of the object in its map.
        row, column
            Centroid, px; the centre of the top-left pixel is (0, 0).
        first_row, first_column, end_row, end_column
            Bounding box, px. The ends are the first row and column after the object.
        area
            Number of pixels, px².
        axis_major_length, axis_minor_length
            Axes of the ellipse with the same second moments, px; 0 across a line of single pixels.
        perimeter
            Length of the line through the centres of the border pixels, px; 0 for a single pixel.
        solidity
            Area divided by that of the convex hull, in (0, 1].
        border_distance, touches_border
            Number of pixels between the object and the nearest border of the image, and whether
            that is 0: such objects may be cut off.
        intensity_mean, intensity_min, intensity_max
            With `images`; of several channels, one column each that ends in ``_0``, ``_1``...
        feature_map_mean
            With `feature_maps`.
        score
            With `detections`.
        row_um, column_um, area_um2, axis_major_length_um, axis_minor_length_um, perimeter_um, \
        border_distance_um
            With `pixel_size`, and the unit in place of ``um``.

    Raises
    ------
    TypeError
        If instances are no integers.
    ValueError
        If lengths or sizes do not fit each other, several maps have no names, or a property is
        unknown or needs images.
    ImportError
        If ``as_frame=True`` and pandas is not installed.

    See Also
    --------
    summarize_objects : Counts, densities and means per sample, class and group.
    write_objects : Write objects to files for Fiji, QuPath, napari or a spreadsheet.

    Notes
    -----
    Memory grows with the table and one sample. The properties are those of
    :func:`skimage.measure.regionprops`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet.images import measure_objects
    >>> instances = np.zeros((1, 8, 10), int)
    >>> instances[0, 1:3, 1:4], instances[0, 4:8, 6:8] = 1, 2
    >>> table = measure_objects(instances, pixel_size=0.5, as_frame=False)
    >>> table["area"].tolist(), table["area_um2"].tolist()
    ([6, 8], [1.5, 2.0])
    >>> table["row"].tolist(), table["touches_border"].tolist()
    ([1.5, 5.5], [False, True])
    >>> list(measure_objects(instances, properties=["area"], as_frame=False))[-3:]
    ['end_row', 'end_column', 'area']
    """
    n = n_samples(instances)
    beside = {"images": images, "feature_maps": feature_maps, "detections": detections}
    for name, values in beside.items():
        check_length(name, values, n)
    sample_names = check_sample_names(sample_names, n)
    properties = _check_properties(properties, images)
    if n == 0:
        raise ValueError("instances must have at least one sample. Got none instead.")

    parts = []
    for index, sample_name in enumerate(sample_names):
        sample = read_sample(instances, index)
        labels = check_class_names(class_names, len(sample))
        image, maps, points = (v if v is None else np.asarray(v[index]) for v in beside.values())
        image = None if image is None else _check_image(image, sample.shape[1:])
        if maps is not None and maps.shape != sample.shape:
            raise ValueError(
                f"feature_maps must have the shape of their instances, {sample.shape}. "
                f"Got {maps.shape} instead."
            )
        scores = None if points is None else _scores(sample, points)
        for k, label_image in enumerate(sample):
            columns = _measure(label_image, image, None if maps is None else maps[k], properties)
            if scores is not None:
                columns["score"] = np.array([scores.get((k, o), np.nan) for o in columns["object"]])
            n_objects = len(columns["object"])
            first = {
                "sample": np.full(n_objects, sample_name),
                "class": np.full(n_objects, labels[k]),
            }
            parts.append(first | columns)
    _check_same_channels(parts)
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if pixel_size is not None:
        table |= _in_unit(table, pixel_size, unit)
    return as_table(table, as_frame)


def _check_properties(properties, images):
    """Return the names of what is to be measured, besides places."""
    if properties is None:
        return _SHAPES if images is None else _SHAPES + _INTENSITIES
    unknown = [name for name in properties if name not in _SHAPES + _INTENSITIES]
    if unknown:
        raise ValueError(
            f"properties must be some of {_SHAPES + _INTENSITIES}. Got {unknown} instead."
        )
    if images is None and set(properties) & set(_INTENSITIES):
        raise ValueError(
            "properties must hold no intensities without images. Got images=None and "
            f"{list(properties)} instead: pass images."
        )
    return properties


def _measure(label_image, image, feature_map, properties):
    """Return the columns of the objects of one map."""
    from skimage.measure import regionprops_table  # here, because it is slow to import

    # Consecutive numbers, because scikit-image's memory grows with the highest.
    numbers, consecutive = np.unique(label_image, return_inverse=True)
    has_background = len(numbers) > 0 and numbers[0] == 0
    consecutive = consecutive.reshape(label_image.shape) + (0 if has_background else 1)
    numbers = numbers[1:] if has_background else numbers
    found = regionprops_table(
        consecutive,
        image,
        properties=(*_ALWAYS, *(name for name in _OF_SKIMAGE if name in properties)),
        extra_properties=(_axis_lengths,) if set(_AXES) & set(properties) else (),
    )
    table = {name: found.pop(key) for key, (name, _) in _COLUMNS.items() if key in found}
    table["object"] = numbers.astype(np.int64)
    if "area" in table:
        table["area"] = np.rint(table["area"]).astype(np.int64)
    height, width = label_image.shape
    table["border_distance"] = np.min(
        [
            table["first_row"],
            table["first_column"],
            height - table["end_row"],
            width - table["end_column"],
        ],
        axis=0,
    ).astype(np.int64)
    table["touches_border"] = table["border_distance"] == 0
    for name in set(_SHAPES) - set(properties):
        table.pop(name, None)
    table |= {key.replace("-", "_"): found[key].astype(float) for key in found}
    if feature_map is not None:
        places, values = consecutive.ravel(), feature_map.ravel().astype(float)
        sums, areas = (np.bincount(places, w, len(numbers) + 1)[1:] for w in (values, None))
        table["feature_map_mean"] = sums / areas
    return table


def _axis_lengths(mask):
    """Return scikit-image's major and minor axis length of one object, in a fifth of the time."""
    rows, columns = np.nonzero(mask)
    rows, columns = rows - rows.mean(), columns - columns.mean()
    of_rows, of_columns, of_both = rows @ rows, columns @ columns, rows @ columns
    middle, radius = (of_rows + of_columns) / 2, np.hypot((of_rows - of_columns) / 2, of_both)
    variances = np.array([middle + radius, max(middle - radius, 0)]) / len(rows)
    return 4 * np.sqrt(variances)


def _check_image(image, shape):
    if image.shape[:2] != shape or image.ndim not in (2, 3):
        raise ValueError(
            f"images must have the height and width of their instances, {shape}. "
            f"Got the shape {image.shape} instead."
        )
    return image.astype(float)  # also from float16 and foreign byte orders


def _scores(sample, points):
    """Return the highest score of the detections in each object, by map index and number."""
    points = points.reshape(-1, 4) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 4:
        raise ValueError(
            "detections must hold tables of 4 columns: map index, row, column and score. "
            f"Got the shape {points.shape} instead."
        )
    places = np.column_stack([points[:, :1], np.floor(points[:, 1:3] + 0.5)]).astype(np.int64)
    if np.any((places < 0) | (places >= sample.shape)):
        raise ValueError(
            "detections must lie inside their sample, of n_maps, height and width "
            f"{sample.shape}. Got detections outside instead; are rows and columns swapped?"
        )
    scores = {}
    for (k, row, column), score in zip(places, points[:, 3], strict=True):
        key = int(k), int(sample[k, row, column])
        scores[key] = max(score, scores.get(key, score))
    return scores


def _check_same_channels(parts):
    if any(part.keys() != parts[0].keys() for part in parts):
        raise ValueError("images must all have the same channels. Got images that differ instead.")


def _in_unit(table, pixel_size, unit):
    """Return the lengths and areas of a table in a physical unit."""
    powers = dict(_COLUMNS.values()) | {"border_distance": 1}
    return {
        f"{name}_{unit}{'' if power == 1 else power}": table[name] * pixel_size**power
        for name, power in powers.items()
        if power and name in table
    }
