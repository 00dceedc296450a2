"""Where masks and objects of fields are written."""

from os import PathLike
from pathlib import Path

import numpy as np

from ._grid import blocks_of


def is_path(target):
    """Whether results go to an OME-Zarr of this name."""
    return isinstance(target, (str, PathLike))


def check_out(out, fields, n_maps, dtype):
    """Return where the results of each field go; raise an error before any work.

    Parameters
    ----------
    out : sequence of n_fields arrays or paths, or None
    fields : list of n_fields arrays
    n_maps : int
    dtype : dtype

    Returns
    -------
    out : list of n_fields array, path or None
    """
    if out is None:
        return [None] * len(fields)
    if is_path(out) or len(out) != len(fields):
        got = f"{out!r}" if is_path(out) else len(out)
        raise ValueError(
            f"out must hold one array or path per field, {len(fields)}. Got {got} instead."
        )
    paths = [Path(target) for target in out if is_path(target)]
    for path in paths:
        if path.suffix.lower() != ".zarr":
            raise ValueError(
                f"A path of out must end in .zarr or .ome.zarr. Got {path.name!r} instead: for "
                "other files write the instances with images.write_objects."
            )
        if path.exists() or paths.count(path) > 1:
            raise FileExistsError(
                f"{path} exists, or is named twice in out. Delete it, or choose another name."
            )
    for target, field in zip(out, fields, strict=True):
        if not is_path(target) and not hasattr(target, "shape"):
            raise TypeError(
                f"out must hold arrays or paths. Got {type(target).__name__} instead: out=None "
                "makes all arrays."
            )
        expected = (n_maps, *field.shape[:2]), np.dtype(dtype)
        if not is_path(target) and (tuple(target.shape), np.dtype(target.dtype)) != expected:
            raise ValueError(
                f"Each array of out must have the shape {expected[0]} and the dtype {expected[1]}. "
                f"Got {tuple(target.shape)} and {target.dtype} instead."
            )
    return list(out)


def write_array(objects, grid, out, dtype, side):
    """Write the numbers of objects square by square, and return the array.

    Parameters
    ----------
    objects : FieldObjects
    grid : WindowGrid
    out : array of shape (n_maps, height, width) or None
        It may hold anything. ``None`` makes one.
    dtype : dtype
        Bool for masks.
    side : int
        Of the squares, px.
    """
    squares = blocks_of(grid.shape, side)
    if out is None:
        out, squares = np.zeros((objects.n_maps, *grid.shape), dtype=dtype), objects.squares
    for square in squares:
        out[:, slice(*square[:2]), slice(*square[2:])] = objects.paint(square).astype(dtype)
    return out


def write_image(image, labels, field, objects, side, *, as_masks):
    """Write a field and the numbers of its objects square by square; those without any are left.

    Parameters
    ----------
    image : array of shape (n_channels, height, width)
    labels : list of n_maps array of shape (height, width)
        Where all is zero.
    field : array of shape (height, width[, n_channels])
    objects : FieldObjects
    side : int
        Of the squares, px.
    as_masks : bool
        Whether to write 1 for every object.
    """
    for square in blocks_of(field.shape[:2], side):
        place = slice(*square[:2]), slice(*square[2:])
        pixels = np.asarray(field[place])
        image[(slice(None), *place)] = np.moveaxis(np.atleast_3d(pixels), 2, 0)
        painted = objects.paint(square) if objects.shows(square) else ()
        for array, numbers in zip(labels, painted, strict=False):
            if numbers.any():
                array[place] = (numbers > 0 if as_masks else numbers).astype(array.dtype)
