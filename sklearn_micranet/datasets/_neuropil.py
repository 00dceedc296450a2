"""A background like an electron micrograph of nervous tissue, the same in whatever window.

Every random number belongs to a place: noise comes in blocks with a seed of their own. All steps
after it are elementwise, or filters and searches that see the same neighbours in any window.
"""

import math

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

BLOCK = 256  # lattice points, the side of what is drawn at once

# Lattice constants, px. What varies slowly is computed on the coarse lattice.
COARSE, CELL, WARP, CHARGING = 2, 72, 48, 512
CELLS_AROUND = 6  # a window, in which the nearest two cells of all its pixels lie

# Grey levels of 255.
CYTOPLASM, CELL_SPREAD, CHARGING_SPREAD = 165, 16, 6
MEMBRANE_DEPTH, VESICLE_DEPTH, GRAIN_SPREAD = 85, 30, 11

MEMBRANE_WIDTH = 4.5  # px, from the middle to where it ends
WARP_LENGTH = 20  # px, standard deviation
DROPPED = -0.3  # cells whose normal number is below are dropped, so that others grow larger
VESICLE_LEVEL = 1.4  # standard deviations
VESICLE_SCALE, GRAIN_SCALE = 4, 1.1  # px, sigma

# The layers of noise, part of the seeds.
WHITE, GREY, KEPT, ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, VESICLES, CHARGE = range(9)


def draw_neuropil(entropy, rows, columns):
    """Return a window of the tissue and the white noise of the camera there.

    Parameters
    ----------
    entropy : list of int
        Of the whole field.
    rows, columns : (int, int)
        First and end of the window, px.

    Returns
    -------
    tissue : ndarray of shape (height, width), float32
        Grey levels of 255, which may lie outside [0, 255].
    white : ndarray of shape (height, width), float32
        Noise of zero mean and unit variance.
    """
    halo = _reach(GRAIN_SCALE)
    white = _noise(entropy, WHITE, _widened(rows, halo), _widened(columns, halo))
    grain = _blurred(white, GRAIN_SCALE, halo)
    white = white[halo:-halo, halo:-halo]
    coarse_rows, coarse_columns = _lattice(rows, COARSE), _lattice(columns, COARSE)
    grey, depth = _draw_cells(entropy, coarse_rows, coarse_columns)
    grey = _interpolated(grey, rows, columns, COARSE)
    depth = _interpolated(depth, rows, columns, COARSE)
    membrane = (1 - depth / MEMBRANE_WIDTH).clip(0, 1)
    return grey - MEMBRANE_DEPTH * membrane + GRAIN_SPREAD * grain, white


def _draw_cells(entropy, rows, columns):
    """Return grey level, and distance to the next membrane in px, at coarse lattice points."""
    points = np.stack(
        [
            _smooth_noise(entropy, WARP_ROWS, rows, columns, WARP // COARSE) * WARP_LENGTH,
            _smooth_noise(entropy, WARP_COLUMNS, rows, columns, WARP // COARSE) * WARP_LENGTH,
        ],
        axis=-1,
    ).clip(-4 * WARP_LENGTH, 4 * WARP_LENGTH)
    points[..., 0] += COARSE * np.arange(*rows)[:, np.newaxis]
    points[..., 1] += COARSE * np.arange(*columns)
    middles, greys = _draw_middles(entropy, rows, columns)
    distances, nearest = KDTree(middles).query(points, k=2)
    apart = np.linalg.norm(middles[nearest[..., 0]] - middles[nearest[..., 1]], axis=-1)
    depth = (distances[..., 1] ** 2 - distances[..., 0] ** 2) / (2 * apart)
    scale = VESICLE_SCALE / COARSE
    halo = _reach(scale)
    vesicles = _noise(entropy, VESICLES, _widened(rows, halo), _widened(columns, halo))
    vesicles = _blurred(vesicles, scale, halo)
    grey = CYTOPLASM + CELL_SPREAD * greys[nearest[..., 0]]
    grey -= VESICLE_DEPTH * (vesicles - VESICLE_LEVEL).clip(0, None)
    grey += CHARGING_SPREAD * _smooth_noise(entropy, CHARGE, rows, columns, CHARGING // COARSE)
    return grey.astype(np.float32), depth.astype(np.float32)


def _draw_middles(entropy, rows, columns):
    """Return middles (row, column) in px and normal numbers of the cells in and around a window."""
    window = [
        _widened(_lattice((first * COARSE, end * COARSE), CELL), CELLS_AROUND)
        for first, end in (rows, columns)
    ]
    grey, kept, *jitter = (_noise(entropy, n, *window) for n in (GREY, KEPT, ROWS, COLUMNS))
    places = np.stack(np.meshgrid(*(np.arange(*span) for span in window), indexing="ij"))
    middles = CELL * (places + (0.3 * np.stack(jitter)).clip(-0.5, 0.5))
    return np.moveaxis(middles, 0, -1)[kept > DROPPED], grey[kept > DROPPED]


def _noise(entropy, layer, rows, columns):
    """Return normal numbers at lattice points, of which the first may be -BLOCK."""
    noise = np.empty((rows[1] - rows[0], columns[1] - columns[0]), dtype=np.float32)
    for i in range(rows[0] // BLOCK, -(-rows[1] // BLOCK)):
        for j in range(columns[0] // BLOCK, -(-columns[1] // BLOCK)):
            seeds = np.random.SeedSequence(entropy, spawn_key=(layer, i + 1, j + 1))
            block = np.random.default_rng(seeds).standard_normal((BLOCK, BLOCK), dtype=np.float32)
            target, source = zip(_overlap(rows, i), _overlap(columns, j), strict=True)
            noise[target] = block[source]
    return noise


def _overlap(span, index):
    """Return where a block lies in a span of lattice points, and where the span in the block."""
    first, end = max(span[0], index * BLOCK), min(span[1], (index + 1) * BLOCK)
    return slice(first - span[0], end - span[0]), slice(first % BLOCK, (end - 1) % BLOCK + 1)


def _smooth_noise(entropy, layer, rows, columns, spacing):
    """Return noise of about unit variance that is smooth over some lattice points."""
    halo = _reach(1)
    window = [_widened(_lattice(span, spacing), halo) for span in (rows, columns)]
    noise = _blurred(_noise(entropy, layer, *window), 1, halo)
    return _interpolated(noise, rows, columns, spacing)


def _reach(sigma):
    """Return how far a Gaussian filter of SciPy reads."""
    return int(4 * sigma + 0.5)


def _blurred(noise, sigma, halo):
    """Return noise after a Gaussian filter, without the halo, again of about unit variance."""
    spread = 1 / (2 * math.sqrt(math.pi) * sigma)
    return gaussian_filter(noise, sigma)[halo:-halo, halo:-halo] / spread


def _lattice(span, spacing):
    """Return first and end of the lattice points that surround a span of pixels."""
    return span[0] // spacing, (span[1] - 1) // spacing + 2


def _widened(span, halo):
    return span[0] - halo, span[1] + halo


def _interpolated(values, rows, columns, spacing):
    """Return the values of a lattice at pixels, interpolated linearly."""
    for axis, span in enumerate((rows, columns)):
        index, rest = np.divmod(np.arange(*span), spacing)
        index -= span[0] // spacing
        weight = np.float32(rest / spacing)
        if axis == 0:
            weight = weight[:, np.newaxis]
        lower, upper = values.take(index, axis), values.take(index + 1, axis)
        values = lower + weight * (upper - lower)
    return values
