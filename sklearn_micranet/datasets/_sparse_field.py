"""Huge fields of view with a few objects, like the paper's electron micrographs."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from sklearn_micranet._stack._numbers import Interval
from sklearn_micranet.datasets._drawing import draw_entropy
from sklearn_micranet.datasets._neuropil import draw_neuropil
from sklearn_micranet.datasets._structures import (
    OBJECT,
    boxes_and_masks,
    draw_structure,
    outline_of,
    place_structures,
    window_of,
)

DESCR = """\
Sparse field
============

Synthetic. Looks like a scanning electron micrograph of nervous tissue: profiles of cells between
dark membranes, and in them a few dark grainy objects, as axons stained with DAB are. Distractors
are as dark and as large: striped, smooth, or grainy rings around a pale middle.
"""

SQUARE_PER_DISTRACTOR = 9  # of object_size, the side
NOISE = 5  # grey levels of 255


@validate_params(
    {
        "shape": [tuple, list],
        "n_objects": [Interval(Integral, 0, None, closed="left"), tuple],
        "n_distractors": [Interval(Integral, 0, None, closed="left"), None],
        "object_size": [Interval(Integral, 32, None, closed="left")],
        "tile_size": [Interval(Integral, 1, None, closed="left")],
        "out": "no_validation",
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_sparse_field(
    shape=(10240, 10240),
    *,
    n_objects=(1, 10),
    n_distractors=None,
    object_size=113,
    tile_size=1024,
    out=None,
    random_state=None,
):
    """Generate a huge field of view with a few objects among others that are as dark.

    The case that MICRA-Net's electron micrographs [1]_ stand for: almost all of a field is
    background, an expert would have to inspect everything, and darkness alone finds too much. The
    field is written tile by tile, so that it need not fit into memory.

    Parameters
    ----------
    shape : (int, int), default=(10240, 10240)
        Height and width of the field, px, at least twice `object_size`.
    n_objects : int or (int, int), default=(1, 10)
        Number of objects, or its smallest and largest value, between which it is drawn.
    n_distractors : int, default=None
        Number of dark structures that are no objects. ``None`` stands for one per square of nine
        times `object_size`: 102 in a field of the default size.
    object_size : int, default=113
        Diameter of the circle of an object's area, px, on average; at least 32. Objects and
        distractors differ from it by up to 15 %.
    tile_size : int, default=1024
        Side of the squares that are drawn and written at once, px. The pixels do not depend on
        it, the memory does: about 35 bytes for every pixel of a tile. Take a multiple of the
        chunks of `out`.
    out : array of shape `shape` and dtype uint8, default=None
        Where to write: a NumPy array, a :class:`numpy.memmap`, a Zarr array, or whatever takes
        ``out[first:end, first:end] = tile``. ``None`` allocates an array.
    random_state : int, RandomState instance or None, default=None
        Determines everything drawn. Pass an int for the same field in every call.

    Returns
    -------
    field : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        image : ndarray of shape `shape`, uint8, or `out`
            The field. Objects are dark.
        boxes : ndarray of shape (n_objects, 4), int64
            First row, first column, end row and end column of each object, px, end excluded.
        points : ndarray of shape (n_objects, 2), float64
            Row and column of each object's centroid, px; the centre of the top-left pixel is
            (0, 0).
        masks : list of n_objects ndarray of shape (box height, box width), bool
            The pixels of each object within its box.
        outlines : list of n_objects ndarray of shape (72, 2), float64
            Row and column of the vertices of each object's outline, px.
        distractor_boxes : ndarray of shape (n_distractors, 4), int64
            As `boxes`, of the structures that are no objects.
        distractor_masks : list of n_distractors ndarray of bool
            As `masks`. The pale middle of a ring is not part of it.
        distractor_kinds : list of n_distractors str
            ``"striped"``, ``"smooth"`` or ``"ring"``.
        DESCR : str
            What the field shows.

    Raises
    ------
    ValueError
        If a parameter is not as described above, or the structures do not fit into the field.

    Notes
    -----
    **Tissue**: the cells are those of a Voronoi diagram, bent by smooth noise, each with a grey
    level of its own; membranes are dark. Grain, vesicles and a slow drift are filtered noise. All
    random numbers come in blocks with seeds of their own, therefore every window of the field can
    be drawn alone.

    **Objects and distractors** have the same mean (75 of 255) and the same standard deviation (20)
    each, before the noise of the camera (5). Objects are irregular and filled with isotropic grain
    of a period of about 8 px. Distractors have stripes of 10 px, or are round and smooth, or have
    the objects' grain but the shape of a ring. None touches
    another or the border.

    References
    ----------
    .. [1] A. Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`.

    Examples
    --------
    >>> from sklearn_micranet.datasets import make_sparse_field
    >>> from sklearn_micranet.images import extract_crops
    >>> field = make_sparse_field((1024, 1536), n_objects=2, random_state=0)
    >>> field.image.shape, field.image.dtype, field.boxes.shape, len(field.distractor_boxes)
    ((1024, 1536), dtype('uint8'), (2, 4), 2)
    >>> crops = extract_crops([field.image], size=512, points=[field.points])
    >>> crops.images.shape, int(crops.labels.sum())
    ((6, 512, 512), 2)

    A field larger than memory goes to a file:

    >>> import numpy as np
    >>> out = np.memmap("field.raw", np.uint8, "w+", shape=(10240, 10240))  # doctest: +SKIP
    >>> field = make_sparse_field(out=out, random_state=0)  # doctest: +SKIP
    """
    shape = _check_shape(shape, object_size)
    n_objects = _check_n_objects(n_objects)
    out = _check_out(out, shape)
    if n_distractors is None:
        n_distractors = -(-shape[0] * shape[1] // (SQUARE_PER_DISTRACTOR * object_size) ** 2)
    entropy = draw_entropy(random_state)
    structures = place_structures(entropy, shape, n_objects, n_distractors, object_size)
    for first_row in range(0, shape[0], tile_size):
        for first_column in range(0, shape[1], tile_size):
            rows = first_row, min(first_row + tile_size, shape[0])
            columns = first_column, min(first_column + tile_size, shape[1])
            out[slice(*rows), slice(*columns)] = _draw_tile(entropy, rows, columns, structures)
    objects = [structure for structure in structures if structure.kind == OBJECT]
    distractors = [structure for structure in structures if structure.kind != OBJECT]
    boxes, masks = boxes_and_masks(objects)
    distractor_boxes, distractor_masks = boxes_and_masks(distractors)
    centroids = [np.argwhere(mask).mean(axis=0) for mask in masks]
    return Bunch(
        image=out,
        boxes=boxes,
        points=np.reshape(centroids, (-1, 2)) + boxes[:, :2],
        masks=masks,
        outlines=[outline_of(structure) for structure in objects],
        distractor_boxes=distractor_boxes,
        distractor_masks=distractor_masks,
        distractor_kinds=[structure.kind for structure in distractors],
        DESCR=DESCR,
    )


def _check_shape(shape, object_size):
    if len(shape) != 2 or not all(
        isinstance(side, Integral) and side >= 2 * object_size for side in shape
    ):
        raise ValueError(
            f"shape must be (height, width), both ints of at least {2 * object_size}, twice the "
            f"object_size. Got {shape!r} instead."
        )
    return tuple(int(side) for side in shape)


def _check_n_objects(n_objects):
    """Return the smallest and the largest number."""
    if isinstance(n_objects, Integral):
        return n_objects, n_objects
    if (
        len(n_objects) != 2
        or not all(isinstance(number, Integral) for number in n_objects)
        or not 0 <= n_objects[0] <= n_objects[1]
    ):
        raise ValueError(
            "n_objects must be an int or (smallest, largest), both ints from 0 on. Got "
            f"{n_objects!r} instead."
        )
    return n_objects


def _check_out(out, shape):
    if out is None:
        return np.empty(shape, dtype=np.uint8)
    found = getattr(out, "shape", None), getattr(out, "dtype", None)
    if found != (shape, np.uint8):
        raise ValueError(
            f"out must be an array of shape {shape} and dtype uint8. Got {type(out).__name__} of "
            f"shape {found[0]} and dtype {found[1]} instead. Pass its shape as the first argument."
        )
    return out


def _draw_tile(entropy, rows, columns, structures):
    tile, white = draw_neuropil(entropy, rows, columns)
    for structure in structures:
        first, end = window_of(structure)
        source, target = [], []
        for axis, (start, stop) in enumerate((rows, columns)):
            low, high = max(first[axis], start), min(end[axis], stop)
            source.append(slice(low - first[axis], high - first[axis]))
            target.append(slice(low - start, high - start))
        if all(part.start < part.stop for part in source):
            grey, opacity = (layer[tuple(source)] for layer in draw_structure(entropy, structure))
            tile[tuple(target)] += opacity * (grey - tile[tuple(target)])
    return np.rint(tile + NOISE * white).clip(0, 255).astype(np.uint8)
