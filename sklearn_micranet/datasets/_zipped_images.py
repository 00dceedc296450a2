"""Images read one by one from a zip archive, which stays packed."""

import zipfile
from functools import partial
from pathlib import PurePosixPath

from sklearn_micranet._lazy_stack import LazyStack


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
    import imageio.v3 as imageio

    with zipfile.ZipFile(archive) as members:
        return [
            imageio.imread(members.read(name), extension=PurePosixPath(name).suffix)
            for name in names
        ]
