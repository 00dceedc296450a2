"""Stacks of segments that know their objects."""

from operator import itemgetter

import numpy as np

from sklearn_micranet._stack._lazy_stack import LazyStack

PIXEL = np.dtype([("value", np.float32), ("instance", np.int32)])


class SegmentStack(LazyStack):
    """Stack of segments that also tells where one object ends and the next, touching one begins.

    Parameters
    ----------
    pixels : LazyStack
        Samples of dtype `PIXEL`. Both parts of a sample are computed once.
    """

    def __init__(self, pixels):
        values = _part(pixels, "value")
        super().__init__(
            pixels,
            values.function,
            item_shape=values.item_shape,
            dtype=values.dtype,
            batch_size=values.batch_size,
        )

    @property
    def instances(self):
        """The instances of the samples, 0 where the segments are: a LazyStack of int32."""
        return _part(self.source[self._indices], "instance")


def _part(pixels, name):
    return pixels.map(itemgetter(name), item_shape=pixels.item_shape, dtype=PIXEL[name])
