"""Images in files, and the labels beside them, as X and y."""

import csv
import glob
import os
import warnings
from contextlib import suppress
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_micranet._stack._lazy_stack import LazyStack

from ._image_files import read_header, read_image

_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg"}


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
    paths : str, path-like, or sequence of them
        Files, patterns (``"plate*/**/*.tif"``) or folders, of which the TIFF, PNG and JPEG files
        are read, not those of their subfolders. So are those of a pattern without a suffix
        (``"plate*/*"``). The files of a pattern or folder are sorted.
    labels : str or path-like, default=None
        CSV file with a header and one row per image. The first column is the file's name; its
        folder, if any, is ignored. Then follows either one column named ``label`` with the class
        of each image, or one column per class, named after it, with 1 where the class is present
        and 0 elsewhere. Rows of other files are ignored, but files without a row or
        with an empty cell in it, and rows whose file is missing in a folder that is read, are
        errors.
    plane : int or dict, default=None
        Which plane of a TIFF file with several is the image: its page, counted from 0, or one
        index per axis by the letters of OME-TIFF and ImageJ, such as
        ``{"T": 0, "C": 1, "Z": 5}``. Where neither chooses one, all channels are kept.
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
            Classes of the column ``label`` (int64 if all are such integers, else str), or the
            indicator columns (int64; a single one gives shape (n_samples,)).
        target_names : list of str, or None
            Classes of the column ``label``, sorted, or names of the indicator columns.
        filenames : list of str
            Path of each image.
        skipped : list of (str, str)
            Path and reason of each file that was left out, with ``on_error="skip"``.

    Raises
    ------
    FileNotFoundError
        If a pattern or folder holds no image.
    ValueError
        If a file cannot be read (it is named), or the labels do not fit the files.

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
    rows, names = (None, None) if labels is None else _read_rows(labels)
    filenames, headers, skipped = [], [], []
    for filename in _find_files(paths, rows):
        try:
            if rows is not None and "" in rows.get(Path(filename).name, [""]):
                raise ValueError(
                    f"{filename} has no label in {labels}: its row is missing or has an empty cell."
                )
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

    is_ragged = len(set(headers)) > 1
    targets, target_names = (None, None)
    if rows is not None:
        targets, target_names = _targets([rows[Path(name).name] for name in filenames], names)
    return Bunch(
        images=LazyStack(
            filenames,
            partial(_read_batch, plane=plane, is_ragged=is_ragged),
            item_shape=None if is_ragged else headers[0][0],
            dtype=np.result_type(*(dtype for _, dtype in headers)),
        ),
        labels=targets,
        target_names=target_names,
        filenames=filenames,
        skipped=skipped,
    )


def _find_files(paths, rows):
    """Return the files that `paths` mean, and those of `rows` that one folder should hold."""
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    filenames = []
    for path in map(Path, paths):
        if path.is_dir():
            found = _only_images(path.iterdir())
            if rows is not None and len(paths) == 1:
                found |= {str(path / name) for name in rows}  # A missing one fails when read.
        elif glob.has_magic(str(path)) and not path.exists():
            found = glob.iglob(str(path), recursive=True)
            names_a_suffix = path.suffix and not glob.has_magic(path.suffix)
            found = set(found) if names_a_suffix else _only_images(found)
        else:
            found = {str(path)}
        if not found:
            brackets = "[" in str(path) and not path.exists()
            raise FileNotFoundError(
                f"{path} must be an image, a pattern or a folder of {', '.join(sorted(_SUFFIXES))} "
                "files. Got no such file."
                + (" Pass brackets that belong to a name through glob.escape." if brackets else "")
            )
        filenames.extend(sorted(found))
    if rows is not None and len({Path(name).name for name in filenames}) < len(filenames):
        raise ValueError(
            "Files must differ in name, or their labels cannot be told apart. Got files of the "
            "same name from several folders; read one folder at a time."
        )
    return filenames


def _only_images(files):
    return {str(file) for file in files if Path(file).suffix.lower() in _SUFFIXES}


def _read_rows(path):
    """Return the cells of each row by file name, and the names of their columns."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row] or [[]]
    cells = {Path(row[0]).name: row[1:] for row in rows}
    if len(header) < 2 or any(len(row) != len(header) for row in rows):
        raise ValueError(
            f"{path} must have a header and rows of the same length, separated by commas: the "
            "file name and either one column named label or one column per class."
        )
    if len(cells) < len(rows):
        raise ValueError(f"{path} must have one row per file name. Got a name twice instead.")
    return cells, header[1:]


def _targets(rows, names):
    """Turn the cells of the CSV file into y and the names of its classes."""
    cells = np.array(rows)
    if names == ["label"]:
        labels = cells[:, 0]
        if all(label.removeprefix("-").isdecimal() for label in labels):
            with suppress(OverflowError):  # Longer numbers, such as identifiers, stay strings.
                labels = labels.astype(np.int64)
        return labels, [str(label) for label in np.unique(labels)]
    if not np.isin(cells, ["0", "1"]).all():
        raise ValueError(
            f"The columns {', '.join(names)} must hold 0 or 1. Got other values instead; a single "
            "column of classes must be named label."
        )
    labels = cells.astype(np.int64)
    return labels[:, 0] if len(names) == 1 else labels, names


def _report(skipped, filenames):
    reasons = "\n".join(reason for _, reason in skipped)
    if not filenames:
        raise ValueError(f"No file could be read:\n{reasons}")
    warnings.warn(f"{len(skipped)} file(s) skipped:\n{reasons}", UserWarning, stacklevel=4)


def _read_batch(filenames, *, plane, is_ragged):
    images = [read_image(filename, plane) for filename in filenames]
    return images if is_ragged else np.stack(images)
