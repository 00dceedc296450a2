"""From how much of an image a class is present in it."""

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
