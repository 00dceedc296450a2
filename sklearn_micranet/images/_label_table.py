"""Image-level labels in a CSV file: its cells by file name, and what they mean."""

import codecs
import csv
import io
import re
import unicodedata
from contextlib import suppress
from pathlib import Path

import numpy as np

from ._image_files import SUFFIXES

_DELIMITERS = ",;\t"
_MISSING = {"", "nan", "NaN", "NA"}  # as NumPy, pandas and R write a cell without a value


def file_key(name):
    """Return what a file's name and a cell that names it have in common.

    Folders are left out, whether they are separated in the way of Windows or of other systems.
    An accented letter counts as one character, as macOS decomposes it in names.
    """
    return unicodedata.normalize("NFC", re.split(r"[\\/]", str(name))[-1])


class LabelTable:
    """A CSV file with a header, the name of a file in each row, and its labels.

    Parameters
    ----------
    path : str or path-like
        Text in UTF-8, in UTF-16 with its byte order mark or else in Windows-1252 (Latin-1),
        separated by commas, semicolons or tabs.

    Attributes
    ----------
    keys : set of str
        Of the files that it names, as :func:`file_key` returns them.
    columns : list of str
        Names of the columns of labels.
    """

    def __init__(self, path):
        self.path = path
        header, *rows = _split(unicodedata.normalize("NFC", decoded(path)), path)
        self.columns = header[1:]
        self._cells = {file_key(row[0]): row[1:] for row in rows}
        self.keys = set(self._cells)
        if Path(header[0]).suffix.lower() in SUFFIXES:
            raise ValueError(f"{path} must have a header. Got {header[0]!r} instead.")
        if len(self._cells) < len(rows):
            raise ValueError(f"{path} must have one row per file name. Got a name twice instead.")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"{path} must name each column once. Got {self.columns} instead.")

    def check(self, filename):
        """Raise a ValueError unless a file has a label."""
        cells = self._cells.get(file_key(filename))
        if cells is None:
            raise ValueError(
                f"{filename} has no label in {self.path}: no row starts with its name, suffix "
                "included."
            )
        if not _MISSING.isdisjoint(cells):
            raise ValueError(
                f"{filename} has no label in {self.path}: its row has an empty cell, or one that "
                "says that the value is not available."
            )

    def targets(self, filenames):
        """Return y and the names of its classes.

        Returns
        -------
        labels : ndarray of shape (n_samples,) or (n_samples, n_classes)
        target_names : list of str
        """
        cells = np.array([self._cells[file_key(name)] for name in filenames])
        if self.columns == ["label"]:
            labels = cells[:, 0]
            # As int64, "01" and "1" would be one class; longer numbers are identifiers.
            if all(re.fullmatch("0|-?[1-9][0-9]*", label) for label in labels):
                with suppress(OverflowError):
                    labels = labels.astype(np.int64)
            return labels, [str(label) for label in np.unique(labels)]
        wrong = ~np.isin(cells, ["0", "1"])
        if wrong.any():
            raise ValueError(
                f"The columns {', '.join(self.columns)} must hold 0 or 1. Got "
                f"{str(cells[wrong][0])!r} instead; a single column of classes must be named label."
            )
        labels = cells.astype(np.int64)
        return (labels[:, 0] if len(self.columns) == 1 else labels), self.columns


def decoded(path):
    """Return the text of a CSV file, in whichever encoding a spreadsheet saved it."""
    data = Path(path).read_bytes()
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    if "\0" in text:
        raise ValueError(
            f"{path} must be a CSV file in UTF-8, UTF-16 with a byte order mark, or Latin-1. Got "
            "something else instead: save the table as CSV (UTF-8)."
        )
    return text


def _split(text, path):
    """Return the rows of cells, the header first; the delimiter is the one that fits."""
    tables = [_cells(text, delimiter) for delimiter in _DELIMITERS]
    fitting = [table for table in tables if table and len({len(row) for row in table}) == 1]
    fitting = [table for table in fitting if len(table[0]) > 1]
    if len(fitting) != 1:
        raise ValueError(
            f"{path} must have a header and rows of the same length, separated by commas, "
            "semicolons or tabs: the file name and either one column named label or one column "
            "per class."
        )
    return fitting[0]


def _cells(text, delimiter):
    """Return the rows of cells, without the empty rows and columns of a spreadsheet."""
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:  # such as an opening quote that is never closed
        return []
    rows = [[cell.strip() for cell in row] for row in rows]
    rows = [row for row in rows if any(row)]
    while rows and len(rows[0]) > 1 and all(row[-1:] == [""] for row in rows):
        rows = [row[:-1] for row in rows]
    return rows
