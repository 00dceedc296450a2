"""Decide from masks, boxes or points which classes are present in a crop."""

import numpy as np


def count_pixels(mask, corners, size, image_shape, name):
    """Return how many pixels of each crop are non-zero in `mask`.

    Parameters
    ----------
    mask : array of shape (height, width) or (n_classes, height, width)
        Anything that can be sliced; it is read crop by crop.
    corners : ndarray of shape (n_crops, 2)
        First row and column of each crop, px. What lies outside the image is not covered.
    size : tuple (height, width)
        Of a crop, px.
    image_shape : tuple (height, width)
        Which the mask must have.
    name : str
        Name of the mask, for the error.

    Returns
    -------
    n_pixels : ndarray of int of shape (n_crops, n_classes)
    """
    if mask.shape[-2:] != image_shape or len(mask.shape) not in (2, 3):
        raise ValueError(
            f"Each of the {name} must have the height and width of its image, {image_shape}, in "
            "the shape (height, width) or (n_classes, height, width). Got the shape "
            f"{mask.shape} instead."
        )
    n_pixels = []
    for corner in corners:
        window = map(slice, np.maximum(corner, 0), corner + size)
        shown = mask[(..., *window)]
        if shown.dtype.kind == "f" and np.isnan(shown).any():
            raise ValueError(f"The {name} must hold no NaN, which is neither zero nor a class.")
        n_pixels.append(np.count_nonzero(shown, axis=(-2, -1)))
    n_classes = mask.shape[0] if len(mask.shape) == 3 else 1
    return np.reshape(n_pixels, (-1, n_classes)).astype(np.int64)


def check_objects(name, objects, n_coordinates, n_classes):
    """Validate boxes or points; without a class index they are of class 0.

    Parameters
    ----------
    name : str
        ``"boxes"`` or ``"points"``, for the errors.
    objects : sequence of n_images array-like of shape (n_objects, n_coordinates) or \
            (n_objects, 1 + n_coordinates)
    n_coordinates : int
    n_classes : int or None

    Returns
    -------
    tables : list of n_images ndarray of shape (n_objects, 1 + n_coordinates)
        Class index and coordinates.
    n_classes : int
    """
    tables = [_as_table(name, table, index) for index, table in enumerate(objects)]
    tables = [table if table.size else np.empty((0, n_coordinates + 1)) for table in tables]
    for index, table in enumerate(tables):
        if table.ndim == 2 and table.shape[1] == n_coordinates:
            tables[index] = np.insert(table, 0, 0, axis=1)
        elif table.ndim != 2 or table.shape[1] != n_coordinates + 1:
            raise ValueError(
                f"{name} must hold one table of {n_coordinates} columns (or {n_coordinates + 1}, "
                f"the first a class index) per image. Got the shape {table.shape} for image "
                f"{index} instead."
            )
    everything = np.concatenate(tables)
    classes = everything[:, 0]
    if not np.isfinite(everything).all():
        raise ValueError(f"{name} must be finite. Got NaN or infinity instead.")
    if np.any(classes < 0) or np.any(classes % 1):
        raise ValueError(f"The class index of {name} must be an integer of at least 0.")
    n_found = int(classes.max(initial=0)) + 1
    if n_classes is not None and n_found > n_classes:
        raise ValueError(
            f"The class index of {name} must be below n_classes={n_classes}. Got {n_found - 1} "
            "instead."
        )
    if name == "boxes" and np.any(everything[:, 3:] <= everything[:, 1:3]):
        raise ValueError(
            "boxes must be (first row, first column, end row, end column) with the ends beyond "
            "the firsts. Got an empty box instead; are rows and columns, or x and y, swapped?"
        )
    return tables, n_classes or n_found


def _as_table(name, table, index):
    try:
        return np.asarray(table, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must hold numbers; the class of an object is its index, counted from 0. Got "
            f"others for image {index} instead: pass names.index(name) for a name."
        ) from None


def nearest_pixels(points, image_shape):
    """Return the pixel that each point lies in, row and column.

    Parameters
    ----------
    points : ndarray of shape (n_points, 3)
        Class index, row and column, px.
    image_shape : tuple (height, width)
    """
    pixels = np.floor(points[:, 1:] + 0.5).astype(np.int64)
    outside = np.any((pixels < 0) | (pixels >= image_shape), axis=1)
    if outside.any():
        raise ValueError(
            f"points must lie inside their image of height and width {image_shape}. Got (row, "
            f"column) = {tuple(points[outside][0, 1:].tolist())} instead; are x and y swapped?"
        )
    return pixels


def contain_boxes(corners, size, boxes, n_classes, min_overlap):
    """Tell which classes have a box of which a crop holds at least `min_overlap`.

    Returns
    -------
    labels : ndarray of bool of shape (n_crops, n_classes)
    """
    firsts, ends = boxes[:, 1:3], boxes[:, 3:]
    corners = corners[:, np.newaxis]
    sides = np.minimum(corners + size, ends) - np.maximum(corners, firsts)
    shares = np.prod(np.maximum(sides, 0), axis=-1) / np.prod(ends - firsts, axis=-1)
    return _any_of_class(shares >= min_overlap, boxes[:, 0], n_classes)


def contain_points(corners, size, points, pixels, n_classes):
    """Tell which classes have a point inside a crop.

    Returns
    -------
    labels : ndarray of bool of shape (n_crops, n_classes)
    """
    offsets = pixels - corners[:, np.newaxis]
    inside = np.all((offsets >= 0) & (offsets < size), axis=-1)
    return _any_of_class(inside, points[:, 0], n_classes)


def _any_of_class(found, classes, n_classes):
    """Reduce (n_crops, n_objects) to (n_crops, n_classes)."""
    return np.column_stack([found[:, classes == c].any(axis=1) for c in range(n_classes)])
