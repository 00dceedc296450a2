"""Lists of what an expert is to accept or decline, as CSV files."""

import csv
import re
from io import StringIO
from os import PathLike

import numpy as np
from sklearn.utils._param_validation import validate_params

from sklearn_micranet._stack._files import atomic_path
from sklearn_micranet.images._label_table import decoded

DECISIONS = ("accept", "decline", "")
_UNDECIDED = {"nan", "none", "<na>"}  # as pandas reads and writes an empty cell
_TRUTH = {"true": True, "false": False}  # spreadsheets write them in capitals
_NAME = re.compile(r"[-+]?0\d|.*_")  # what looks like a number but is a name: 007, 1_2


@validate_params({"path": [str, PathLike]}, prefer_skip_nested_validation=True)
def write_decisions(path, proposals):
    """Write a list of windows or objects to inspect, the highest score first.

    The file has the columns of `proposals` after a "rank" from 1 on, and before a "decision" that
    the expert fills in: "accept", "decline", or nothing for what has not been looked at.

    Parameters
    ----------
    path : str or path-like
        CSV file to write, in UTF-8 with commas. Folders are made as needed, and an existing file
        is overwritten.
    proposals : dict of array-like of shape (n_proposals,)
        Columns by their names, or a DataFrame. "score" is required. A column "decision" keeps
        what was decided before, and is nothing where it is NaN or None; "rank" is replaced.

    Raises
    ------
    ValueError
        If "score" is missing or not finite, columns differ in length, or a decision is none.

    See Also
    --------
    read_decisions : Reads the file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_micranet.displays import write_decisions
    >>> proposals = {"image": ["a.tif", "b.tif"], "row": [0, 64], "score": [0.4, 0.9]}
    >>> with TemporaryDirectory() as folder:
    ...     write_decisions(f"{folder}/list.csv", proposals)
    ...     print(Path(f"{folder}/list.csv").read_text())
    rank,image,row,score,decision
    1,b.tif,64,0.9,
    2,a.tif,0,0.4,
    <BLANKLINE>
    """
    columns = {str(name): np.asarray(proposals[name]) for name in proposals}
    if "score" not in columns:
        raise ValueError(f'proposals must have a column "score". Got {sorted(columns)} instead.')
    shapes = {name: values.shape for name, values in columns.items()}
    n_proposals = len(columns["score"])
    if set(shapes.values()) != {(n_proposals,)}:
        raise ValueError(
            f"Columns must have shape (n_proposals,), all the same. Got {shapes} instead."
        )
    scores = columns["score"].astype(np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("Scores must be finite. Got NaN or infinity instead.")
    decisions = columns.pop("decision", np.full(n_proposals, ""))
    decisions = [_decision(value, row) for row, value in enumerate(decisions, start=1)]
    columns.pop("rank", None)

    order = np.argsort(-scores, kind="stable")
    lists = [columns[name][order].tolist() for name in columns]
    with atomic_path(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rank", *columns, "decision"])
        ranks = range(1, n_proposals + 1)
        writer.writerows(zip(ranks, *lists, [decisions[i] for i in order], strict=True))


@validate_params({"path": [str, PathLike]}, prefer_skip_nested_validation=True)
def read_decisions(path):
    """Read a list of windows or objects in which an expert accepted or declined.

    Parameters
    ----------
    path : str or path-like
        CSV file of :func:`write_decisions`, edited by hand or in a spreadsheet: separated by
        commas, semicolons (with decimal commas, as European spreadsheets write) or tabs, in UTF-8,
        UTF-16 or Windows' Western encoding.

    Returns
    -------
    proposals : dict of ndarray of shape (n_proposals,)
        Columns by their names, in the file's order: int64 or float64 where all values are numbers,
        bool where all are true or false, otherwise str. "decision" holds "accept", "decline" or "",
        whatever the case in the file.

    Raises
    ------
    ValueError
        If "score" or "decision" is missing, a row has another number of values than the head, or
        a decision is none.

    See Also
    --------
    InspectionDisplay : Recall against inspected area, from what was accepted.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_micranet.displays import read_decisions, write_decisions
    >>> proposals = {"score": [0.4, 0.9], "decision": ["decline", "accept"]}
    >>> with TemporaryDirectory() as folder:
    ...     write_decisions(f"{folder}/list.csv", proposals)
    ...     decided = read_decisions(f"{folder}/list.csv")
    >>> (decided["decision"] == "accept").tolist()
    [True, False]
    """
    text = decoded(path)
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    lines = csv.reader(StringIO(text), delimiter=separator)
    names, *rows = [row for row in lines if any(row)] or [[]]
    if missing := {"score", "decision"} - set(names):
        raise ValueError(
            f"The file must have the columns score and decision. Got {names} without "
            f"{sorted(missing)} instead. Keep the first line that write_decisions wrote."
        )
    for line, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise ValueError(
                f"Each row must have {len(names)} values, as the first line does. Got {len(row)} "
                f"in row {line} instead."
            )
    columns = {
        name: _typed([row[i] for row in rows], is_comma_decimal=separator == ";")
        for i, name in enumerate(names)
        if name != "decision"
    }
    if rows and columns["score"].dtype.kind == "U":
        raise ValueError(f"All scores must be numbers. Got {columns['score'].tolist()} instead.")
    position = names.index("decision")
    decided = [_decision(row[position], line) for line, row in enumerate(rows, start=2)]
    return {name: columns.get(name, np.array(decided, dtype=str)) for name in names}


def _decision(value, row):
    decision = str(value).strip().lower()
    if decision in _UNDECIDED:
        return ""
    if decision not in DECISIONS:
        raise ValueError(
            'A decision must be "accept", "decline" or empty. '
            f"Got {str(value)!r} in row {row} instead."
        )
    return decision


def _typed(values, is_comma_decimal):
    """Return texts as an array of integers, of floats, of bool or else of texts."""
    truth = [_TRUTH.get(value.lower()) for value in values]
    if values and None not in truth:
        return np.array(truth)
    if any(_NAME.match(value) for value in values):
        return np.array(values, dtype=str)
    numbers = [v.replace(",", ".") for v in values] if is_comma_decimal else values
    for dtype in (np.int64, np.float64):
        try:
            return np.array(numbers, dtype=str).astype(dtype)
        except ValueError:
            continue
    return np.array(values, dtype=str)
