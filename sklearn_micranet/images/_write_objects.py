"""Write objects to files that Fiji, QuPath, napari and spreadsheets open."""

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_micranet._stack._files import atomic_folder, atomic_path
from sklearn_micranet._stack._lazy_stack import n_samples

from ._geojson import write_geojson
from ._image_files import SUFFIXES
from ._imagej_rois import write_rois
from ._instances import (
    PIXEL_SIZE,
    UNITS,
    as_columns,
    check_class_names,
    check_length,
    check_sample_names,
    read_sample,
)
from ._label_images import write_label_tiff, write_ome_tiff, write_ome_zarr
from ._measure_objects import measure_objects


@dataclass(frozen=True)
class Sample:
    """What the file of one sample is written from.

    Attributes
    ----------
    instances : int ndarray of shape (n_maps, height, width)
    labels : list of n_maps str
    image : ndarray of shape (height, width) or (height, width, n_channels), or None
    measurements : dict or None
        Measurements by name of each object, by its label and number.
    pixel_size : float or None
    unit : {"um", "nm", "mm"}
    object_type : {"annotation", "detection"}
    """

    instances: np.ndarray
    labels: list
    image: np.ndarray | None
    measurements: dict | None
    pixel_size: float | None
    unit: str
    object_type: str


_WRITERS = {
    ".ome.tif": write_ome_tiff,
    ".ome.tiff": write_ome_tiff,
    ".tif": write_label_tiff,
    ".tiff": write_label_tiff,
    ".zarr": write_ome_zarr,
    ".geojson": write_geojson,
    ".zip": write_rois,
    ".csv": None,
}


@validate_params(
    {
        "path": [str, os.PathLike],
        "pixel_size": PIXEL_SIZE,
        "unit": [StrOptions(UNITS)],
        "object_type": [StrOptions({"annotation", "detection"})],
    },
    prefer_skip_nested_validation=True,
)
def write_objects(
    path,
    instances,
    *,
    images=None,
    table=None,
    class_names=None,
    sample_names=None,
    pixel_size=None,
    unit="um",
    object_type="annotation",
):
    """Write objects to files that Fiji, QuPath, napari and spreadsheets open.

    The end of the name chooses the format:

    ``.zip``
        ROIs for Fiji's ROI Manager. Pixel (0, 0) covers the square from (0, 0) to (1, 1). The
        ROI's group is the class, counted from 1; its properties are the class and the number.
        Needs roifile.
    ``.geojson``
        Objects for QuPath (File > Import objects), with class and measurements, in the same
        coordinates. The name is the number.
    ``.tif``, ``.tiff``
        Label image for ImageJ: the pixel values are the numbers (uint16, float32 from 65536 on),
        one channel per class.
    ``.ome.tif``, ``.ome.tiff``
        The same as OME-TIFF (uint16, or uint32).
    ``.ome.zarr``, ``.zarr``
        OME-Zarr 0.4, a folder, with the image and one label image per class. Version 0.4 because
        Fiji's readers do not all know 0.5 yet. Needs zarr, and `images`.
    ``.csv``
        The table of :func:`measure_objects`, of all samples; separated by commas, empty where a
        number is NaN.

    Outlines follow the edges of the pixels, holes and several pieces included: whatever is read
    back with :func:`read_objects` is the same, pixel for pixel.

    Parameters
    ----------
    path : str or path-like
        File to write. Several samples need one file each, except in CSV: then ``{sample}`` in
        the path stands for the sample's name without folder and image suffix, as in
        ``"rois/{sample}.zip"``. Folders are made as needed, and files that exist are replaced, but
        for OME-Zarr.
    instances : array-like of shape (n_samples, n_maps, height, width) or \
            (n_samples, height, width), of integers, or sequence of such samples
        0 for the background and one number per object, as for :func:`measure_objects`.
    images : array-like of shape (n_samples, height, width) or \
            (n_samples, height, width, n_channels), or sequence of images, default=None
        Images that OME-Zarr holds, and in which intensities are measured where `table` is None.
    table : pandas.DataFrame or dict, default=None
        Measurements that GeoJSON and CSV hold, from :func:`measure_objects`; in CSV any table.
        ``None`` measures them now.
    class_names : array-like of shape (n_maps,), default=None
        Labels of the maps, such as ``map_classes_`` of a classifier. ``None`` is for a single map
        only, whose label is ``"object"``.
    sample_names : sequence of n_samples names, default=None
        Such as the file names of :func:`read_images`. ``None`` stands for the indices.
    pixel_size : float, default=None
        Side of a square pixel in `unit`, kept in the image formats and used for measurements.
    unit : {"um", "nm", "mm"}, default="um"
        Unit of `pixel_size`.
    object_type : {"annotation", "detection"}, default="annotation"
        What objects are in QuPath: annotations can be corrected by hand, detections are quicker
        where there are tens of thousands.

    Returns
    -------
    paths : list of str
        The files that were written.

    Raises
    ------
    ValueError
        If the suffix is unknown, names or lengths do not fit, or an object is not in `table`.
    FileExistsError
        If an OME-Zarr exists already: it may hold what is not written here.
    ImportError
        If the format needs a package that is not installed.

    See Also
    --------
    read_objects : Read them back, corrected by hand or not.

    Notes
    -----
    Memory grows with one sample (and, for CSV, the table). A file appears whole or not at all.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from sklearn_micranet.images import read_objects, write_objects
    >>> instances = np.zeros((2, 1, 6, 8), int)
    >>> instances[0, 0, 1:4, 2:5], instances[1, 0, 3:, 3:] = 1, 7
    >>> with TemporaryDirectory() as folder:
    ...     paths = write_objects(f"{folder}/{{sample}}.geojson", instances, class_names=["cell"])
    ...     back = [read_objects(path, shape=(6, 8)).instances for path in paths]
    >>> np.array_equal(instances, back)
    True
    """
    suffix = _suffix(path)
    n = n_samples(instances)
    for name, values in {"images": images, "sample_names": sample_names}.items():
        check_length(name, values, n)
    names = check_sample_names(sample_names, n)
    # A float, as tifffile takes no float32 for a resolution.
    scale = {"pixel_size": None if pixel_size is None else float(pixel_size), "unit": unit}
    if suffix == ".csv":
        if table is None:
            table = measure_objects(
                instances,
                images,
                class_names=class_names,
                sample_names=sample_names,
                as_frame=False,
                **scale,
            )
        with atomic_path(path) as part:
            _write_csv(part, as_columns(table))
        return [str(path)]

    paths = _paths(path, names)
    if suffix == ".zarr":
        _check_zarr(paths, images)
    rows = None if table is None else _rows(as_columns(table))
    for index, (name, target) in enumerate(zip(names, paths, strict=True)):
        sample = read_sample(instances, index)
        labels = check_class_names(class_names, len(sample))
        image = None if images is None else np.asarray(images[index])
        found = None
        if suffix == ".geojson":
            if table is None:
                measured = measure_objects(
                    [sample],
                    None if image is None else [image],
                    class_names=labels,
                    sample_names=[name],
                    as_frame=False,
                    **scale,
                )
                found = _rows(measured).get(name, {})
            else:
                found = rows.get(name, {})
        labels = [str(label) for label in labels]
        record = Sample(sample, labels, image, found, object_type=object_type, **scale)
        atomic = atomic_folder if suffix == ".zarr" else atomic_path
        with atomic(target) as part:
            _WRITERS[suffix](part, record)
    return paths


def _suffix(path):
    name = Path(path).name.lower()
    for suffix in _WRITERS:  # the longer ones first
        if name.endswith(suffix):
            return suffix
    raise ValueError(f"path must end in {', '.join(_WRITERS)}. Got {Path(path).name!r} instead.")


def _paths(path, names):
    """Return the path of each sample."""
    path = str(path)
    if "{sample}" not in path:
        if len(names) != 1:
            raise ValueError(
                f"path must hold {{sample}} for {len(names)} samples, or their files have one "
                f'name, such as "rois/{{sample}}.zip". Got {path!r} instead.'
            )
        return [path]
    stems = [_stem(Path(str(name))) for name in names]
    if len(set(stems)) < len(stems):
        raise ValueError(
            "sample_names must differ without their folders and suffixes. Got a name twice "
            "instead: write the samples of each folder separately."
        )
    return [path.replace("{sample}", stem) for stem in stems]


def _stem(path):
    """Return a name without folder and image suffix; what follows another dot belongs to it."""
    is_image = path.suffix.lower() in SUFFIXES
    return path.stem.removesuffix(".ome") if is_image else path.name


def _check_zarr(paths, images):
    if images is None:
        raise ValueError(
            "OME-Zarr keeps label images inside their image. Got images=None instead: pass the "
            "images too, or write OME-TIFF."
        )
    for path in paths:
        if Path(path).exists():
            raise FileExistsError(
                f"{path} exists, and may hold images that are not written here. Delete it, or "
                "choose another name."
            )


def _rows(columns):
    """Return the finite measurements of each object: by sample, then by (label, number)."""
    needed = ("sample", "class", "object")
    if not set(needed) <= set(columns):
        raise ValueError(f"table must have the columns {needed}. Got {list(columns)} instead.")
    numeric = {n: v.tolist() for n, v in columns.items() if v.dtype.kind in "biuf"}
    for name in needed:
        numeric.pop(name, None)
    rows = {}
    for i, (sample, label, number) in enumerate(
        zip(*(columns[name].tolist() for name in needed), strict=True)
    ):
        found = {name: float(v[i]) for name, v in numeric.items() if math.isfinite(v[i])}
        rows.setdefault(sample, {})[str(label), number] = found
    return rows


def _write_csv(path, columns):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        lists = (
            ["" if x != x else x for x in column.tolist()]  # NaN differs from itself
            for column in columns.values()
        )
        writer.writerows(zip(*lists, strict=True))
