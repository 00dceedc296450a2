"""Hashes of parameters that are the same in every process."""

from types import CodeType, FunctionType

from joblib.hashing import NumpyHasher

_PLAIN = (bool, int, float, str)


class Hasher(NumpyHasher):
    """Hash like :func:`joblib.hash`, but a function by what it does, and a class by its name.

    Neither has to be importable, as those of a notebook are not in the processes of joblib. A
    function counts by its code, defaults, closure, and the global numbers and strings it uses,
    but not by the code of the functions it calls. A lambda, or a function inside a function, is
    refused as by pickle, unless it is behind a decorator.

    Examples
    --------
    >>> from sklearn_micranet._stack._hash import Hasher
    >>> Hasher().hash([1, "a"]) == Hasher().hash([1, "a"])
    True
    """

    def save(self, obj):
        """Add an object, or what stands for it, to what is hashed."""
        if isinstance(obj, FunctionType) and "<" not in obj.__qualname__:
            # joblib hashes a function by its name; edited, it has to be another.
            code, used = obj.__code__, obj.__globals__
            obj = (
                (obj.__module__, obj.__qualname__, code, obj.__defaults__, obj.__kwdefaults__),
                [cell.cell_contents for cell in obj.__closure__ or ()],
                {n: used[n] for n in code.co_names if isinstance(used.get(n), _PLAIN)},
            )
        elif isinstance(obj, CodeType):
            obj = (obj.co_code, obj.co_names, obj.co_consts)
        elif isinstance(obj, type):
            obj = (obj.__module__, obj.__qualname__)
        elif isinstance(obj, frozenset):  # of constants, such as the right side of `in {1, 2}`
            obj = set(obj)
        super().save(obj)
