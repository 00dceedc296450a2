"""Images that show the same pixels, such as overlapping crops of one image."""

import numpy as np

from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet._stack._warnings import warn_user

_N_COMPARED = 256  # images in memory, the first ones: crops of one image follow each other
_MIN_VALUES = 32  # in what two images share: flat background is equal everywhere


def warn_of_overlap(stack, train, valid):
    """Warn if images to be monitored show pixels of images to be trained on.

    Crops that are cut when read know where they come from. Of images in memory, neighbours in a
    grid of crops are found by their equal rows or columns.

    Parameters
    ----------
    stack : ndarray, LazyStack or list of ndarray
    train, valid : ndarray of int
        Indices of the two parts.
    """
    if _overlap(stack, train, valid):
        warn_user(
            "Images that are set aside for validation show pixels that are trained on, as "
            "overlapping crops of one image do: the validation loss is too good, and early "
            "stopping comes too late. Pass groups, as extract_crops returns them, to keep crops "
            "of one image together, or other images as X_val."
        )


def _overlap(stack, train, valid):
    if isinstance(stack, LazyStack):
        source = np.arange(len(stack))
        while isinstance(stack, LazyStack):
            source, function, stack = stack._indices[source], stack.function, stack.source
        if not hasattr(function, "share_pixels"):
            return False
        return function.share_pixels(stack[source[train]], stack[source[valid]])
    if type(stack) is not np.ndarray or stack.ndim < 3:
        return False
    parts = [stack[part[part < _N_COMPARED]] for part in (train, valid)]
    turned = [part.swapaxes(1, 2) for part in parts]
    return any(_continues(*pair) for pair in (parts, parts[::-1], turned, turned[::-1]))


def _continues(first, second):
    """Whether the lower part of one of the first images is the upper part of one of the second."""
    tops = {}
    for image in second:
        tops.setdefault(image[0].tobytes(), []).append(image)
    for image in first:
        for row in range(1, len(image)):
            for other in tops.get(image[row].tobytes(), ()):
                shared = image[row:]
                is_same = np.array_equal(shared, other[: len(shared)])
                if is_same and len(np.unique(shared)) >= _MIN_VALUES:
                    return True
    return False
