"""Read instances sample by sample, and the names of their samples and classes."""

from numbers import Real
from pathlib import Path

import numpy as np
from scipy import ndimage

from sklearn_micranet._stack._lazy_stack import n_samples
from sklearn_micranet._stack._numbers import Interval

UNITS = {"nm", "um", "mm"}
PIXEL_SIZE = [Interval(Real, 0, None, closed="neither"), None]  # what validates the parameter


def read_sample(instances, index):
    """Return one sample as an integer array of shape (n_maps, height, width)."""
    sample = np.asarray(instances[index])
    if sample.dtype.kind not in "iu":
        raise TypeError(
            "instances must be integers: 0 for the background and one number per object. Got "
            f"{sample.dtype} instead. Number the objects of a mask first, for example with "
            "predict_instances or skimage.measure.label."
        )
    if sample.ndim not in (2, 3):
        raise ValueError(
            "instances must have the shape (n_samples, n_maps, height, width) or (n_samples, "
            f"height, width), or be a list of such samples. Got a sample of shape {sample.shape} "
            "instead; pass [image] for a single label image."
        )
    if sample.size and (sample.min() < 0 or sample.max() >= 2**31):
        raise ValueError(
            "instances must be from 0 to 2147483647, as int32. "
            f"Got {sample.min()} to {sample.max()} instead."
        )
    return sample if sample.ndim == 3 else sample[np.newaxis]


def each_object(label_image):
    """Yield the number, the place (two slices) and the mask in that place of each object."""
    numbers, consecutive = np.unique(label_image, return_inverse=True)
    consecutive = consecutive.reshape(label_image.shape) + 1  # whatever is there, from 1
    for i, place in enumerate(ndimage.find_objects(consecutive)):
        if numbers[i] != 0:
            yield int(numbers[i]), place, consecutive[place] == i + 1


def check_length(name, values, n):
    """Raise ValueError unless there is one value per sample."""
    if values is not None and n_samples(values) != n:
        raise ValueError(
            f"{name} must have one entry per sample, {n}. Got {n_samples(values)} instead."
        )


def check_sample_names(sample_names, n):
    """Return the names of the samples, which differ: their indices, or those given."""
    if sample_names is None:
        return list(range(n))
    check_length("sample_names", sample_names, n)
    if len(set(sample_names)) < n:
        raise ValueError("sample_names must differ. Got a name twice instead.")
    return [str(name) if isinstance(name, Path) else name for name in sample_names]


def check_class_names(class_names, n_maps):
    """Return the labels of the maps as an array: ``object`` for a single map without a name."""
    if class_names is None:
        if n_maps == 1:
            return np.array(["object"])
        raise ValueError(
            f"class_names must be given for instances of {n_maps} maps, or their classes have no "
            "names. Pass map_classes_ of the classifier."
        )
    class_names = np.asarray(class_names)
    if class_names.shape != (n_maps,):
        raise ValueError(
            f"class_names must be a list of one name per map, {n_maps} in all. Got "
            f"{class_names.tolist()!r} instead."
        )
    if len(set(map(str, class_names))) < n_maps:
        raise ValueError(f"class_names must differ. Got {class_names.tolist()} instead.")
    return class_names


def as_columns(table):
    """Return a table, a dict of columns or a DataFrame, as a dict of arrays."""
    return {str(name): np.asarray(table[name]) for name in table}


def as_table(columns, as_frame):
    """Return columns as a DataFrame where that is wished for, else as they are."""
    if as_frame is False:
        return columns
    try:
        import pandas as pd
    except ImportError as error:
        if as_frame == "auto":
            return columns
        raise ImportError(
            "as_frame=True requires pandas, which cannot be imported: install pandas, or pass "
            "as_frame=False for a dict of arrays."
        ) from error
    return pd.DataFrame(columns)
