"""Decode one image file, or only its header."""

import math
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import numpy as np

# Pages that Pillow can decode for tifffile, by their codes in the TIFF standard.
_PILLOW_COMPRESSIONS = {5, 8}  # LZW; Deflate, of which one predictor needs imagecodecs
# Photometric interpretation (1: 0 is black, 2: RGB), channels, dtype and bits.
_PILLOW_KINDS = {
    (1, 1, "uint8", 8),
    (1, 1, "uint16", 16),
    (1, 1, "float32", 32),
    (2, 3, "uint8", 8),
}


def read_image(filename, plane=None, file=None):
    """Return the image in a TIFF, PNG or JPEG file.

    Parameters
    ----------
    filename : str
    plane : int, dict or None
        As for :func:`read_images`.
    file : binary file, default=None
        Where the bytes are read from, such as a member of an archive. ``None`` opens `filename`.

    Returns
    -------
    image : ndarray of shape (height, width) or (height, width, n_channels)
    """
    with _named(filename):
        if _is_tiff(filename):
            return _read_tiff(file or filename, plane, header_only=False)
        import imageio.v3 as imageio

        _check_no_plane(plane)
        return imageio.imread(file or filename, plugin="pillow")


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
        cause = error
        while cause.__cause__ and "`pillow`" in str(cause):  # imageio's words hide Pillow's reason.
            cause = cause.__cause__
        reason = str(cause).partition("\n")[0] or type(cause).__name__
        raise ValueError(f"{filename} cannot be read: {reason}") from error


def _is_tiff(filename):
    return Path(filename).suffix.lower() in {".tif", ".tiff"}


def _check_no_plane(plane):
    if plane is not None:
        raise ValueError(f"plane={plane} chooses among the planes of TIFF files only.")


def _read_tiff(file, plane, header_only):
    import tifffile

    with tifffile.TiffFile(file) as tif:
        pages = _select_pages(tif, plane)
        axes, shape = pages[0].axes, pages[0].shape
        if axes not in ("YX", "YXS", "SYX") or (len(pages) > 1 and axes != "YX"):
            raise ValueError(f"its planes have the axes {axes}, which are no image.")
        needs_pillow = _needs_pillow(tif, pages[0].keyframe)
        if header_only:
            if axes == "SYX":
                shape = (*shape[1:], shape[0])
            return (shape if len(pages) == 1 else (*shape, len(pages))), pages[0].dtype
        if needs_pillow:
            import imageio.v3 as imageio

            return imageio.imread(file, plugin="pillow")
        planes = [page.asarray() for page in pages]
    if len(planes) > 1:
        return np.stack(planes, axis=-1)
    return np.moveaxis(planes[0], 0, -1) if axes == "SYX" else planes[0]


def _needs_pillow(tif, page):
    """Whether Pillow must decode the only page, because tifffile would need imagecodecs."""
    try:
        page.decode(b"", 0)
    except Exception as error:  # Any other decoder only complains that there is nothing to decode.
        if "imagecodecs" in str(error) or isinstance(error, ImportError):
            if len(tif.pages) == 1 and _pillow_decodes(tif.byteorder, page):
                return True
            raise ValueError(
                f"its encoding ({page.compression.name}, {page.bitspersample} bits) requires "
                "imagecodecs, which cannot be imported. "
                'Install it with: pip install "sklearn-micranet[tiff]"'
            ) from error
    page.decode(None, 0)  # Raises an error where no package would help.
    return False


def _pillow_decodes(byteorder, page):
    """Whether Pillow reads what tifffile would: other pages it turns, inverts or converts."""
    from PIL import Image

    kind = (page.photometric, page.samplesperpixel, page.dtype.name, page.bitspersample)
    return (
        page.compression in _PILLOW_COMPRESSIONS
        and page.imagewidth * page.imagelength <= (Image.MAX_IMAGE_PIXELS or math.inf)
        and kind in _PILLOW_KINDS
        and byteorder == "<"  # It swaps some bytes wrongly.
        and page.tags.valueof("Orientation", 1) == 1
    )


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
