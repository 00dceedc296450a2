import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import Memory, Parallel
from numpy.testing import assert_array_equal

from sklearn_micranet._fields._grid import WindowGrid
from sklearn_micranet._fields._scores import (
    cut_windows,
    exact_logits,
    shared_logits,
    sliding_maximum,
)
from sklearn_micranet.images import extract_crops


class Brightest:
    """Stands for a network: each 8 x 8 px have one feature, the largest pixel up to 3 px around."""

    halo = 8
    n_calls = 0

    def block_features(self, tile, block):
        Brightest.n_calls += 1
        n_rows, n_columns = ((n - 2 * self.halo) // block for n in tile.shape)
        features = np.empty((n_rows, n_columns, 1), dtype=np.float32)
        for i, j in np.ndindex(n_rows, n_columns):
            first_row, first_column = self.halo + i * block, self.halo + j * block
            rows = slice(first_row - 3, first_row + block + 3)
            columns = slice(first_column - 3, first_column + block + 3)
            features[i, j] = tile[rows, columns].max()
        return features

    def logits(self, features):
        return [2 * features + 1]


def swept(field, grid, tile_size, memory=None, n_jobs=1):
    with Parallel(n_jobs=n_jobs) as parallel:
        strips = shared_logits(
            field,
            grid,
            Brightest(),
            halo=8,
            tile_size=tile_size,
            parallel=parallel,
            memory=memory,
            key="network",
        )
        return np.concatenate([strip[0] for strip in strips])


@given(
    height=st.integers(16, 120),
    width=st.integers(16, 120),
    size=st.sampled_from([8, 16, 40]),
    step=st.sampled_from([8, 16, 24, 40]),
    tile_size=st.integers(1, 150),
)
@settings(deadline=None, max_examples=40)
def test_shared_logits_are_those_of_each_window(height, width, size, step, tile_size):
    field = np.random.default_rng(width).integers(0, 10**6, (height, width)).astype(np.float32)
    grid = WindowGrid(field.shape, size, min(step, size))
    found = swept(field, grid, tile_size)
    around = np.pad(field, ((3, 200), (3, 200)), "reflect")
    expected = [
        2 * around[row : row + size + 6, column : column + size + 6].max() + 1
        for row, column in map(grid.corner, range(found.size))
    ]
    assert found.shape == (*grid.n_windows, 1)
    assert_array_equal(found.ravel(), expected)


@given(height=st.integers(1, 70), width=st.integers(1, 70), size=st.integers(1, 40), data=st.data())
@settings(deadline=None, max_examples=40)
def test_windows_are_the_crops_of_extract_crops(height, width, size, data):
    step = data.draw(st.integers(1, size))
    field = np.random.default_rng(0).integers(0, 255, (height, width))
    crops = extract_crops([field], size=size, step=step)
    grid = WindowGrid(field.shape, size, step)
    indices = np.arange(np.prod(grid.n_windows))
    assert_array_equal([grid.corner(index) for index in indices], crops.positions[:, 1:])
    assert_array_equal(cut_windows(field, grid, indices[:20]), crops.images[:20])


def test_exact_logits_are_those_of_the_windows_in_batches():
    field = np.random.default_rng(0).random((40, 64, 3))
    grid = WindowGrid((40, 64), 16, 5)
    sizes = []

    def logits_of(windows):
        sizes.append(len(windows))
        return windows.mean(axis=(1, 2))

    with Parallel(n_jobs=1) as parallel:
        strips = list(exact_logits(field, grid, logits_of, n_at_once=4, parallel=parallel))
    found = np.concatenate([strip[0] for strip in strips])
    windows = cut_windows(field, grid, range(np.prod(grid.n_windows)))
    assert_array_equal(found.reshape(-1, 3), windows.mean(axis=(1, 2)))
    assert max(sizes) <= 4


def test_tiles_that_were_finished_are_not_computed_again(tmp_path):
    field = np.random.default_rng(0).random((64, 96)).astype(np.float32)
    grid = WindowGrid(field.shape, 32, 16)
    memory = Memory(tmp_path, verbose=0)
    expected = swept(field, grid, 32)
    n_tiles = 2 * 3
    Brightest.n_calls = 0
    for _ in range(2):
        assert_array_equal(swept(field, grid, 32, memory), expected)
        assert Brightest.n_calls == n_tiles
    field[0, 0] += 1  # which only the first tile sees
    swept(field, grid, 32, memory)
    assert Brightest.n_calls == n_tiles + 1


def test_an_empty_tile_is_computed_for_one_block():
    class Shape(Brightest):
        def block_features(self, tile, block):
            sides.append(tile.shape)
            return super().block_features(tile, block)

    sides = []
    field = np.zeros((64, 96), dtype=np.float32)
    field[:, 70:] = np.arange(26)
    grid = WindowGrid(field.shape, 16, 8)
    with Parallel(n_jobs=1) as parallel:
        tiles = {"halo": 8, "tile_size": 32, "parallel": parallel}
        strips = [strip[0] for strip in shared_logits(field, grid, Shape(), **tiles)]
    around = np.pad(field, 3, "reflect")
    expected = [
        2 * around[row : row + 22, column : column + 22].max() + 1
        for row, column in map(grid.corner, range(7 * 11))
    ]
    assert_array_equal(np.concatenate(strips).ravel(), expected)
    assert sides == [(24, 24), (48, 48), (48, 48)] * 2


def test_sliding_maximum():
    features = np.arange(12).reshape(3, 4, 1)[::-1]
    found = sliding_maximum(features, 2, 1, (2, 3))
    assert_array_equal(found[..., 0], [[9, 10, 11], [5, 6, 7]])
    assert_array_equal(sliding_maximum(features, 2, 2, (1, 2))[..., 0], [[9, 11]])
