"""Images read one by one from a zip archive, which stays packed."""

import io
import zipfile
from functools import partial

from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet.images._image_files import read_image


def zipped_images(archive, names):
    """Return the lazy stack of some images of a zip archive.

    Nothing is unpacked to the disk, and no image stays in memory. The archive is opened anew for
    every batch, so the stack can be pickled and read from several threads and processes.

    Parameters
    ----------
    archive : path-like
        The zip archive.
    names : list of str of length n_samples, not empty
        Names of TIFF, PNG or JPEG files inside the archive.

    Returns
    -------
    images : LazyStack of length n_samples
        Arrays of shape (height, width) or (height, width, n_channels), with the dtype of the
        files. They may differ in size.
    """
    (first,) = _read_images(archive, names[:1])
    return LazyStack(names, partial(_read_images, archive), item_shape=None, dtype=first.dtype)


def _read_images(archive, names):
    with zipfile.ZipFile(archive) as members:
        return [
            read_image(f"{archive}/{name}", file=io.BytesIO(members.read(name))) for name in names
        ]
