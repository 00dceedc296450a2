"""Logits of all windows of a field, from one pass over its tiles."""

from itertools import islice
from math import ceil

import numpy as np
from joblib import delayed

from sklearn_micranet._stack._kept import kept
from sklearn_micranet._stack._keys import key_of, key_of_array

from ._sources import read_block


class Shared:
    """What all tasks of a sweep have in common, such as the weights.

    Engines that send large arguments once per worker, as Dask's does, ask for the size of an
    object, and count of an instance its few attributes only. This one says that it is large.
    """

    def __init__(self, *values):
        self.values = values

    def __iter__(self):
        return iter(self.values)

    def __sizeof__(self):
        return 2**20


def shared_logits(field, grid, networks, *, halo, tile_size, parallel, memory=None, key=None):
    """Yield the logits of windows, rows of them at a time, from features computed once per pixel.

    Memory grows with the width of the field, not with its height.

    Parameters
    ----------
    field : array of shape (height, width[, n_channels])
    grid : WindowGrid
    networks : object
        Its ``block_features(tile, block)`` returns an array (n_rows, n_columns, n_features), and
        ``logits(features)`` a list of arrays, as those of `WindowNetworks`.
    halo : int
        Number of px around a tile that its features depend on.
    tile_size : int
        Side of a tile without its halo, px.
    parallel : joblib.Parallel
        It is called once, as weights travel once in each call; better with
        ``return_as="generator"``.
    memory, key : object, str
        Where the features of finished tiles are kept, and what they depend on besides pixels.

    Yields
    ------
    logits : list of ndarray of shape (n_rows, n_columns, n_outputs)
        Of each network.
    """
    n_rows, n_columns = grid.n_windows
    length, stride = grid.size // grid.block, grid.step // grid.block  # blocks
    features, first, done = None, 0, 0  # block rows in hand, the first of them, finished windows
    rows, shared = list(grid.rows_of_tiles(tile_size)), Shared(field, networks)
    parts = iter(
        parallel(
            delayed(_tile_features)(shared, tile, grid.block, halo, memory, key)
            for tiles in rows
            for tile in tiles
        )
    )
    for tiles in rows:
        strip = np.concatenate(list(islice(parts, len(tiles))), axis=1)
        features = strip if features is None else np.concatenate([features, strip])
        ready = min(n_rows, (first + len(features) - length) // stride + 1)
        if ready > done:
            start = done * stride - first
            maxima = sliding_maximum(features[start:], length, stride, (ready - done, n_columns))
            logits = networks.logits(maxima.reshape(-1, maxima.shape[-1]))
            yield [of_net.reshape(ready - done, n_columns, -1) for of_net in logits]
            done = ready
            n_dropped = min(done * stride - first, len(features))
            features, first = features[n_dropped:].copy(), first + n_dropped


def _tile_features(shared, tile, block, halo, memory, key):
    field, networks = shared
    first_row, end_row, first_column, end_column = tile
    around = first_row - halo, end_row + halo, first_column - halo, end_column + halo
    pixels = read_block(field, *around)

    def compute():
        if (pixels == pixels[0, 0]).all():  # as where a store is empty: all blocks are alike
            side = block + 2 * halo
            one = networks.block_features(pixels[:side, :side], block)
            shape = (end_row - first_row) // block, (end_column - first_column) // block
            return np.tile(one, (*shape, 1))
        return networks.block_features(pixels, block)

    if memory is None:
        return compute()
    return kept(memory, key_of("tile", key, key_of_array(pixels), block), compute)


def sliding_maximum(features, length, stride, n_windows):
    """Return the maxima over windows of (n_rows, n_columns, n_features).

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_columns, n_features)
    length, stride : int
        Side of a window and distance of neighbours, in rows or columns.
    n_windows : tuple of int
        Number of rows and columns of windows.

    Returns
    -------
    maxima : ndarray of shape (*n_windows, n_features)
    """
    for axis, n in enumerate(n_windows):
        features = np.moveaxis(features, axis, 0)
        ends = stride * (n - 1) + 1
        maxima = features[:ends:stride].copy()
        for offset in range(1, length):
            np.maximum(maxima, features[offset : offset + ends : stride], out=maxima)
        features = np.moveaxis(maxima, 0, axis)
    return features


def exact_logits(field, grid, logits_of, *, n_at_once, parallel, memory=None, key=None):
    """Yield the logits of windows that are cut out one by one, as `shared_logits` does.

    Parameters
    ----------
    logits_of : callable
        Maps windows (n_windows, size, size[, n_channels]) to logits (n_windows, n_outputs).
    n_at_once : int
        Number of windows in memory at a time, for each job.
    """
    n_rows, n_columns = grid.n_windows
    n_batches, shared = ceil(n_columns / n_at_once), Shared(field, logits_of)
    rows = np.arange(n_rows * n_columns).reshape(n_rows, n_columns)
    parts = iter(
        parallel(
            delayed(_window_logits)(shared, grid, batch, memory, key)
            for row in rows
            for batch in np.array_split(row, n_batches)
        )
    )
    for _ in rows:
        yield [np.concatenate(list(islice(parts, n_batches)))[np.newaxis]]


def _window_logits(shared, grid, indices, memory, key):
    field, logits_of = shared
    windows = cut_windows(field, grid, indices)
    if memory is None:
        return logits_of(windows)
    return kept(memory, key_of("windows", key, key_of_array(windows)), lambda: logits_of(windows))


def cut_windows(field, grid, indices):
    """Return windows by their places in row-major order, (n_windows, size, size[, n_channels])."""
    corners = [grid.corner(index) for index in indices]
    return np.stack(
        [
            read_block(field, row, row + grid.size, column, column + grid.size)
            for row, column in corners
        ]
    )
