"""Warnings that point at the line of the user."""

import inspect
import warnings

_NOT_THE_USER = {"sklearn_micranet", "sklearn", "skorch", "joblib", "contextlib"}


def warn_user(message, category=UserWarning):
    """Warn at the line from which this package, or one that calls it, was called."""
    frame, level = inspect.currentframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
