"""Detections and true positions of one image."""

import numpy as np

from sklearn_micranet.metrics import match_points
from sklearn_micranet.metrics._matching import check_points as _check_points


def check_points(rows, name, n_columns):
    """Return rows (map index, row, column) of the detections or true positions of one image."""
    if np.size(rows) == 0:
        return np.empty((0, max(n_columns)))
    rows = _check_points(rows, name)
    if rows.shape[1] not in n_columns:
        raise ValueError(
            f"{name} of an image must have {' or '.join(map(str, n_columns))} columns, the first "
            f"three of them map index, row and column. Got {rows.shape[1]} columns instead."
        )
    if np.any(rows[:, 0] % 1) or np.any(rows[:, 0] < 0):
        raise ValueError(
            f"The first column of {name} must hold map indices, whole numbers from 0. "
            f"Got {rows[:, 0]} instead."
        )
    return rows


def compare_points(found, true, max_distance):
    """Return the rows that are matched, with their partners, missed, and false alarms."""
    index_true, index_found = [], []
    for k in np.intersect1d(found[:, 0], true[:, 0]):
        of_true, of_found = (np.flatnonzero(rows[:, 0] == k) for rows in (true, found))
        i, j = match_points(true[of_true, 1:3], found[of_found, 1:3], max_distance=max_distance)
        index_true.extend(of_true[i])
        index_found.extend(of_found[j])
    found = found[:, :3]
    return {
        "matched": found[index_found],
        "matched true": true[index_true],
        "missed": np.delete(true, index_true, axis=0),
        "false alarm": np.delete(found, index_found, axis=0),
    }
