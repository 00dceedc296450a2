"""Counts, densities and means of measured objects."""

from collections.abc import Mapping

import numpy as np
from sklearn.utils._param_validation import StrOptions, validate_params

from ._instances import PIXEL_SIZE, UNITS, as_columns, as_table, check_length

_BY = ("group", "sample", "class")
# What a mean says nothing about: names, numbers and places.
_NO_MEASUREMENTS = {
    *_BY,
    "object",
    "row",
    "column",
    "first_row",
    "first_column",
    "end_row",
    "end_column",
    *(f"{axis}_{unit}" for axis in ("row", "column") for unit in UNITS),
}


@validate_params(
    {
        "by": [str, "array-like"],
        "groups": [Mapping, None],
        "image_shapes": [Mapping, tuple, None],
        "pixel_size": PIXEL_SIZE,
        "unit": [StrOptions(UNITS)],
        "as_frame": ["boolean", StrOptions({"auto"})],
    },
    prefer_skip_nested_validation=True,
)
def summarize_objects(
    table,
    *,
    by=("sample", "class"),
    sample_names=None,
    class_names=None,
    groups=None,
    image_shapes=None,
    pixel_size=None,
    unit="um",
    as_frame="auto",
):
    """Summarise measured objects by counts, densities and means.

    Parameters
    ----------
    table : pandas.DataFrame or dict of array-like of shape (n_objects,)
        From :func:`measure_objects`.
    by : str or sequence of str, default=("sample", "class")
        What has a row of its own: any of ``"group"``, ``"sample"`` and ``"class"``.
    sample_names : sequence of str or int, default=None
        All samples, so that those without objects count too. ``None`` stands for those in
        `table`: counts of 0 for whole samples are then missing.
    class_names : sequence, default=None
        All classes. ``None`` stands for those in `table`.
    groups : dict, default=None
        Group of each sample by its name, such as a treatment; needed for ``by="group"``.
    image_shapes : tuple (height, width) or dict, default=None
        Size of the images, px: of all, or of each sample by its name. With it, densities are
        given.
    pixel_size : float, default=None
        Side of a square pixel in `unit`. With it, densities are also given per area in that unit.
    unit : {"um", "nm", "mm"}, default="um"
        Unit of `pixel_size`. With a pixel size in mm, densities are per mm².
    as_frame : bool or "auto", default="auto"
        Whether the result is a DataFrame; ``"auto"`` makes it one where pandas is installed.

    Returns
    -------
    summary : pandas.DataFrame, or dict of ndarray of shape (n_rows,)
        One row per combination, in the order of `sample_names` and `class_names`:

        group, sample, class
            Those of `by`.
        n_samples
            Number of samples in the row.
        n_objects
            Number of objects; 0 where there are none.
        density_px2, density_um2
            Objects per px², and per area in `unit`, over the whole area of the row's samples.
        mean of each measurement
            Named ``mean_area`` and so on: over the objects, NaN where there are none. That of
            ``touches_border`` is the share of objects that touch it.

    Raises
    ------
    ValueError
        If `table` lacks columns, holds samples or classes that are not named, or a sample has no
        group or image shape.
    ImportError
        If ``as_frame=True`` and pandas is not installed.

    See Also
    --------
    measure_objects : One row of numbers per object.

    Notes
    -----
    Objects of one sample are no independent observations: for the statistics of groups, compare
    the rows of ``by=("group", "sample", "class")``, one value per sample.

    Examples
    --------
    >>> from sklearn_micranet.images import summarize_objects
    >>> table = {"sample": ["a", "a", "c"], "class": ["cell"] * 3, "area": [10, 20, 40]}
    >>> summary = summarize_objects(table, sample_names=["a", "b", "c"], as_frame=False)
    >>> summary["n_objects"].tolist(), summary["mean_area"].tolist()
    ([2, 0, 1], [15.0, nan, 40.0])
    """
    by = _check_by(by, groups)
    columns = as_columns(table)
    missing = {"sample", "class"} - set(columns)
    if missing:
        raise ValueError(f"table must have the columns sample and class. Got no {missing} instead.")
    check_length("each column of table", columns["class"], len(columns["sample"]))
    samples, sample_of = _levels("sample_names", columns["sample"], sample_names)
    classes, class_of = _levels("class_names", columns["class"], class_names)
    levels = {"sample": (samples, np.arange(len(samples)))}
    if groups is not None:
        of_samples = [_look_up("groups", groups, sample) for sample in samples]
        levels["group"] = _levels("groups", np.asarray(of_samples), None)
    areas = _areas(image_shapes, samples)

    # Row of the summary of each pair of a sample and a class.
    shape = [len(classes) if name == "class" else len(levels[name][0]) for name in by]
    pairs = np.indices((len(samples), len(classes))).reshape(2, -1)
    places = [pairs[1] if name == "class" else levels[name][1][pairs[0]] for name in by]
    rows_of_pairs = np.ravel_multi_index(places, shape) if len(places[0]) else np.empty(0, int)
    used, rows_of_pairs = np.unique(rows_of_pairs, return_inverse=True)  # groups part the samples
    row_of = rows_of_pairs[sample_of * len(classes) + class_of]

    summary = {}
    for name, place in zip(by, np.unravel_index(used, shape), strict=True):
        summary[name] = (classes if name == "class" else levels[name][0])[place]
    # A sample that is in a row with several classes counts once.
    in_rows = np.unique(np.column_stack([rows_of_pairs, pairs[0]]), axis=0).T
    n_objects = np.bincount(row_of, minlength=len(used))
    summary["n_samples"] = np.bincount(in_rows[0], minlength=len(used))
    summary["n_objects"] = n_objects
    if areas is not None:
        density = n_objects / np.bincount(in_rows[0], areas[in_rows[1]], len(used))
        summary["density_px2"] = density
        if pixel_size is not None:
            summary[f"density_{unit}2"] = density / pixel_size**2
    for name, values in columns.items():
        if name not in _NO_MEASUREMENTS and values.dtype.kind in "biuf":
            sums = np.bincount(row_of, values.astype(float), len(used))
            means = np.full(len(used), np.nan)
            summary[f"mean_{name}"] = np.divide(sums, n_objects, out=means, where=n_objects > 0)
    return as_table(summary, as_frame)


def _check_by(by, groups):
    by = (by,) if isinstance(by, str) else tuple(by)
    if not by or not set(by) <= set(_BY) or len(set(by)) < len(by):
        raise ValueError(f"by must name some of {_BY}, each once. Got {by} instead.")
    if "group" in by and groups is None:
        raise ValueError('by="group" needs groups, the group of each sample by its name.')
    return by


def _levels(name, values, given):
    """Return the names that occur, or those given, and the place of each value among them."""
    if given is None:
        return np.unique(values, return_inverse=True)
    if isinstance(given, str):
        raise TypeError(f"{name} must be a list of names. Got {given!r} instead.")
    places = {value: i for i, value in enumerate(np.asarray(given).tolist())}
    unknown = set(values.tolist()) - set(places)
    if unknown:
        raise ValueError(
            f"{name} must name all that occur in table. Got a table with {sorted(unknown)[0]!r} "
            f"besides {list(places)[:5]} instead."
        )
    if len(places) < len(given):
        raise ValueError(f"{name} must differ. Got a name twice instead.")
    return np.asarray(given), np.array([places[value] for value in values.tolist()], np.int64)


def _look_up(name, of_samples, sample):
    key = sample.item() if isinstance(sample, np.generic) else sample
    if key not in of_samples:
        raise ValueError(
            f"{name} must have an entry for each sample. Got none for {key!r} instead."
        )
    return of_samples[key]


def _areas(image_shapes, samples):
    """Return the areas of the samples, px², or None."""
    if image_shapes is None:
        return None
    if isinstance(image_shapes, Mapping):
        image_shapes = [_look_up("image_shapes", image_shapes, sample) for sample in samples]
    else:
        image_shapes = [image_shapes] * len(samples)
    return np.prod(np.reshape(image_shapes, (-1, 2)), axis=1, dtype=float)
