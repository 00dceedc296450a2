"""The threshold with the best masks, from counts of pixels on levels."""

import numpy as np


def count_levels(values, inside):
    """Count the pixels, and those inside a mask, from each level up.

    A level is a value rounded up to a multiple of a power of two that suits the range. So levels
    may be rounded further, to suit the range of all images, as if they were the values themselves.
    """
    low, high = float(values.min()), float(values.max())
    levels, index = np.unique(_round_up(values, _spacing(high - low)), return_inverse=True)
    counts = [np.bincount(index), np.bincount(index, weights=inside)]
    # The last entry is for levels above the highest.
    n_pixels, n_inside = (np.append(np.cumsum(n[::-1])[::-1], 0) for n in counts)
    return low, high, levels, n_pixels, n_inside


def _spacing(extent):
    """Return the power of two that a range holds 2048 to 4096 times; 0 for no range."""
    return np.ldexp(1.0, np.frexp(extent)[1] - 12) if extent else 0.0


def _round_up(values, spacing):
    return np.ceil(values / spacing) * spacing if spacing else values


def best_threshold(pairs, n_present):
    """Return the threshold of a class with the largest mean intersection over union.

    Parameters
    ----------
    pairs : list of (n_true, low, high, levels, n_pixels, n_inside)
        For each image, the number of pixels of the mask, and what `count_levels` returns.
    n_present : int
        Number of images with a mask: these count whatever is predicted.
    """
    if not (pairs and n_present):
        return np.inf
    spacing = _spacing(max(pair[2] for pair in pairs) - min(pair[1] for pair in pairs))
    candidates = np.unique(np.concatenate([_round_up(pair[3], spacing) for pair in pairs]))
    total, n_scored = np.zeros(len(candidates)), np.full(len(candidates), n_present)
    for n_true, _, _, levels, n_pixels, n_inside in pairs:
        start = np.searchsorted(_round_up(levels, spacing), candidates)
        if n_true:
            total += n_inside[start] / (n_true + n_pixels[start] - n_inside[start])
        else:
            n_scored += n_pixels[start] > 0
    best = np.argmax(total / n_scored)
    if total[best] == 0:
        return np.inf
    if best == 0:
        return -np.inf
    # Halfway in the gap between two levels: values lie up to one spacing below their level.
    below, above = candidates[best - 1], candidates[best] - spacing
    halfway = below + (above - below) / 2
    return halfway if halfway < above else below  # rounded, it may be what lies above
