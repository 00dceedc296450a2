"""Checks of numbers as scikit-learn's, but that True and False are no numbers.

``pixel_size=True`` would silently be 1 otherwise.
"""

from sklearn.utils import _param_validation
from sklearn.utils import check_scalar as _check_scalar


class Interval(_param_validation.Interval):
    """Constraint: a number of an interval, and no bool."""

    def is_satisfied_by(self, value):
        """Say whether a value fulfils the constraint."""
        return not isinstance(value, bool) and super().is_satisfied_by(value)


def check_scalar(x, name, target_type, **bounds):
    """Return a number after :func:`sklearn.utils.check_scalar`, and refuse a bool."""
    if isinstance(x, bool):
        raise TypeError(f"{name} must be a number. Got {x} instead.")
    return _check_scalar(x, name, target_type, **bounds)
