"""Stacks that must not be read, and arrays that are not in memory."""

import numpy as np

from sklearn_micranet._stack._lazy_stack import LazyStack


def refuse(batch):
    raise AssertionError("A sample was read.")


def unread(shape=(3, 2, 4, 5)):
    return LazyStack(np.zeros(shape), refuse, item_shape=shape[1:])


def unread_ragged():
    return LazyStack([np.zeros((2, 4, 5)), np.zeros((2, 6, 7))], refuse, item_shape=None)


def objects(*arrays):
    array = np.empty(len(arrays), dtype=object)
    array[:] = arrays
    return array


class OnDisk:
    """What HDF5 and Zarr arrays have in common."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.ndim = array.ndim

    def __len__(self):
        return len(self.array)

    def __getitem__(self, key):
        return self.array[key]
