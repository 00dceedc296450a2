"""Images that show the same pixels, such as overlapping crops of one image."""

from itertools import islice

import numpy as np

from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet._stack._warnings import warn_user

_N_COMPARED = 256  # images in memory, the first ones: crops of one image follow each other
_MIN_VALUES = 32  # in what two images share: flat background is equal everywhere
_MIN_ROW_VALUES = 4  # in its first row, by which it is found
_MAX_COMPARED = 1000  # pairs of parts, of images whose rows are much alike

_PURPOSES = {
    "validation": (
        "set aside for validation",
        "the validation loss is too good, and early stopping comes too late",
    ),
    "tuning": (
        "held out to tune thresholds",
        "their probabilities are too sure, and thresholds fit what is known",
    ),
}


def warn_of_overlap(stack, train, held_out, purpose="validation"):
    """Warn if images that are held out show pixels of images to be trained on.

    Crops that are cut when read know where they come from. Of images in memory, neighbours in a
    grid of crops are found by their equal rows or columns.

    Parameters
    ----------
    stack : ndarray, LazyStack or list of ndarray
    train, held_out : array-like of int
        Indices of the two parts.
    purpose : {"validation", "tuning"}, default="validation"
        What the images are held out for.
    """
    if _overlap(stack, np.asarray(train), np.asarray(held_out)):
        held_out_for, consequence = _PURPOSES[purpose]
        others = ", or other images as X_val" if purpose == "validation" else ""
        warn_user(
            f"Images that are {held_out_for} show pixels that are trained on, as overlapping crops "
            f"of one image do: {consequence}. Pass groups, as extract_crops returns them, to keep "
            f"crops of one image together{others}."
        )


def apart_from(stack, train, held_out):
    """Return those of the images to train on that show no pixel of an image that is held out.

    Only crops that are cut when read tell; others are all returned.

    Parameters are those of `warn_of_overlap`.
    """
    cut = _cut_crops(stack)
    if cut is None or not len(held_out):
        return train
    share_pixels, positions = cut
    return train[~share_pixels(positions[held_out], positions[train])]


def _cut_crops(stack):
    """Return what tells of crops whether they share pixels, and their positions; None of others."""
    if not isinstance(stack, LazyStack):
        return None
    source = np.arange(len(stack))
    while isinstance(stack, LazyStack):
        source, function, stack = stack._indices[source], stack.function, stack.source
    return (function.share_pixels, stack[source]) if hasattr(function, "share_pixels") else None


def _overlap(stack, train, held_out):
    if isinstance(stack, LazyStack):
        cut = _cut_crops(stack)
        return cut is not None and cut[0](cut[1][train], cut[1][held_out]).any()
    if type(stack) is not np.ndarray or stack.ndim < 3:
        return False
    parts = [stack[part[part < _N_COMPARED]] for part in (train, held_out)]
    turned = [part.swapaxes(1, 2) for part in parts]
    return any(_continues(*pair) for pair in (parts, parts[::-1], turned, turned[::-1]))


def _continues(first, second):
    """Whether the lower part of one of the first images is the upper part of one of the second."""
    tops = {}
    for image in second:
        if len(np.unique(image[0])) >= _MIN_ROW_VALUES:
            tops.setdefault(image[0].tobytes(), []).append(image)
    candidates = (
        (image[row:], other)
        for image in first
        for row in range(1, len(image))
        for other in tops.get(image[row].tobytes(), ())
    )
    return any(
        np.array_equal(shared, other[: len(shared)]) and len(np.unique(shared)) >= _MIN_VALUES
        for shared, other in islice(candidates, _MAX_COMPARED)
    )
