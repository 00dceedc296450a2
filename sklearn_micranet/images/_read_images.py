"""Images in files, and the labels beside them, as X and y."""

import glob
import os
import re
import warnings
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_micranet._stack._lazy_stack import LazyStack

from ._image_files import SUFFIXES, read_header, read_image
from ._label_table import LabelTable, file_key


@validate_params(
    {
        "labels": [str, os.PathLike, None],
        "plane": [Integral, dict, None],
        "on_error": [StrOptions({"raise", "skip"})],
    },
    prefer_skip_nested_validation=True,
)
def read_images(paths, *, labels=None, plane=None, on_error="raise"):
    """Read images from TIFF, PNG and JPEG files, each when it is needed.

    Parameters
    ----------
    paths : str, path-like, or iterable of them
        Files, patterns (``"plate*/**/*.tif"``) or folders, of which the TIFF, PNG and JPEG files
        are read, not those of their subfolders. So are those of a pattern without a suffix
        (``"plate*/*"``). The files of a pattern or folder are sorted by name, numbers in it by
        their value (``img2`` before ``img10``); hidden ones (``._a.tif``) are left out.
    labels : str or path-like, default=None
        CSV file with a header and one row per image. The first column is the file's name; its
        folder, if any, is ignored. Then follows either one column named ``label`` with the class
        of each image, or one column per class, named after it, with 1 where the class is present
        and 0 elsewhere. Rows of other files are ignored, but files without a row or
        with a cell in it that is empty, ``nan`` or ``NA``, and rows whose file is missing in a
        folder that is read, are errors. Cells are separated by commas, semicolons or tabs; the
        text is UTF-8, UTF-16 with its byte order mark, or else Windows-1252 (Latin-1).
    plane : int or dict, default=None
        Which plane of a TIFF file with several is the image: its page, counted from 0, or one
        index per axis by the letters of OME-TIFF and ImageJ, such as
        ``{"T": 0, "C": 1, "Z": 5}``. Where neither chooses one, all channels are kept. A file of
        a set of OME-TIFF files counts with its own planes only, by their indices in the set.
    on_error : {"raise", "skip"}, default="raise"
        Whether a file that cannot be read, or has no label, raises an error or is left out.
        ``"raise"`` reads the headers now and meets damaged pixels when it reads them; ``"skip"``
        decodes every file once now, so that damaged ones are known.

    Returns
    -------
    data : :class:`sklearn.utils.Bunch`
        images : LazyStack of shape (n_samples, height, width) or \
                (n_samples, height, width, n_channels)
            The images in the files' dtype. If they differ in size or dtype, a ragged stack: a
            sequence of arrays, legal for inference and, of one dtype, for :func:`extract_crops`.
        labels : ndarray of shape (n_samples,) or (n_samples, n_classes), or None
            Classes of the column ``label`` (int64 if all are such integers, written without
            leading zeros, else str), or the indicator columns (int64; a single one gives shape
            (n_samples,)).
        target_names : list of str, or None
            Classes of the column ``label``, sorted, or names of the indicator columns.
        filenames : list of str
            Path of each image.
        skipped : list of (str, str)
            Path and reason of each file that was left out, with ``on_error="skip"``.

    Raises
    ------
    TypeError
        If `paths` are no paths.
    FileNotFoundError
        If a pattern or folder holds no image.
    ValueError
        If a file cannot be read (it is named), files differ in their number of channels, or the
        labels do not fit the files.

    Warns
    -----
    UserWarning
        If files were skipped.

    See Also
    --------
    extract_crops : Cut images into crops with image-level labels.

    Notes
    -----
    Memory grows with what is read at a time: each file is decoded whenever its image is read, and
    forgotten. A stack of equal planes in one TIFF file is X already when it is opened with
    :func:`tifffile.memmap` or :func:`tifffile.imread`.

    An image is what the file shows, turned upright as its EXIF or TIFF orientation says (unlike in
    ImageJ, so that masks drawn there may have to be turned, too). Colours of palettes are looked
    up, and grey palettes are grey; but the intensities of a grey TIFF file are those stored,
    whatever lookup table it is displayed with. An alpha channel is left out if all of it is opaque.

    Refused, by the name of the file, is what is no image of real numbers or could be read in
    several ways: several frames or planes, transparent pixels, NaN and infinity, CMYK.

    Some TIFF files, such as those compressed with JPEG or ZSTD, need imagecodecs:
    ``pip install "sklearn-micranet[tiff]"``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from sklearn_micranet.images import read_images
    >>> with TemporaryDirectory() as folder:
    ...     for i in range(3):
    ...         imsave(f"{folder}/{i}.png", np.full((4, 5), i, np.uint8), check_contrast=False)
    ...     rows = [["0.png", "empty"], ["1.png", "cells"], ["2.png", "cells"]]
    ...     np.savetxt(f"{folder}/y.csv", rows, "%s", ",", header="file,label", comments="")
    ...     data = read_images(folder, labels=f"{folder}/y.csv")
    ...     X, y = np.asarray(data.images), data.labels
    >>> X.shape, y.tolist()
    ((3, 4, 5), ['empty', 'cells', 'cells'])
    """
    table = None if labels is None else LabelTable(labels)
    filenames, headers, skipped = [], [], []
    for filename in _find_files(paths, table):
        try:
            if table is not None:
                table.check(filename)
            if on_error == "skip":
                image = read_image(filename, plane)
                header = image.shape, image.dtype
            else:
                header = read_header(filename, plane)
        except ValueError as error:
            if on_error == "raise":
                raise
            skipped.append((filename, str(error)))
        else:
            filenames.append(filename)
            headers.append(header)
    if skipped or not filenames:
        _report(skipped, filenames)
    _check_channels(filenames, [shape for shape, _ in headers])

    header = headers[0] if len(set(headers)) == 1 else None
    targets, target_names = (None, None) if table is None else table.targets(filenames)
    return Bunch(
        images=LazyStack(
            filenames,
            partial(_read_batch, plane=plane, header=header),
            item_shape=header and header[0],
            dtype=np.result_type(*(dtype for _, dtype in headers)),
        ),
        labels=targets,
        target_names=target_names,
        filenames=filenames,
        skipped=skipped,
    )


def _find_files(paths, table):
    """Return the files that `paths` mean, and those of the table that one folder should hold."""
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"paths must be paths. Got a {type(path).__name__} instead.")
    filenames = []
    for path in map(Path, paths):
        if path.is_dir():
            found = _only_images(path.iterdir())
            if table is not None and len(paths) == 1:
                found |= _missing_files(path, found, table)
        elif glob.has_magic(str(path)) and not path.exists():
            found = glob.iglob(str(path), recursive=True)
            names_a_suffix = path.suffix and not glob.has_magic(path.suffix)
            found = _only_files(found) if names_a_suffix else _only_images(found)
        else:
            found = {str(path)}
        if not found:
            brackets = "[" in str(path) and not path.exists()
            raise FileNotFoundError(
                f"{path} must be an image, a pattern or a folder of {', '.join(sorted(SUFFIXES))} "
                "files. Got no such file."
                + (" Pass brackets that belong to a name through glob.escape." if brackets else "")
            )
        filenames.extend(sorted(found, key=_natural))
    if table is not None and len(set(map(file_key, filenames))) < len(filenames):
        raise ValueError(
            "Files must differ in name, or their labels cannot be told apart. Got files of the "
            "same name from several folders; read one folder at a time."
        )
    return filenames


def _natural(name):
    """Return what names are sorted by: numbers in them count by their value."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdecimal() else part for part in parts], name


def _only_files(paths):
    """Leave out folders, and hidden files, such as the ``._a.tif`` that macOS adds to copies."""
    return {str(p) for p in map(Path, paths) if not p.name.startswith(".") and p.is_file()}


def _only_images(paths):
    return _only_files(path for path in paths if Path(path).suffix.lower() in SUFFIXES)


def _missing_files(folder, found, table):
    """Return what the table names and the folder lacks, which fails when it is read."""
    found = set(map(file_key, found))
    return {str(folder / key) for key in table.keys - found if not key.startswith(".")}


def _check_channels(filenames, shapes):
    """Raise a ValueError that names a file of each number of channels, if there are several."""
    by_channels = {}
    for filename, shape in zip(filenames, shapes, strict=True):
        by_channels.setdefault(shape[2] if len(shape) > 2 else 1, []).append(filename)
    if len(by_channels) > 1:
        got = "; ".join(f"{n} in {len(f)}, such as {f[0]}" for n, f in by_channels.items())
        raise ValueError(
            "All files must have the same number of channels, 1 if they are grey. Got "
            f"{got} instead. Read them apart, or save them alike."
        )


def _report(skipped, filenames):
    reasons = "\n".join(reason for _, reason in skipped)
    if not filenames:
        raise ValueError(f"No file could be read:\n{reasons}")
    warnings.warn(f"{len(skipped)} file(s) skipped:\n{reasons}", UserWarning, stacklevel=4)


def _read_batch(filenames, *, plane, header):
    images = [read_image(filename, plane) for filename in filenames]
    if header is None:
        return images
    for filename, image in zip(filenames, images, strict=True):
        if (image.shape, image.dtype) != header:
            raise ValueError(
                f"{filename} has changed since read_images: its shape and dtype were {header[0]} "
                f"and {header[1]}. Got {image.shape} and {image.dtype} instead."
            )
    return np.stack(images)
