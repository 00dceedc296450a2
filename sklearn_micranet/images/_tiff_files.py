"""Decode the plane of a TIFF file that is the image, or only its header."""

import io
import math
import struct
from contextlib import contextmanager
from numbers import Integral

import numpy as np

from sklearn_micranet._stack._extras import how_to_install

from ._ome_sets import own_planes
from ._pixels import drop_alpha, shape_without_alpha, turn, turn_shape

# Compressions, by their codes in the TIFF standard.
_NONE, _LZW, _DEFLATE, _ADOBE_DEFLATE = 1, 5, 32946, 8
_LOSSLESS = {_NONE, _LZW, _DEFLATE, _ADOBE_DEFLATE}
# Pages that Pillow can decode for tifffile; one predictor of Deflate needs imagecodecs.
_PILLOW_COMPRESSIONS = {_LZW, _ADOBE_DEFLATE}
# Photometric interpretations: grey, 0 being white or black; colours; indices of a lookup table.
_WHITE_IS_0, _BLACK_IS_0, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_PHOTOMETRICS = {_WHITE_IS_0, _BLACK_IS_0, _RGB, _PALETTE, _YCBCR}
# Photometric interpretation, channels, dtype and bits.
_PILLOW_KINDS = {
    (_BLACK_IS_0, 1, "uint8", 8),
    (_BLACK_IS_0, 1, "uint16", 16),
    (_BLACK_IS_0, 1, "float32", 32),
    (_RGB, 3, "uint8", 8),
}


def read_tiff(file, plane, header_only):
    """Return the image, or its shape and dtype.

    Parameters
    ----------
    file : str or binary file
    plane : int, dict or None
        As for :func:`read_images`.
    header_only : bool
    """
    with _open(file, plane) as (tif, own):
        pages = _select_pages(tif, plane, own)
        page = pages[0].keyframe
        _check_page(page, len(pages))
        n_colours = _n_colours(page)
        orientation = page.tags.valueof("Orientation", 1)
        needs_pillow = _needs_pillow(tif, page)
        if header_only:
            shape = page.shape if page.axes != "SYX" else (*page.shape[1:], page.shape[0])
            shape = (*shape, len(pages)) if len(pages) > 1 else shape
            if n_colours is not None:
                shape = shape_without_alpha(shape, n_colours)
            return turn_shape(shape, orientation), page.dtype
        if needs_pillow:
            return _decode_with_pillow(file)
        planes = [page.asarray() for page in pages]
    image = np.stack(planes, axis=-1) if len(planes) > 1 else planes[0]
    image = np.moveaxis(image, 0, -1) if page.axes == "SYX" else image
    if image.dtype == bool and page.photometric == _WHITE_IS_0:
        image = ~image  # Black and white is no intensity: True is white, as in every other file.
    return turn(image if n_colours is None else drop_alpha(image, n_colours), orientation)


@contextmanager
def _open(file, plane):
    """Open a file by itself, even if its metadata describes a set of files.

    Yields
    ------
    tif : tifffile.TiffFile
    own : OwnPlanes or None
        What the file holds of the set, if that is asked for.
    """
    import tifffile

    with tifffile.TiffFile(file) as tif:
        own = None if isinstance(plane, Integral) else own_planes(tif)
        if own is None:
            yield tif, None
            return
    if hasattr(file, "seek"):
        file.seek(0)
    with tifffile.TiffFile(file, is_ome=False, is_mmstack=False) as tif:
        yield tif, own


def _check_page(page, n_pages):
    if page.axes not in ("YX", "YXS", "SYX") or (n_pages > 1 and page.axes != "YX"):
        raise ValueError(f"its planes have the axes {page.axes}, which are no image.")
    if page.dtype is None:
        raise ValueError(
            f"its pixels have {page.bitspersample} bits, which NumPy has no dtype for."
        )
    # Only the compressions for photographs turn luma and chroma into RGB on their own.
    is_ycbcr = page.photometric == _YCBCR and page.compression in _LOSSLESS
    if page.photometric not in _PHOTOMETRICS or is_ycbcr:
        name = getattr(page.photometric, "name", page.photometric)
        raise ValueError(f"its colours are stored as {name}. Save it as grey or RGB.")


def _n_colours(page):
    """Return the number of channels before those of transparency, None if there are none."""
    n_samples = page.samplesperpixel
    if page.photometric in (_RGB, _YCBCR):  # further ones are no colours, whatever they are
        return 3 if n_samples > 3 else None
    n_alpha = sum(kind in (1, 2) for kind in page.extrasamples)  # premultiplied or not
    return n_samples - n_alpha if n_alpha else None


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
                f"{how_to_install('tiff')}"
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


def _decode_with_pillow(file):
    from PIL import Image

    with Image.open(file, formats=("TIFF",)) as image:
        image.load()
        return np.asarray(image)


def _select_pages(tif, plane, own):
    """Return the one page of the plane, or one page per channel."""
    if isinstance(plane, Integral):
        return [tif.pages[int(plane)]]
    if own is not None:
        return [tif.pages[page] for page in own.select(plane or {}, len(tif.pages))]
    _check_all_pages(tif)
    series = tif.series[0]
    n_axes = len(series.axes) - len(series.keyframe.axes)
    axes, sizes = series.axes[:n_axes], series.shape[:n_axes]
    chosen = _check_plane(plane or {}, axes, series.get_axes(squeeze=False))
    left = {axis for axis, n in zip(axes, sizes, strict=True) if axis not in chosen and n > 1}
    if len(tif.series) > 1 or not left <= {"C"}:
        raise ValueError(
            f"it holds several planes (axes {axes!r} of sizes {sizes}, {len(tif.pages)} pages); "
            "choose one with plane."
        )
    if len(series.pages) < np.prod(sizes):
        raise ValueError("its planes are stored as one block; open it with tifffile.memmap.")
    numbers = np.arange(len(series.pages)).reshape(sizes)
    numbers = numbers[tuple(chosen.get(axis, slice(None)) for axis in axes)]
    pages = [series.pages[int(number)] for number in numbers.ravel()]
    if None in pages:
        raise ValueError("it lacks planes that its metadata names, as after an interrupted copy.")
    return pages


def _check_all_pages(tif):
    """Refuse a file of which not all pages can be found, or are told about."""
    layout, file = tif.tiff, tif.filehandle
    file.seek(tif.pages[len(tif.pages) - 1].offset)
    (n_tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(n_tags * layout.tagsize, io.SEEK_CUR)
    (next_page,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
    if next_page >= file.size:
        raise ValueError(
            f"it is cut short after {len(tif.pages)} page(s). Copy it again, or choose a page by "
            "number."
        )
    n_known = sum(len(level.pages) for series in tif.series for level in series.levels)
    if n_known < len(tif.pages):
        raise ValueError(
            f"its metadata describes {n_known} of its {len(tif.pages)} pages. Choose one by number."
        )


def _check_plane(plane, axes, all_axes):
    """Return the indices along `axes`, without those of the other axes, which have one plane."""
    if not set(plane) <= set(all_axes) - set("YXS"):
        raise ValueError(f"plane={plane} names axes that are not among its axes {axes!r}.")
    if not all(isinstance(index, Integral) for index in plane.values()):
        raise ValueError(f"plane must hold one int per axis. Got {plane} instead.")
    if any(index not in (0, -1) for axis, index in plane.items() if axis not in axes):
        raise ValueError(f"plane={plane} lies beyond an axis that has one plane only.")
    return {axis: int(index) for axis, index in plane.items() if axis in axes}
