"""Keeping what was computed on disk: what every parameter `memory` means."""

import numpy as np
from sklearn.utils.validation import check_memory


def kept(memory, key, compute):
    """Return what a folder keeps under a key; compute and keep it if there is nothing.

    Parameters
    ----------
    memory : str or object with the joblib.Memory interface
        The folder.
    key : str
        Tells all that the result depends on.
    compute : callable
        Takes nothing and returns an ndarray, or any picklable object. Of an array, rows along the
        first axis that are zero throughout, as maps of absent classes are, take no room.
    """
    result = _cached(memory)(key, compute)
    return result.unpacked() if isinstance(result, _Rows) else result


def is_kept(memory, key):
    """Whether a folder keeps something under a key; yes where its memory does not tell."""
    tells = getattr(_cached(memory), "check_call_in_cache", None)
    return tells is None or tells(key, None)


def _cached(memory):
    return check_memory(memory).cache(_packed, ignore=["compute"])


def _packed(key, compute):
    result = compute()
    return _Rows(result) if isinstance(result, np.ndarray) and result.ndim > 1 else result


class _Rows:
    """An array without the rows that are zero."""

    def __init__(self, array):
        self.shape = array.shape
        self.present = np.flatnonzero(array.reshape(len(array), -1).any(axis=1))
        self.rows = array[self.present]

    def unpacked(self):
        array = np.zeros(self.shape, dtype=self.rows.dtype)
        array[self.present] = self.rows
        return array
