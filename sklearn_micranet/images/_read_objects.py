"""Read objects back from files that Fiji, QuPath and napari write."""

import os
import warnings
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from ._geojson import read_geojson
from ._imagej_rois import read_rois
from ._instances import check_class_names
from ._label_images import read_label_tiff, read_ome_zarr
from ._outlines import fill_outlines

_OUTLINES = {".zip": read_rois, ".roi": read_rois, ".geojson": read_geojson, ".json": read_geojson}
_END = 2**31  # of the numbers that int32 holds
_LABEL_IMAGES = {".tif": read_label_tiff, ".tiff": read_label_tiff, ".zarr": read_ome_zarr}


@validate_params(
    {
        "path": [str, os.PathLike],
        "shape": [tuple, list, None],
        "class_names": ["array-like", None],
    },
    prefer_skip_nested_validation=True,
)
def read_objects(path, *, shape=None, class_names=None):
    """Read the objects of one image from a file, such as outlines corrected by hand.

    Parameters
    ----------
    path : str or path-like
        ROIs of ImageJ (``.zip``, ``.roi``), GeoJSON of QuPath (``.geojson``, ``.json``), a label
        image (``.tif``, ``.tiff``, OME-TIFF too) or an OME-Zarr 0.4 or 0.5 with labels (``.zarr``).
    shape : tuple (height, width), default=None
        Size of the image, px. Needed for ROIs and GeoJSON, which do not hold it; outlines that
        reach beyond are cut off.
    class_names : array-like of shape (n_maps,), default=None
        Labels of the classes, in the order of the maps. ``None`` takes those of the file: of
        outlines, in the order of the ROIs' groups, or of their first object in GeoJSON; a file
        that names none has the class ``"object"``. Pass them where a class may have no object.

    Returns
    -------
    data : :class:`sklearn.utils.Bunch`
        instances : int32 ndarray of shape (n_maps, height, width)
            0 for the background and one number per object; ``instances > 0`` are the masks.
            Objects without a number, or with one that is taken, get the next free one.
        points : float64 ndarray of shape (n_points, 3)
            Map index, row and column of points, px; the centre of the top-left pixel is (0, 0).
        class_names : list of n_maps str
            Labels of the maps.

    Raises
    ------
    ValueError
        If the file cannot be read, `shape` is missing, or an object is neither an area nor points,
        has no coordinates, no class although there are several, one of an unknown class, or no
        pixel. The object is named.
    ImportError
        If the format needs a package that is not installed.

    Warns
    -----
    UserWarning
        If objects of one class overlap: a pixel belongs to the last of them in the file.

    See Also
    --------
    write_objects : Write objects to such files.

    Notes
    -----
    A pixel belongs to an object if its centre lies inside the outline, by the even-odd rule for
    holes and pieces. Of two areas that share an edge through centres, the one to the right of it,
    or below, has them. Outlines count from the top-left corner of the top-left pixel, as ImageJ and
    QuPath do; points in ImageJ count from the centre of that pixel.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_micranet.images import read_objects
    >>> square = '{"type": "Polygon", "coordinates": [[[1, 0], [3, 0], [3, 2], [1, 2], [1, 0]]]}'
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "drawn.geojson")
    ...     _ = path.write_text(f'[{{"type": "Feature", "geometry": {square}}}]')
    ...     data = read_objects(path, shape=(3, 4))
    >>> data.instances
    array([[[0, 1, 1, 0],
            [0, 1, 1, 0],
            [0, 0, 0, 0]]], dtype=int32)
    """
    path, suffix = Path(path), Path(path).suffix.lower()
    if suffix not in _OUTLINES | _LABEL_IMAGES:
        raise ValueError(
            f"path must end in {', '.join(_OUTLINES | _LABEL_IMAGES)}. Got {path.name!r} instead."
        )
    if not path.exists():
        raise FileNotFoundError(f"{path} must be a file of objects. Got no such file.")
    if suffix in _LABEL_IMAGES:
        return _from_label_images(path, _read(_LABEL_IMAGES[suffix], path), shape, class_names)
    if shape is None or len(shape) != 2:
        raise ValueError(
            f"shape must be the height and width of the image, which {suffix} files do not hold. "
            f"Got {shape} instead."
        )
    outlines = _read(_OUTLINES[suffix], path)
    if class_names is None:
        labels, by_index = _labels_in(outlines)
    else:
        labels = [str(name) for name in class_names]
        by_index = dict(enumerate(labels))
    classes = [_class_of(outline, labels, by_index, path) for outline in outlines]
    instances = np.zeros((len(labels), *shape), np.int32)
    for k, label_image in enumerate(instances):
        members = [o for o, c in zip(outlines, classes, strict=True) if c == k and o.rings]
        _draw(members, label_image, path)
    points = [np.insert(o.points, 0, c, axis=1) for o, c in zip(outlines, classes, strict=True)]
    return Bunch(
        instances=instances,
        points=np.concatenate([np.empty((0, 3)), *points]),
        class_names=labels,
    )


def _read(reader, path):
    try:
        return reader(path)
    except ImportError:
        raise
    except Exception as error:  # The readers raise whatever a damaged file leads them to.
        raise ValueError(f"{path} cannot be read: {error}") from error


def _from_label_images(path, read, shape, class_names):
    label_images, names = read
    if class_names is None and names is not None and len(names) == len(label_images):
        class_names = names
    labels = check_class_names(class_names, len(label_images))
    if shape is not None and tuple(shape) != label_images.shape[1:]:
        raise ValueError(
            f"{path} must have the height and width {tuple(shape)}. "
            f"Got {label_images.shape[1:]} instead."
        )
    instances = label_images.astype(np.int32)
    if np.any(instances != label_images) or instances.min(initial=0) < 0:
        raise ValueError(
            f"{path} must hold integers from 0 to {2**31 - 1}. Got other values instead: it is no "
            "label image."
        )
    return Bunch(
        instances=instances, points=np.empty((0, 3)), class_names=[str(name) for name in labels]
    )


def _labels_in(outlines):
    """Return the labels that occur, by their index or else appearance, and those by index."""
    places, by_index = {}, {}
    for i, outline in enumerate(outlines):
        if outline.label is not None:
            places.setdefault(outline.label, (outline.class_index or 0, i))
            by_index[outline.class_index] = outline.label
    return sorted(places, key=places.get) or ["object"], by_index


def _class_of(outline, labels, by_index, path):
    """Return the index of the class of an outline, never guessed."""
    label = outline.label
    if label is None and outline.class_index is not None:
        label = by_index.get(outline.class_index, f"group {outline.class_index + 1}")
    if label is None and len(labels) == 1:
        return 0
    if label not in labels:
        raise ValueError(
            f"Each object must be of one of the classes {labels}. Got {label!r} for "
            f"{outline.name} in {path} instead: give it a class (in Fiji its group, counted from "
            "1), or pass class_names."
        )
    return labels.index(label)


def _draw(outlines, label_image, path):
    """Draw the outlines of one class, in their order."""
    numbers = [o.number if o.number and o.number < _END else None for o in outlines]
    free = max(filter(None, numbers), default=0) + 1
    used, n_overlapping = {}, 0
    for outline, number in zip(outlines, numbers, strict=True):
        if number is None or number in used:
            number, free = free, free + 1
        used[number] = outline
        place, mask = fill_outlines(outline.rings, label_image.shape)
        part = label_image[place]
        n_overlapping += np.count_nonzero(part[mask])
        part[mask] = number
    lost = set(used) - set(np.unique(label_image).tolist())
    if lost:
        raise ValueError(
            f"Each object must have a pixel. Got none for {used[min(lost)].name} in {path} "
            "instead: it lies outside the image, between the centres of pixels, or under another "
            "object."
        )
    if n_overlapping:
        warnings.warn(
            f"{n_overlapping} pixel(s) of {path} lie in several objects; each belongs to the last.",
            UserWarning,
            stacklevel=4,
        )
