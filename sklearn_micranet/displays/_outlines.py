"""Outlines that lie between the pixels inside and those outside."""

import numpy as np
from sklearn.utils import check_array

from ._axes import dark_casing

LINE_WIDTH = 1.2  # points


def outline_segments(labels):
    """Return the outlines of a mask or of instances as straight lines along pixel edges.

    Instances that touch have a line between them. An object at the border of the image is
    outlined there, too.

    Parameters
    ----------
    labels : ndarray of shape (height, width), bool or int
        0 or False is background.

    Returns
    -------
    segments : float ndarray of shape (n_segments, 2, 2)
        Two points (x, y) each, px: (-0.5, -0.5) is the top left corner of the image.
    """
    across = _straight_edges(labels)
    down = _straight_edges(labels.T)[..., ::-1]
    return np.concatenate([across, down])


def _straight_edges(labels):
    """Return the horizontal outlines, each as long as it is straight."""
    above_and_below = np.pad(labels, ((1, 1), (0, 0)))
    is_edge = above_and_below[:-1] != above_and_below[1:]
    changes = np.diff(np.pad(is_edge, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, stops = np.argwhere(changes == 1), np.argwhere(changes == -1)  # (row, column)
    return np.stack([starts, stops], axis=1)[..., ::-1] - 0.5


def draw_outlines(ax, labels, colour):
    """Draw the outlines of a mask or of instances, and return their PathPatch.

    All lines are one path, because the dark casing of a line must not lie over another line.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points = outline_segments(labels).reshape(-1, 2)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(points) // 2)
    outlines = PathPatch(
        Path(points, codes),
        fill=False,
        edgecolor=colour,
        linewidth=LINE_WIDTH,
        capstyle="projecting",  # closes the corners
        path_effects=dark_casing(LINE_WIDTH),
    )
    return ax.add_artist(outlines)


def check_objects(masks, name, image_size):
    """Return the masks or instances of one image, of shape (n_maps, height, width).

    Parameters
    ----------
    masks : array-like
        Bool masks, 0/1 numbers (segments are nonzero inside), or integer instances.
    name : str
        What error messages call them.
    image_size : tuple of int
        Height and width of the image.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.shape[1:] != tuple(image_size) or len(masks) == 0:
        raise ValueError(
            f"{name} of an image must have shape (n_maps, height, width), here (n_maps, "
            f"{image_size[0]}, {image_size[1]}). Got {masks.shape} instead. The masks of a single "
            "class need an axis for it: masks[:, np.newaxis] of all images."
        )
    check_array(masks.reshape(len(masks), -1), ensure_min_samples=1, input_name=name)
    return masks if masks.dtype.kind in "bui" else masks != 0
