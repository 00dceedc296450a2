"""Outlines along pixel edges, and the pixels inside outlines.

Coordinates are (x, y) of pixel corners, px: the pixel in row r and column c covers the square from
(c, r) to (c + 1, r + 1). QuPath, and ImageJ for areas, count in the same way.
"""

import numpy as np
from scipy import ndimage

# Steps to the right, down, left and up, so that the object lies to the right of each edge.
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])


def trace_outlines(mask):
    """Return the outlines of a mask as polygons with holes.

    There is one polygon per piece, and pixels that touch in a corner only are two pieces. No ring
    touches itself, so that the polygons are valid for the Open Geospatial Consortium's rules.

    Parameters
    ----------
    mask : bool ndarray of shape (height, width)

    Returns
    -------
    polygons : list of list of int64 ndarray of shape (n_corners, 2)
        The outer ring of each polygon, then its holes: (x, y) of the corners, the first not
        repeated at the end. The signed area (shoelace formula) of outer rings is positive, that of
        holes negative.
    """
    pieces, _ = ndimage.label(mask)  # 4-connected
    polygons = []
    for number, place in enumerate(ndimage.find_objects(pieces), start=1):
        offset = (place[1].start, place[0].start)
        rings = [ring + offset for ring in _trace_piece(pieces[place] == number)]
        polygons.append(sorted(rings, key=signed_area, reverse=True))
    return polygons


def signed_area(ring):
    """Return the area inside a ring, negative for a hole, by the shoelace formula; px²."""
    x, y = ring[:, 0], ring[:, 1]
    return (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _trace_piece(piece):
    """Return the rings around one 4-connected piece, and around its holes."""
    padded = np.pad(piece, 1)
    object_, above, left = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]
    diagonal = padded[:-1, :-1]
    # Of each corner of a pixel: whether an edge leaves it to the right, down, left and up.
    leaves = np.array([object_ & ~above, left & ~object_, diagonal & ~left, above & ~diagonal])
    directions, ys, xs = np.nonzero(leaves)
    ends_x, ends_y = xs + _STEPS[directions, 0], ys + _STEPS[directions, 1]
    turns = np.full(len(directions), -1)
    # Where pixels touch in a corner, the left turn keeps the background apart: because the piece
    # is 4-connected, its ring then passes no corner twice.
    for turn in (1, 0, -1):
        onward = leaves[(directions + turn) % 4, ends_y, ends_x]
        turns = np.where(onward, turn, turns)
    onward = (directions + turns) % 4
    index = np.zeros(leaves.shape, np.int64)
    index[directions, ys, xs] = np.arange(len(directions))
    following = index[onward, ends_y, ends_x].tolist()
    bends = (turns != 0).tolist()
    ends = np.column_stack([ends_x, ends_y])

    rings, seen = [], bytearray(len(following))
    for start in range(len(following)):
        corners, edge = [], start
        while not seen[edge]:
            seen[edge] = True
            if bends[edge]:
                corners.append(edge)
            edge = following[edge]
        if corners:
            rings.append(ends[corners])
    return rings


def fill_outlines(rings, shape):
    """Return the pixels whose centre lies inside the rings by the even-odd rule.

    A centre exactly on an outline belongs to the area to its right, or below it: of two areas that
    share an edge, exactly one gets it.

    Parameters
    ----------
    rings : sequence of array-like of shape (n_corners, 2)
        (x, y) of the corners, px; closed whether or not the first corner is repeated.
    shape : tuple (height, width)
        What lies outside is cut off.

    Returns
    -------
    place : tuple of two slices
        Rows and columns that the rings reach, within `shape`.
    mask : bool ndarray
        The pixels inside, of the size of `place`.
    """
    rings = [np.asarray(ring, dtype=float).reshape(-1, 2) for ring in rings]
    corners = np.concatenate(rings)
    limits = np.array(shape[::-1])
    first = np.clip(np.floor(corners.min(axis=0)), 0, limits).astype(np.int64)
    end = np.clip(np.ceil(corners.max(axis=0)), first, limits).astype(np.int64)
    width, height = end - first
    starts = corners - first
    stops = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]) - first

    # Each edge flips, in each row whose centre it crosses, all the pixels to its right.
    upper, lower = np.sort([starts[:, 1], stops[:, 1]], axis=0)
    first_rows, end_rows = (
        np.clip(np.ceil(y - 0.5), 0, height).astype(int) for y in (upper, lower)
    )
    n_rows = np.maximum(end_rows - first_rows, 0)
    edges = np.repeat(np.arange(len(starts)), n_rows)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows) + first_rows[edges]
    (x0, y0), (x1, y1) = starts[edges].T, stops[edges].T
    crossings = x0 + (rows + 0.5 - y0) / (y1 - y0) * (x1 - x0)
    columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)
    flips = np.zeros((height, width + 1), np.int64)
    np.add.at(flips, (rows, columns), 1)
    place = (slice(first[1], end[1]), slice(first[0], end[0]))
    return place, np.cumsum(flips, axis=1)[:, :-1] % 2 == 1
