"""Arrays in files, and blocks of rows."""

import mmap
import os
import pickle
from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import ndimage

from sklearn_micranet._stack import _large_arrays
from sklearn_micranet._stack._large_arrays import blocks_of_rows, by_rows, extremes, let_go, zeros

RNG = np.random.default_rng(0)
ON_LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="Linux tells of pages")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_large_arrays, "MAX_BYTES", 1000)
    monkeypatch.setattr(_large_arrays, "N_VALUES_AT_ONCE", 200)


def is_in_file(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool])
def test_large_arrays_of_zeros_lie_in_a_file(small_blocks, dtype):
    n = 1000 // np.dtype(dtype).itemsize
    for shape, is_large in (((n,), False), ((1, n + 1), True), ((2, 0, 3), False)):
        array = zeros(shape, dtype)
        assert is_in_file(array) == is_large
        assert type(array) is np.ndarray
        assert (array.shape, array.dtype) == (shape, dtype)
        assert not array.any()


def test_values_outlive_their_pages(small_blocks):
    array, values = zeros((40, 30)), RNG.random((40, 30), dtype=np.float32)
    array[:] = values
    let_go(array[3:, 2])  # a part of it stands for the whole
    assert_array_equal(array, values)
    for copy in (array.copy(), deepcopy(array), pickle.loads(pickle.dumps(array))):
        assert not is_in_file(copy)
        assert_array_equal(copy, values)


@ON_LINUX
def test_pages_are_given_back(monkeypatch):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE

    monkeypatch.setattr(_large_arrays, "MAX_BYTES", 2**20)
    array = zeros((2**13, 2**10))  # 32 MiB
    before = resident()
    array[:] = 1
    assert resident() > before + array.nbytes / 2
    let_go(array)
    assert resident() < before + array.nbytes / 8


def test_private_changes_to_arrays_of_users_stay(tmp_path, small_blocks):
    path = tmp_path / "values.npy"
    np.save(path, np.zeros((40, 50)))
    array = np.load(path, mmap_mode="c")
    array[:] = 1
    for _ in blocks_of_rows(array):
        pass
    assert (array == 1).all()


@pytest.mark.parametrize("failing", ["TemporaryFile", "_File"])
def test_without_room_for_a_file_arrays_lie_in_memory(small_blocks, monkeypatch, failing):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_large_arrays, failing, fail)
    array = zeros((40, 50))
    assert not is_in_file(array)
    assert array.shape == (40, 50)


@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 300), (50, 3), (3, 29, 11), (2, 0, 4), (2, 3, 17, 5)]
)
def test_blocks_cover_each_row_once(small_blocks, shape):
    array = np.zeros(shape, dtype=int)
    for rows in blocks_of_rows(array):
        array[..., rows, :] += 1
        n_rows = rows.stop - rows.start
        assert n_rows <= 8 or array[..., :n_rows, :].size <= 200
        assert rows.start % 8 == 0
    assert (array == 1).all()


def test_a_small_array_is_one_block():
    assert list(blocks_of_rows(np.zeros((2, 512, 512)))) == [slice(0, 512)]


@pytest.mark.parametrize("shape", [(7, 20), (50, 30), (3, 290, 11)])
def test_results_by_rows_are_those_of_the_whole(small_blocks, shape):
    image = RNG.random(shape)

    def smooth(rows):
        return ndimage.gaussian_filter(image[..., rows, :], 1, truncate=3, axes=(-2, -1))

    found = by_rows(smooth, shape, image, halo=3)
    assert_array_equal(found, smooth(slice(None)))
    assert is_in_file(found) == (found.nbytes > 2000)
    sums = by_rows(lambda rows: image[..., rows, :].sum(axis=-1, keepdims=True), shape)
    assert_array_equal(sums, image.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes(small_blocks, dtype):
    values = RNG.standard_normal((57, 31)).astype(dtype)
    low, high = extremes(values)
    assert (low, high) == (values.min(), values.max())
    assert low.dtype == high.dtype == dtype
    values[40, 3] = np.nan
    assert np.isnan(extremes(values)).all()
