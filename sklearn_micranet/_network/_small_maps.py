"""Local maps at the resolution of their layers, upsampled to the image where they are read.

All maps of a large image at its full size take more memory than all that is made of them: of two
classes of an image of 4096 x 4096 px 1 GiB, and a third of that at the resolution of each layer.
"""

from typing import NamedTuple

import numpy as np

from sklearn_micranet._stack._large_arrays import extremes, let_go
from sklearn_micranet._stack._lazy_stack import LazyStack


class SmallMaps(NamedTuple):
    """The local maps of one image at the resolution of each layer; arrays of float32."""

    classes: np.ndarray  # of shape (n_explained,): which classes they are of
    layers: list  # for each layer (n_explained, height, width)
    image: np.ndarray | None  # of shape (height, width), where it travels before the layers
    size: tuple  # height and width of the image, in px
    padded_size: tuple  # the same of what the network has read


class MapsOfClass:
    """The local maps of one class of one image.

    Parameters
    ----------
    layers : list of (ndarray, int, low, spread)
        For each layer the map, how many px of the image, in height and width, one of its pixels
        covers, and what is subtracted from it before it is divided.
    size : tuple of int
        Height and width of the image, px.
    """

    def __init__(self, layers, size):
        self.layers = layers
        self.shape = (len(layers), *size)

    def __getitem__(self, place):
        """Return the map of a layer, (height, width)."""
        return self._rows(place, 0, self.shape[1])

    def __array__(self, dtype=None, copy=None):
        return np.stack([self[place] for place in range(len(self.layers))], dtype=dtype)

    def pixels(self, places, start, stop):
        """Return some layers of pixels, counted row by row: (n_layers, stop - start)."""
        width = self.shape[2]
        top, bottom = start // width, -(-stop // width)
        cut = slice(start - top * width, stop - top * width)
        return np.stack([self._rows(place, top, bottom).ravel()[cut] for place in places])

    def _rows(self, place, top, bottom):
        small, factor, low, spread = self.layers[place]
        start = top // factor
        part = small[start : -(-bottom // factor)]
        if spread is not None:
            part = (part - low) / spread
        upsampled = part.repeat(factor, axis=0)[top - start * factor : bottom - start * factor]
        let_go(small)
        return upsampled.repeat(factor, axis=1)[:, : self.shape[2]]


class PixelsOfLayers:
    """Some layers of `MapsOfClass` as an array of shape (n_layers, n_pixels), read by columns."""

    def __init__(self, maps, places):
        self.maps = maps
        self.places = places
        self.shape = (len(places), maps.shape[1] * maps.shape[2])

    def __getitem__(self, key):
        _, block = key
        start, stop, _ = block.indices(self.shape[1])
        return self.maps.pixels(self.places, start, stop)


class UpsampledMaps:
    """The local maps of one image: an array of shape (n_maps, n_layers, height, width), when read.

    Parameters
    ----------
    small : SmallMaps
    n_maps : int
        Those of classes that are not explained are zero.
    min_max : bool
        Whether each map is scaled to [0, 1].
    """

    def __init__(self, small, *, n_maps, min_max):
        self.small = small
        self.min_max = min_max
        n_layers = len(small.layers) + (small.image is not None)
        self.shape = (n_maps, n_layers, *small.size)
        self.ndim = 4

    def __iter__(self):
        """Yield of each class a `MapsOfClass`, or None if it is not explained."""
        places = dict(zip(self.small.classes.tolist(), range(len(self.small.classes)), strict=True))
        for k in range(self.shape[0]):
            yield self._of_class(places[k]) if k in places else None

    def __array__(self, dtype=None, copy=None):
        full = np.zeros(self.shape, dtype=dtype or np.float32)
        for k, maps in enumerate(self):
            if maps is not None:
                for i in range(self.shape[1]):
                    full[k, i] = maps[i]
        return full

    def _of_class(self, place):
        """Return the maps of a class.

        Each pixel of a map covers exactly as many pixels of the image as the poolings have made
        of it; those of the padding are left out.
        """
        height, width = self.small.size
        layers = [] if self.small.image is None else [(self.small.image, 1, None, None)]
        for layer in self.small.layers:
            factor = self.small.padded_size[0] // layer.shape[1]
            small = layer[place, : -(-height // factor), : -(-width // factor)]
            low = spread = None
            if self.min_max:
                low, high = extremes(small)
                spread = high - low
                spread = spread if spread > 0 else np.float32(np.inf)
            layers.append((small, factor, low, spread))
        return MapsOfClass(layers, self.small.size)


class LocalMapStack(LazyStack):
    """Stack of local maps that also gives them to steps that read a class, or some rows, at a time.

    Parameters
    ----------
    upsampled : LazyStack
        Its samples are `UpsampledMaps`.
    item_shape, layer_names
        As of a stack.
    """

    def __init__(self, upsampled, *, item_shape, layer_names):
        super().__init__(
            upsampled,
            _Dense(),
            item_shape=item_shape,
            batch_size=upsampled.batch_size,
            layer_names=layer_names,
        )

    @property
    def upsampled(self):
        """The samples as `UpsampledMaps`: a LazyStack."""
        return self.source[self._indices]


class _Dense:
    """Upsample the maps of a batch."""

    key = "dense"

    def __call__(self, batch):
        return [np.asarray(sample) for sample in batch]
