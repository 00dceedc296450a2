"""Objects that several windows show, put together into objects of the field."""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from ._grid import blocks_of

_N_DRAWN = 64  # windows in memory
_SAME = 0.5  # share of the smaller object, in what both windows show


class Piece(NamedTuple):
    """An object as one window shows it."""

    map_index: int
    first: tuple  # row and column of the first pixel of `mask` in the field
    mask: np.ndarray  # bool, of the size of its bounding box


class Window(NamedTuple):
    """What one window shows."""

    corner: tuple  # first row and column, px
    scores: np.ndarray  # of shape (n_maps,)
    pieces: list


def pieces_of(instances, corner, shape):
    """Return the objects of a window, without what lies beyond the border of the field.

    Parameters
    ----------
    instances : int ndarray of shape (n_maps, size, size)
    corner : tuple (row, column)
        First pixel of the window in the field.
    shape : tuple (height, width)
        Of the field.
    """
    instances = instances[:, : shape[0] - corner[0], : shape[1] - corner[1]]
    pieces = []
    for k, labels in enumerate(instances):
        for i, place in enumerate(ndimage.find_objects(labels)):
            if place is not None:
                first = tuple(c + part.start for c, part in zip(corner, place, strict=True))
                pieces.append(Piece(k, first, labels[place] == i + 1))
    return pieces


class FieldObjects:
    """The objects of a field, from the windows that show them.

    Pieces of two windows are the same object if they share at least half of the smaller one, in
    what both windows show; on a grid without overlap, if they touch. Each pixel is taken from the
    window whose centre is nearest, of those that show an object of the class: so that an object is
    cut by the border of a window only if no other window goes on.

    Parameters
    ----------
    windows : list of Window
        In row-major order.
    grid : WindowGrid
    n_maps : int
    block_size : int
        Side of the squares that are worked on at a time, px.

    Attributes
    ----------
    table : ndarray of shape (n_objects, 5)
        Map index, row and column of the centroid (px), score and area (px) of each object. The
        score is the largest one of the windows that show it.
    """

    def __init__(self, windows, grid, n_maps, block_size):
        self.windows = [window for window in windows if window.pieces]
        self.size, self.n_maps = grid.size, n_maps
        self._corners = np.reshape([w.corner for w in self.windows], (-1, 2)).astype(np.int64)
        self._components = _components(self.windows, self._corners, grid)
        self._squares = [
            square for square in blocks_of(grid.shape, block_size) if self.shows(square)
        ]
        self.table = self._measure()

    @property
    def squares(self):
        """Parts of the field that may hold objects: first and end row, first and end column."""
        return self._squares

    @property
    def n_objects(self):
        """Number of objects of each map."""
        return np.bincount(self.table[:, 0].astype(int), minlength=self.n_maps)

    def shows(self, square):
        """Whether a part of the field may hold objects."""
        return len(self._shown_in(square)) > 0

    def paint(self, square):
        """Return the instances in a part of the field, int32 of shape (n_maps, height, width).

        The objects of each map are numbered from 1 on, in the order of their windows.
        """
        return self._numbers[self._paint(square)]

    def _shown_in(self, square):
        firsts, ends = np.array(square[::2]), np.array(square[1::2])
        corners = self._corners
        return np.flatnonzero(((corners < ends) & (corners + self.size > firsts)).all(axis=1))

    def _paint(self, square):
        """Return 1 + the component of each pixel, 0 where there is none."""
        firsts, ends = np.array(square[::2]), np.array(square[1::2])
        painted = np.zeros((self.n_maps, *(ends - firsts)), dtype=np.int64)
        nearest = np.full(painted.shape, np.inf)
        for i in self._shown_in(square):
            window, corner = self.windows[i], self._corners[i]
            start, stop = np.maximum(corner, firsts), np.minimum(corner + self.size, ends)
            rows, columns = map(np.arange, start, stop)
            to_row, to_column = (
                np.abs(along - c - (self.size - 1) / 2)
                for along, c in zip((rows, columns), corner, strict=True)
            )
            distance = np.maximum(to_row[:, np.newaxis], to_column)
            inside = tuple(map(slice, start - firsts, stop - firsts))
            for k in {piece.map_index for piece in window.pieces}:
                labels = np.zeros(distance.shape, dtype=np.int64)
                for piece, component in zip(window.pieces, self._components[i], strict=True):
                    if piece.map_index == k:
                        _draw(labels, start, piece, component + 1)
                nearer = distance < nearest[k][inside]
                nearest[k][inside][nearer] = distance[nearer]
                painted[k][inside][nearer] = labels[nearer]
        return painted

    def _measure(self):
        """Return the table of the components that have a pixel, and remember their numbers."""
        n = 1 + max((int(c.max()) + 1 for c in self._components), default=0)
        sums = np.zeros((n, 3))  # number of pixels, sums of rows and columns
        for square in self._squares:
            painted = self._paint(square)
            k, rows, columns = np.nonzero(painted)
            found = painted[k, rows, columns]
            for j, values in enumerate((None, rows + square[0], columns + square[2])):
                sums[:, j] += np.bincount(found, values, n)
        of_map, scores = np.zeros(n, dtype=int), np.zeros(n)
        for window, components in zip(self.windows, self._components, strict=True):
            for piece, c in zip(window.pieces, components + 1, strict=True):
                of_map[c] = piece.map_index
                scores[c] = max(scores[c], window.scores[piece.map_index])
        kept = np.flatnonzero(sums[:, 0])
        kept = kept[np.argsort(of_map[kept], kind="stable")]
        self._numbers = np.zeros(n, dtype=np.int32)
        for k in range(self.n_maps):
            of_class = kept[of_map[kept] == k]
            self._numbers[of_class] = np.arange(1, len(of_class) + 1)
        areas = sums[kept, 0]
        centres = sums[kept, 1:] / areas[:, np.newaxis]
        return np.column_stack([of_map[kept], centres, scores[kept], areas])


def _draw(labels, start, piece, value):
    """Write a value where a piece is, into an array that starts at `start` of the field."""
    low = np.maximum(piece.first, start)
    high = np.minimum(np.add(piece.first, piece.mask.shape), start + labels.shape)
    if (low < high).all():
        part = labels[tuple(map(slice, low - start, high - start))]
        part[piece.mask[tuple(map(slice, low - piece.first, high - piece.first))]] = value


def _components(windows, corners, grid):
    """Return which object each piece belongs to, one array of int per window."""
    n_pieces = [len(window.pieces) for window in windows]
    starts = np.cumsum([0, *n_pieces])
    edges = []

    @lru_cache(_N_DRAWN)
    def drawn(i, k):
        """Draw the pieces of one map of a window, with one pixel around it."""
        labels = np.zeros((grid.size + 2, grid.size + 2), dtype=np.int32)
        for number, piece in enumerate(windows[i].pieces, start=1):
            if piece.map_index == k:
                _draw(labels, corners[i] - 1, piece, number)
        return labels

    # Windows that share pixels or a border are at most `size` apart.
    pairs = KDTree(corners).query_pairs(grid.size, p=np.inf) if len(corners) > 1 else ()
    maps = [{piece.map_index for piece in window.pieces} for window in windows]
    touching = grid.step == grid.size
    for i, j in sorted(pairs):
        first = corners[[i, j]].max(axis=0) - touching  # of what both show, px
        end = corners[[i, j]].min(axis=0) + grid.size + touching
        for k in maps[i] & maps[j] if (first < end).all() else ():
            common = [
                drawn(w, k)[tuple(map(slice, first - corners[w] + 1, end - corners[w] + 1))]
                for w in (i, j)
            ]
            found = (_touching if touching else _sharing)(*common)
            edges += [(starts[i] + a, starts[j] + b) for a, b in found]
    n = starts[-1]
    rows, columns = np.reshape(edges, (-1, 2)).astype(int).T
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n, n))
    labels = connected_components(graph, directed=False)[1] if n else np.empty(0, dtype=int)
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    labels = np.argsort(np.argsort(first))[labels]  # numbered as they come
    return np.split(labels, starts[1:-1]) if len(windows) else []


def _sharing(labels, others):
    """Return the indices of labels that share enough of the smaller one."""
    n, n_others = np.bincount(labels.ravel()), np.bincount(others.ravel())
    codes = labels.astype(np.int64) * len(n_others) + others
    found, n_shared = np.unique(codes[(labels > 0) & (others > 0)], return_counts=True)
    a, b = np.divmod(found, len(n_others))
    enough = n_shared >= _SAME * np.minimum(n[a], n_others[b])
    return np.column_stack([a, b])[enough] - 1


def _touching(labels, others):
    """Return the indices of labels that share an edge or a corner."""
    around = np.pad(others, 1)
    height, width = labels.shape
    touching = set()
    for row, column in product(range(3), repeat=2):
        shifted = around[row : row + height, column : column + width]
        both = (labels > 0) & (shifted > 0)
        touching |= set(zip(labels[both].tolist(), shifted[both].tolist(), strict=True))
    return [(a - 1, b - 1) for a, b in touching]
