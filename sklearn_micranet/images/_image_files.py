"""Decode one image file, or only its header."""

import io
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ._pillow_files import read_with_pillow
from ._tiff_files import read_tiff

SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg"}

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # either byte order, small and large files
_OTHER_STARTS = (b"\x89PNG", b"\xff\xd8\xff")


def read_image(filename, plane=None, file=None):
    """Return the image in a TIFF, PNG, JPEG or another 8-bit file that Pillow reads.

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
        Of real, finite numbers in the machine's byte order.
    """
    with _named(filename):
        image = _read(filename, plane, file, header_only=False)
        _check_dtype(image.dtype)
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            n_pixels = np.count_nonzero(~np.isfinite(image))
            raise ValueError(
                f"{n_pixels} of its pixels are NaN or infinite. Replace them, "
                "or leave the file out with on_error='skip'."
            )
        return image.astype(image.dtype.newbyteorder("="), copy=False)


def read_header(filename, plane=None):
    """Return the shape and dtype of the image in a file without decoding its pixels."""
    with _named(filename):
        shape, dtype = _read(filename, plane, None, header_only=True)
        _check_dtype(dtype)
        return shape, np.dtype(dtype).newbyteorder("=")


def _read(filename, plane, file, header_only):
    if _is_tiff(filename, file):
        return read_tiff(file or filename, plane, header_only)
    if plane is not None:
        raise ValueError(f"plane={plane} chooses among the planes of TIFF files only.")
    return read_with_pillow(file or filename, header_only)


def _is_tiff(filename, file):
    """Tell from the first bytes; of a file without any that are known, from its name."""
    if file is None:
        with open(filename, "rb") as opened:
            start = opened.read(4)
    else:
        start = file.read(4)
        file.seek(-len(start), io.SEEK_CUR)
    is_named_tiff = Path(filename).suffix.lower() in {".tif", ".tiff"}
    return start in _TIFF_STARTS or (is_named_tiff and not start.startswith(_OTHER_STARTS))


def _check_dtype(dtype):
    if np.dtype(dtype).kind not in "buif":
        raise ValueError(f"its pixels are of the dtype {dtype}, which is not real.")


@contextmanager
def _named(filename):
    try:
        yield
    except Exception as error:  # The readers raise whatever a damaged file leads them to.
        reason = str(error).partition("\n")[0] or type(error).__name__
        if type(error).__name__ == "DecompressionBombError":
            reason += " If you trust it, set PIL.Image.MAX_IMAGE_PIXELS = None first."
        raise ValueError(f"{filename} cannot be read: {reason}") from error
