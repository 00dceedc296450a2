"""What the generators of synthetic images draw with: textures and irregular outlines."""

import numpy as np
from scipy.fft import irfft2, rfft2
from sklearn.utils import check_random_state

HARMONICS = np.arange(2, 5)  # of an irregular outline; the first would only move it
RING_WIDTH = 0.05  # cycles per px


def draw_entropy(random_state):
    """Return entropy for :class:`numpy.random.SeedSequence`, which advances `random_state`."""
    return check_random_state(random_state).randint(2**31, size=4, dtype=np.int64).tolist()


def frequencies(size):
    """Return the radius (cycles per px) and angle (rad) of the frequencies of a real square image.

    Both are of shape (size, size // 2 + 1), as :func:`scipy.fft.rfft2` orders them. The angle is
    that from the columns' axis to the rows' axis.
    """
    rows, columns = np.fft.fftfreq(size)[:, np.newaxis], np.fft.rfftfreq(size)
    return np.hypot(rows, columns), np.arctan2(rows, columns)


def ring(radius, peak):
    """Return the transfer function that passes frequencies near `peak`, in all directions."""
    return np.exp(-(((radius - peak) / RING_WIDTH) ** 2))


def beam(angle, direction, width):
    """Return the transfer function that passes waves along one direction (rad)."""
    difference = (angle - direction + np.pi / 2) % np.pi - np.pi / 2  # waves have no sign
    return np.exp(-((difference / width) ** 2))


def draw_texture(rng, transfer):
    """Return a square of filtered Gaussian noise, of zero mean and unit variance."""
    size = len(transfer)
    spectrum = rfft2(rng.standard_normal((size, size))) * transfer
    return standardised(irfft2(spectrum, s=(size, size)))


def standardised(texture):
    """Return the texture shifted and scaled to zero mean and unit variance."""
    return (texture - texture.mean()) / texture.std()


def draw_waves(rng, largest):
    """Return amplitudes, up to `largest`, and phases of the harmonics of an irregular outline."""
    n_waves = len(HARMONICS)
    return rng.uniform(0, largest, n_waves), rng.uniform(0, 2 * np.pi, n_waves)


def relative_radius(angle, waves):
    """Return the radius of an irregular outline at some angles (rad), in units of its mean."""
    amplitudes, phases = waves
    return 1 + np.cos(np.multiply.outer(angle, HARMONICS) + phases) @ amplitudes


def irregular_disc(shape, centre, radius, waves):
    """Return by how much each pixel lies inside an irregular outline, px, negative outside.

    It is measured along the ray from the centre, which is exact where it is zero, on the outline.
    """
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    rows, columns = rows - centre[0], columns - centre[1]
    return radius * relative_radius(np.arctan2(rows, columns), waves) - np.hypot(rows, columns)
