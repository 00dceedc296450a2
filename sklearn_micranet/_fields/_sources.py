"""Fields: arrays in memory or on disk, and files that are read piecewise."""

from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np

from sklearn_micranet._stack._extras import import_extra
from sklearn_micranet._stack._file_arrays import FileArray, by_name
from sklearn_micranet._stack._ome import ome_metadata
from sklearn_micranet._stack._sources import unpacked

_MAX_CHANNELS = 16


def open_fields(fields, size):
    """Return fields as arrays that can be sliced; those on disk are not read.

    Parameters
    ----------
    fields : sequence of arrays, or of paths of TIFF files, Zarr arrays and OME-Zarr images
        The images of a lazy stack are read whole.
    size : int
        Side of the windows, px, which each field must hold at least one of.

    Returns
    -------
    fields : list of arrays
    """
    fields = unpacked(fields)
    is_array = hasattr(fields, "shape") and not hasattr(fields, "is_ragged")
    if isinstance(fields, (str, PathLike, dict)) or (is_array and len(fields.shape) < 3):
        raise TypeError(
            "fields must be a sequence of fields. Got a single "
            f"{'array' if hasattr(fields, 'shape') else type(fields).__name__} instead: pass "
            "[field]."
        )
    fields = [_open(field) for field in fields]
    if not fields:
        raise ValueError("fields must hold at least one field. Got none instead.")
    for i, field in enumerate(fields):
        shape = tuple(field.shape)
        if len(shape) not in (2, 3) or shape[2:] > (_MAX_CHANNELS,):
            raise ValueError(
                "Each field must have the shape (height, width) or (height, width, n_channels) "
                f"with at most {_MAX_CHANNELS} channels. Got {shape} for field {i} instead."
            )
        if min(shape[:2]) < size:
            raise ValueError(
                f"Each field must hold a window of {size} x {size} px. Got the shape {shape} for "
                f"field {i} instead: lower size, or pass a single field as [field]."
            )
    return fields


def read_block(field, first_row, end_row, first_column, end_column):
    """Read a rectangle of a field, which is mirrored beyond its border.

    Returns
    -------
    block : ndarray of shape (end_row - first_row, end_column - first_column[, n_channels])
        A view of the field where that is possible.
    """
    rows = mirrored(first_row, end_row, field.shape[0])
    columns = mirrored(first_column, end_column, field.shape[1])
    parts = tuple(slice(int(i.min()), int(i.max()) + 1) for i in (rows, columns))
    block = np.asarray(field[parts])
    if block.shape[:2] == (len(rows), len(columns)) and _rises(rows) and _rises(columns):
        return block
    return block[np.ix_(rows - rows.min(), columns - columns.min())]


def _rises(indices):
    return len(indices) < 2 or bool((np.diff(indices) == 1).all())


def mirrored(start, stop, length):
    """Return which pixels of an axis are seen from `start` to `stop`.

    Beyond the ends they are mirrored, as by ``numpy.pad(mode="reflect")``.
    """
    period = max(2 * (length - 1), 1)
    places = np.arange(start, stop) % period
    return np.where(places < length, places, period - places)


def _open(field):
    if not isinstance(field, (str, PathLike)):
        return by_name(field if hasattr(field, "shape") else np.asarray(field))
    path = Path(field).absolute()
    if not path.exists():
        raise FileNotFoundError(f"{path} must be a TIFF file or a Zarr array. Got nothing instead.")
    if path.is_dir():
        return FileArray(partial(_open_zarr, path))
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(
            f"A field must be an array, a TIFF file or the folder of a Zarr array. Got {path} "
            "instead: read it with images.read_images."
        )
    return FileArray(partial(_open_tiff, path))


def _open_tiff(path):
    """Open the first image of a TIFF file at full resolution, which is read tile by tile."""
    tifffile = import_extra("tifffile", "tiff")
    zarr = import_extra("zarr", "zarr")
    with tifffile.TiffFile(path) as tif:
        level = tif.series[0].levels[0]
        axes = level.axes.lower()
        store = tifffile.imread(path, aszarr=True, series=0, level=0)
    return _with_axes(zarr.open(store, mode="r"), axes, path)


def _open_zarr(path):
    """Open a Zarr array; of an OME-Zarr image the full resolution, or the level that is named."""
    zarr = import_extra("zarr", "zarr")
    found = zarr.open(path, mode="r")
    if hasattr(found, "shape"):
        axes = _axes_of_level(zarr, path)
        return found if axes is None else _with_axes(found, axes, path)
    multiscales = ome_metadata(found).get("multiscales")
    if not multiscales:
        raise ValueError(
            f"{path} must hold one Zarr array, or an OME-Zarr image. Got a group of others "
            "instead: pass the path of one of its arrays."
        )
    level = multiscales[0]["datasets"][0]["path"]
    return _with_axes(found[level], _axes(multiscales[0]), path)


def _axes_of_level(zarr, path):
    """Return the axes of an array that is a level of an OME-Zarr image, otherwise None."""
    try:
        group = zarr.open_group(path.parent, mode="r")
    except (OSError, ValueError):  # it is no group
        return None
    for multiscale in ome_metadata(group).get("multiscales", ()):
        if path.name in [dataset["path"] for dataset in multiscale["datasets"]]:
            return _axes(multiscale)
    return None


def _axes(multiscale):
    return "".join(axis["name"].lower() for axis in multiscale["axes"])


def _with_axes(array, axes, path):
    """Return an array of one plane as (height, width[, n_channels])."""
    others = {axis for axis, n in zip(axes, array.shape, strict=True) if n > 1} - {*"yx"}
    if not {*"yx"} <= {*axes} or len(others) > 1 or not others <= {*"cs"}:
        raise ValueError(
            f"A field must have one plane, with or without channels. Got the axes {axes.upper()} "
            f"with the shape {tuple(array.shape)} in {path} instead: pass one of its planes as an "
            "array."
        )
    return array if axes in ("yx", "yxs", "yxc") else _Plane(array, axes)


class _Plane:
    """An array of any axes, of which one plane is seen with its channels on the last axis."""

    def __init__(self, array, axes):
        self.array, self.dtype = array, array.dtype
        lengths = dict(zip(axes, array.shape, strict=True))
        self.channels = "".join(axis for axis in axes if axis in "cs" and lengths[axis] > 1)
        self.kept = [axis for axis in axes if axis in "yx" + self.channels]
        self.axes = axes
        self.shape = tuple(lengths[axis] for axis in "yx" + self.channels)

    def __getitem__(self, key):
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        parts = {"y": rows, "x": columns} | dict.fromkeys(self.channels, slice(None))
        block = np.asarray(self.array[tuple(parts.get(axis, 0) for axis in self.axes)])
        return block.transpose([self.kept.index(axis) for axis in "yx" + self.channels])
