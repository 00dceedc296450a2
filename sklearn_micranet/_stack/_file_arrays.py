"""Arrays in files, of which only the name travels to other processes."""

import os
from functools import cached_property, partial
from mmap import mmap

import numpy as np

from ._extras import import_extra


class FileArray:
    """An array in a file, which is opened anew in each process that reads it.

    Parameters
    ----------
    open_array : callable
        Takes nothing and returns the array. It must be picklable.
    array : array, default=None
        The array that was opened already.
    """

    def __init__(self, open_array, array=None):
        self.open_array = open_array
        if array is not None:
            self._array = array
        self.shape, self.dtype = tuple(self._array.shape), np.dtype(self._array.dtype)

    @cached_property
    def _array(self):
        return self.open_array()

    @property
    def ndim(self):
        return len(self.shape)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        return np.asarray(self._array[key])

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_array"}


def by_name(array):
    """Return an array by the name of its file; one that lies in memory as it is.

    Memory-mapped arrays, parts of them included, and HDF5 data sets would otherwise travel to other
    processes as a whole, or not at all. Zarr arrays travel by name by themselves.
    """
    if isinstance(array, np.ndarray):
        return _map_by_name(array)
    file = getattr(getattr(array, "file", None), "filename", None)
    if file is not None and os.path.isfile(file):
        return FileArray(partial(_open_hdf5, os.path.abspath(file), array.name), array)
    return array


def _map_by_name(array):
    base = array
    while isinstance(base, np.ndarray) and not isinstance(base.base, mmap):
        base = base.base
    # Changes to a copy on write are in no file.
    if not isinstance(base, np.memmap) or base.mode == "c" or not base.filename:
        return array
    file = os.path.abspath(base.filename)
    if not os.path.isfile(file):
        return array
    first, first_of_base = (a.__array_interface__["data"][0] for a in (array, base))
    layout = {"offset": first - first_of_base, "strides": array.strides}
    layout |= {"shape": array.shape, "dtype": array.dtype}
    return FileArray(partial(_open_map, file, base.offset, base.nbytes, layout), array)


def _open_map(file, offset, n_bytes, layout):
    return np.ndarray(buffer=np.memmap(file, np.uint8, "r", offset, n_bytes), **layout)


def _open_hdf5(file, name):
    return import_extra("h5py", "hdf5").File(file, "r")[name]
