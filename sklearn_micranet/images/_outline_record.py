"""What is read of one object in a file of outlines."""

from typing import NamedTuple

import numpy as np

# Colours of the classes, which colour-blind people can tell apart.
# Okabe and Ito, "Color universal design", https://jfly.uni-koeln.de/color/
COLORS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


class Outline(NamedTuple):
    """One object or set of points in a file.

    Attributes
    ----------
    name : str
        For errors.
    label : str or None
        Of its class.
    number : int or None
    rings : list of ndarray of shape (n_corners, 2)
        (x, y) of pixel corners, px; inside and outside by the even-odd rule. Empty for points.
    points : ndarray of shape (n_points, 2)
        Row and column, px; the centre of the top-left pixel is (0, 0).
    class_index : int or None
        Place of the class among all, where the file says so.
    """

    name: str
    label: str | None
    number: int | None
    rings: list
    points: np.ndarray
    class_index: int | None = None
