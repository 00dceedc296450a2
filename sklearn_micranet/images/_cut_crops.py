"""Read windows of images that may be large, of different sizes, or on disk."""

import numpy as np
from scipy.spatial import KDTree

from sklearn_micranet._labels._images import MAX_CHANNELS
from sklearn_micranet._stack._file_arrays import by_name
from sklearn_micranet._stack._lazy_stack import LazyStack


def shapes_and_dtype(images):
    """Return the shape of every image and their dtype, in the machine's byte order."""
    if getattr(images, "ndim", 1) > 1:
        shapes, dtypes = [tuple(images.shape[1:])] * images.shape[0], {images.dtype}
    else:
        read = [(tuple(image.shape), image.dtype) for image in map(_as_array, images)]
        shapes, dtypes = [shape for shape, _ in read], {dtype for _, dtype in read}
    dtypes = {np.dtype(dtype).newbyteorder("=") for dtype in dtypes}
    if len({shape[2:] for shape in shapes}) != 1 or not 2 <= len(shapes[0]) <= 3:
        raise ValueError(
            "images must be at least one image of shape (height, width) or (height, width, "
            "n_channels), all with the same number of channels; pass a single image as [image]. "
            f"Got the shapes {sorted(set(shapes))} instead."
        )
    if shapes[0][2:] > (MAX_CHANNELS,):
        raise ValueError(
            f"images must have their channels, at most {MAX_CHANNELS}, on the last axis. Got an "
            f"image of shape {shapes[0]} instead: move the channels with np.moveaxis, or pass the "
            "planes of a stack as images of their own."
        )
    if len(dtypes) > 1:
        raise ValueError(
            "images must have one dtype, as crops of them form one array. "
            f"Got {sorted(map(str, dtypes))} instead. Convert them, or scale their intensities."
        )
    return shapes, dtypes.pop()


class OneImage:
    """One image of a stack, sliced without reading the rest of it.

    HDF5 and Zarr arrays would read the whole image if it were indexed before it is sliced.
    """

    def __init__(self, stack, index):
        in_stack = getattr(stack, "ndim", 1) > 1 and not isinstance(stack, LazyStack)
        self._array = stack if in_stack else _as_array(stack[index])
        self._lead = (index,) if in_stack else ()
        self.shape = tuple(self._array.shape[len(self._lead) :])

    def __getitem__(self, key):
        return np.asarray(self._array[(*self._lead, *key)])


def _as_array(image):
    return image if hasattr(image, "shape") else np.asarray(image)


def crops_overlap(positions, size):
    """Whether two crops of one image share a pixel.

    Parameters
    ----------
    positions : ndarray of shape (n_crops, 3)
        Image index, first row and first column, px; crops of one image follow each other.
    size : tuple (height, width)
        Of a crop, px.
    """
    corners = positions[:, 1:] * np.array(size)[::-1]  # in units of which a crop is `unit` wide
    unit = size[0] * size[1]
    for of_image in np.split(corners, np.flatnonzero(np.diff(positions[:, 0])) + 1):
        if len(of_image) > 1:
            # The nearest neighbour is the crop itself, which the second one is compared with.
            distances, _ = KDTree(of_image).query(of_image, k=2, p=np.inf)
            if (distances[:, 1] < unit).any():
                return True
    return False


class CutCrops:
    """Cut the crops at given positions (a class, so that a lazy stack of crops can be pickled)."""

    def __init__(self, images, size, image_shapes, dtype):
        self.images = images
        self.size = size
        self.image_shapes = image_shapes
        self.dtype = dtype

    def __getstate__(self):
        is_list = isinstance(self.images, (list, tuple))
        images = [by_name(i) for i in self.images] if is_list else by_name(self.images)
        return vars(self) | {"images": images}

    def share_pixels(self, positions, others):
        """Whether each crop at one of the others shares a pixel with one at the positions."""
        sides = np.array(self.size)
        # In units of a crop, and each image far from the others.
        far = 2 * (np.max(np.array(self.image_shapes) / sides) + 2)
        scaled = [part * np.array([far, *(1 / sides)]) for part in (positions, others)]
        distances, _ = KDTree(scaled[0]).query(scaled[1], p=np.inf)
        return distances < 1 - 1e-9

    def __call__(self, positions):
        crops, opened = [None] * len(positions), None
        for place in np.argsort(positions[:, 0], kind="stable"):  # opens each image once
            index, *corner = positions[place].tolist()
            if index != opened:
                image, opened = OneImage(self.images, index), index
            rows, columns = map(_visible, corner, self.size, self.image_shapes[index])
            block = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            if (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) != self.size:  # mirrored
                block = block[np.ix_(rows - rows.min(), columns - columns.min())]
            crops[place] = block
        return np.stack(crops, dtype=self.dtype)


def _visible(start, length, n_pixels):
    """Return the pixels of one axis that a crop shows, mirrored beyond the border."""
    before, after = max(0, -start), max(0, start + length - n_pixels)
    if not before and not after:
        return np.arange(start, start + length)
    pixels = np.pad(np.arange(n_pixels), (before, after), mode="reflect")
    return pixels[start + before :][:length]
