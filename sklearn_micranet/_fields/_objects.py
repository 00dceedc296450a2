"""Objects that several windows show, put together into objects of the field."""

from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from ._grid import blocks_of

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
            square for square in blocks_of(grid.shape, block_size) if len(self._shown_in(square))
        ]
        self.table = self._measure()

    @property
    def squares(self):
        """Parts of the field that may hold objects: first and end row, first and end column."""
        return self._squares

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
    # Windows that share pixels or a border are at most `size` apart.
    pairs = KDTree(corners).query_pairs(grid.size, p=np.inf) if len(corners) > 1 else ()
    for i, j in sorted(pairs):
        edges += [
            (starts[i] + a, starts[j] + b)
            for a, b in _near(windows[i].pieces, windows[j].pieces)
            if _are_same(windows[i].pieces[a], windows[j].pieces[b], corners[[i, j]], grid)
        ]
    n = starts[-1]
    rows, columns = np.reshape(edges, (-1, 2)).astype(int).T
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n, n))
    labels = connected_components(graph, directed=False)[1] if n else np.empty(0, dtype=int)
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    labels = np.argsort(np.argsort(first))[labels]  # numbered as they come
    return np.split(labels, starts[1:-1]) if len(windows) else []


def _near(pieces, others):
    """Return the indices of pieces of one map whose bounding boxes overlap or touch."""
    (k, first, end), (other_k, other_first, other_end) = (
        (np.array([piece.map_index for piece in of]), *np.stack([_bounds(p) for p in of], axis=1))
        for of in (pieces, others)
    )
    near = (first[:, np.newaxis] <= other_end) & (other_first <= end[:, np.newaxis])
    return np.argwhere(near.all(axis=2) & (k[:, np.newaxis] == other_k)).tolist()


def _are_same(one, other, corners, grid):
    common = corners.max(axis=0), corners.min(axis=0) + grid.size  # first and end, px
    if (common[0] < common[1]).all():
        shared = _n_pixels(one, *common, other)
        smaller = min(_n_pixels(one, *common), _n_pixels(other, *common))
        return shared > 0 and shared >= _SAME * smaller
    return grid.step == grid.size and any(  # by an edge or a corner
        _n_pixels(one._replace(first=tuple(np.add(one.first, shift))), *_bounds(other), other)
        for shift in product((-1, 0, 1), repeat=2)
    )


def _bounds(piece):
    return np.array(piece.first), np.add(piece.first, piece.mask.shape)


def _n_pixels(piece, first, end, other=None):
    """Return the number of pixels of a piece, or common to two, in a part of the field."""
    for low, high in map(_bounds, (piece,) if other is None else (piece, other)):
        first, end = np.maximum(first, low), np.minimum(end, high)
    if (first >= end).any():
        return 0

    def part(of):
        return of.mask[tuple(map(slice, first - of.first, end - of.first))]

    return np.count_nonzero(part(piece) if other is None else part(piece) & part(other))
