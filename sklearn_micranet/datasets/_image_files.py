"""Decode one image file, or only its header."""

from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import numpy as np


def read_image(filename, plane=None):
    """Return the image in a TIFF, PNG or JPEG file.

    Parameters
    ----------
    filename : str
    plane : int, dict or None
        As for :func:`read_images`.

    Returns
    -------
    image : ndarray of shape (height, width) or (height, width, n_channels)
    """
    with _named(filename):
        if _is_tiff(filename):
            return _read_tiff(filename, plane, header_only=False)
        import imageio.v3 as imageio

        _check_no_plane(plane)
        return imageio.imread(filename, plugin="pillow")


def read_header(filename, plane=None):
    """Return the shape and dtype of the image in a file without decoding its pixels."""
    with _named(filename):
        if _is_tiff(filename):
            return _read_tiff(filename, plane, header_only=True)
        import imageio.v3 as imageio

        _check_no_plane(plane)
        properties = imageio.improps(filename, plugin="pillow")
        return properties.shape, properties.dtype


@contextmanager
def _named(filename):
    try:
        yield
    except Exception as error:  # The readers raise whatever a damaged file leads them to.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{filename} cannot be read: {reason}") from error


def _is_tiff(filename):
    return Path(filename).suffix.lower() in {".tif", ".tiff"}


def _check_no_plane(plane):
    if plane is not None:
        raise ValueError(f"plane={plane} chooses among the planes of TIFF files only.")


def _read_tiff(filename, plane, header_only):
    import tifffile

    with tifffile.TiffFile(filename) as tif:
        pages = _select_pages(tif, plane)
        axes, shape = pages[0].axes, pages[0].shape
        if axes not in ("YX", "YXS", "SYX") or (len(pages) > 1 and axes != "YX"):
            raise ValueError(f"its planes have the axes {axes}, which are no image.")
        if header_only:
            if axes == "SYX":
                shape = (*shape[1:], shape[0])
            return (shape if len(pages) == 1 else (*shape, len(pages))), pages[0].dtype
        planes = [page.asarray() for page in pages]
    if len(planes) > 1:
        return np.stack(planes, axis=-1)
    return np.moveaxis(planes[0], 0, -1) if axes == "SYX" else planes[0]


def _select_pages(tif, plane):
    """Return the one page of the plane, or one page per channel."""
    if isinstance(plane, Integral):
        return [tif.pages[int(plane)]]
    series, chosen = tif.series[0], plane or {}
    n_axes = len(series.axes) - len(series.keyframe.axes)
    axes, sizes = series.axes[:n_axes], series.shape[:n_axes]
    if not set(chosen) <= set(axes):
        raise ValueError(f"plane={plane} names axes that are not among its axes {axes!r}.")
    left = {axis for axis, n in zip(axes, sizes, strict=True) if axis not in chosen and n > 1}
    if len(tif.series) > 1 or not left <= {"C"}:
        raise ValueError(
            f"it holds several planes (axes {axes!r} of sizes {sizes}, {len(tif.pages)} pages); "
            "choose one with plane."
        )
    if len(series.pages) < np.prod(sizes):
        raise ValueError("its planes are stored as one block; open it with tifffile.memmap.")
    pages = np.arange(len(series.pages)).reshape(sizes)
    selected = pages[tuple(chosen.get(axis, slice(None)) for axis in axes)]
    return [series.pages[int(page)] for page in selected.ravel()]
