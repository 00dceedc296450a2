"""Images and label images as OME-Zarr 0.4, written piece by piece."""

import re
from itertools import pairwise
from math import ceil, log2

import numpy as np

from sklearn_micranet._stack._extras import import_extra

from ._outline_record import COLORS

NGFF_UNITS = {"nm": "nanometer", "um": "micrometer", "mm": "millimeter"}
CHUNK = 1024  # px, side


def n_levels_of(shape):
    """Return how many levels an image needs until the last one fits into a chunk."""
    return 1 + max(0, ceil(log2(max(shape[:2]) / CHUNK)))


class OmeZarrImage:
    """An OME-Zarr 0.4 that is written: an image, and inside it one label image per class.

    The metadata follow https://ngff.openmicroscopy.org/0.4/. Chunks in which all is zero are not
    written.

    Parameters
    ----------
    path : path-like
        The new folder.
    shape : tuple (height, width) or (height, width, n_channels)
    dtype : dtype
        Of the image.
    names : list of str
        Names of the classes.
    label_dtype : dtype, default=int32
    n_levels : int, default=1
        Levels of resolution, each of half the height and width of the one before.
    pixel_size : float, default=None
        Side of a pixel of the first level.
    unit : {"nm", "um", "mm"}, default=None
        Unit of it; ``None`` where it is not known.

    Attributes
    ----------
    image : zarr.Array of shape (n_channels, height, width)
        The first level, to be written.
    labels : list of zarr.Array of shape (height, width)
        The same for each class.
    """

    def __init__(
        self,
        path,
        *,
        shape,
        dtype,
        names,
        label_dtype=np.int32,
        n_levels=1,
        pixel_size=None,
        unit=None,
    ):
        self._scale = {"pixel_size": pixel_size, "unit": unit, "n_levels": n_levels}
        planes = (*shape[2:], 1)[:1] + tuple(shape[:2])
        root = import_extra("zarr", "zarr").open_group(path, mode="w-", zarr_format=2)
        self._levels = [self._add(root, "image", "cyx", planes, dtype)]
        folders = [re.sub(r"[^\w-]", "_", f"{k}_{name}") for k, name in enumerate(names)]
        group = root.create_group("labels")
        group.attrs["labels"] = folders
        self._groups = [group.create_group(folder) for folder in folders]
        for of_class, name in zip(self._groups, names, strict=True):
            self._levels.append(self._add(of_class, name, "yx", shape[:2], label_dtype))
        self.image, *self.labels = (levels[0] for levels in self._levels)

    def _add(self, group, name, axes, shape, dtype):
        """Create the levels of an image."""
        group.attrs["multiscales"] = [multiscale(name, axes, **self._scale)]
        levels = []
        for k in range(self._scale["n_levels"]):
            reduced = (*shape[:-2], *(ceil(n / 2**k) for n in shape[-2:]))
            levels.append(
                group.create_array(
                    str(k),
                    shape=reduced,
                    dtype=dtype,
                    chunks=tuple(min(n, CHUNK) for n in reduced),
                    chunk_key_encoding={"name": "v2", "separator": "/"},
                )
            )
        return levels

    def finish(self, numbers):
        """Compute the levels of lower resolution, and colour the objects.

        Parameters
        ----------
        numbers : list of iterable of int
            The numbers of the objects of each class.
        """
        for levels, reduce in zip(self._levels, [_mean, *[_first] * len(self.labels)], strict=True):
            for level, reduced in pairwise(levels):
                for row in range(0, reduced.shape[-2], CHUNK):
                    for column in range(0, reduced.shape[-1], CHUNK):
                        ends = row + CHUNK, column + CHUNK
                        read = slice(2 * row, 2 * ends[0]), slice(2 * column, 2 * ends[1])
                        square = reduce(level[(..., *read)])
                        reduced[..., row : ends[0], column : ends[1]] = square
        for k, (group, of_class) in enumerate(zip(self._groups, numbers, strict=True)):
            color = [*COLORS[k % len(COLORS)], 128]
            colors = [{"label-value": int(n), "rgba": color} for n in of_class]
            group.attrs["image-label"] = {
                "version": "0.4",
                **({"colors": colors} if colors else {}),  # its schema wants at least one
                "source": {"image": "../../"},
            }


def _first(square):
    return square[..., ::2, ::2]


def _mean(square):
    """Return the means of 2 x 2 px, in the dtype of the image."""
    padding = [(0, 0)] * (square.ndim - 2) + [(0, n % 2) for n in square.shape[-2:]]
    padded = np.pad(square, padding, "edge").astype(np.float64)
    means = sum(padded[..., i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    is_integer = np.issubdtype(square.dtype, np.integer)
    return (np.rint(means) if is_integer else means).astype(square.dtype)


def multiscale(name, axes, *, pixel_size, unit, n_levels):
    """Return the metadata of one image or label image."""
    of_axis = {} if pixel_size is None or unit is None else {"unit": NGFF_UNITS[unit]}
    side = 1.0 if pixel_size is None else float(pixel_size)
    scales = [[1.0 if a == "c" else side * 2**k for a in axes] for k in range(n_levels)]
    return {
        "version": "0.4",
        "name": name,
        "axes": [
            {"name": a, "type": "channel"} if a == "c" else {"name": a, "type": "space", **of_axis}
            for a in axes
        ],
        "datasets": [
            {
                "path": str(k),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
            for k, scale in enumerate(scales)
        ],
    }
