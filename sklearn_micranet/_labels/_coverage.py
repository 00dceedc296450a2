"""From how much of an image a class is present in it."""

import numpy as np

from sklearn_micranet._stack._warnings import warn_user

MIN_COVERAGE = 0.01


def is_covered(n_pixels, n_total, min_coverage=MIN_COVERAGE):
    """Return whether classes of so many pixels are present in images of `n_total` pixels.

    Parameters
    ----------
    n_pixels : ndarray of int
    n_total : int
    min_coverage : float in [0, 1], default=0.01
        Share of the image. Without a single pixel a class is never present.

    Returns
    -------
    is_covered : ndarray of bool
    """
    return (n_pixels > 0) & (n_pixels / n_total >= min_coverage)


def warn_of_small(is_present, has_pixels, of):
    """Warn if most masks of a class cover less than the default, which nobody has chosen.

    Parameters
    ----------
    is_present, has_pixels : ndarray of bool or int of shape (n_masks, n_classes)
    of : str
        What a mask covers a part of, for the warning.
    """
    n_present, n_drawn = np.sum(is_present, axis=0), np.sum(has_pixels, axis=0)
    k = int(np.argmax(n_drawn - n_present))
    if 2 * n_present[k] < n_drawn[k]:
        warn_user(
            f"{n_drawn[k] - n_present[k]} of {n_drawn[k]} masks of class {k} cover less than "
            f"min_coverage={MIN_COVERAGE:g} of their {of} and count as absent. Set min_coverage=0 "
            "if all are to count."
        )
