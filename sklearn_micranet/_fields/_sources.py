"""Fields: arrays in memory or on disk, and files that are read piecewise."""

from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np

from sklearn_micranet._stack._extras import import_extra
from sklearn_micranet._stack._sources import unpacked

_MAX_CHANNELS = 16


def open_fields(fields, size):
    """Return fields as arrays that can be sliced; those on disk are not read.

    Parameters
    ----------
    fields : sequence of arrays, or of paths of TIFF files and Zarr arrays
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
        return field if hasattr(field, "shape") else np.asarray(field)
    path = Path(field)
    if not path.exists():
        raise FileNotFoundError(f"{path} must be a TIFF file or a Zarr array. Got nothing instead.")
    if path.is_dir():
        return _open_zarr(import_extra("zarr", "zarr"), path, path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(
            f"A field must be an array, a TIFF file or the folder of a Zarr array. Got {path} "
            "instead: read it with images.read_images."
        )
    return TiffField(path)


def _open_zarr(zarr, store, path):
    found = zarr.open(store, mode="r")
    if not hasattr(found, "shape"):
        raise ValueError(
            f"{path} must hold one Zarr array. Got a group instead: pass one of its arrays, such "
            "as its first level, 0."
        )
    return found


class TiffField:
    """The first image of a TIFF file at full resolution, of which tiles are read when sliced.

    It can be pickled: the file is opened anew where it is read.
    """

    def __init__(self, path):
        self.path = path
        self.shape, self.dtype = tuple(self._array.shape), self._array.dtype

    @cached_property
    def _array(self):
        tifffile = import_extra("tifffile", "tiff")
        zarr = import_extra("zarr", "zarr")
        return _open_zarr(zarr, tifffile.imread(self.path, aszarr=True, level=0), self.path)

    def __getitem__(self, key):
        return np.asarray(self._array[key])

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_array"}
