"""Hashes of parameters that are the same in every process."""

from inspect import unwrap
from types import FunctionType

from joblib.func_inspect import get_func_code
from joblib.hashing import NumpyHasher


class Hasher(NumpyHasher):
    """Hash like :func:`joblib.hash`, but a function by its source too, and a class by its name.

    Neither has to be importable, as those of a notebook are not in the processes of joblib. A
    lambda, or a function inside a function, is refused as by pickle: it depends on what is around.

    Examples
    --------
    >>> from sklearn_micranet._hash import Hasher
    >>> Hasher().hash([1, "a"]) == Hasher().hash([1, "a"])
    True
    """

    def save(self, obj):
        """Add an object, or what stands for it, to what is hashed."""
        if isinstance(obj, FunctionType) and "<" not in obj.__qualname__:
            # joblib hashes a function by its name; edited, it has to be another.
            code = [get_func_code(function)[0] for function in (obj, unwrap(obj))]
            obj = (obj.__module__, obj.__qualname__, code)
        elif isinstance(obj, type):
            obj = (obj.__module__, obj.__qualname__)
        super().save(obj)
