"""Keys: short texts that are equal where the same thing would be computed, in every process."""

import copyreg
import linecache
import os
from collections.abc import Mapping, Set
from functools import singledispatch
from hashlib import sha256
from types import CodeType, FunctionType, ModuleType

import numpy as np

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DATA = (*_PLAIN, list, tuple, dict, set, frozenset, np.ndarray, np.generic)


def key_of(*values):
    """Return a key of values, among which may be arrays, functions, classes and objects.

    What counts of them:

    - of data the values, whatever the order of a dict or set;
    - of a function or class its name and the text of the whole file that defines it, unless that
      is a notebook or the script that runs, which other processes do not see; of a function also
      its code as it was loaded, its defaults, what it closes over, and the data, functions and
      classes of its own module that it uses;
    - of any other object its class and what :func:`parts_of` returns.

    Raises
    ------
    TypeError, AttributeError, RecursionError
        If an object cannot be taken apart, such as an open file.

    Examples
    --------
    >>> from sklearn_micranet._stack._keys import key_of
    >>> key_of([1, "a"]) == key_of([1, "a"])
    True
    """
    return _digest(repr(_described(values, set())).encode())


def key_of_array(array):
    """Return a key of the values, the dtype and the shape of an array."""
    array = np.asarray(array)
    if array.dtype.hasobject:
        return key_of(array.tolist())
    return _digest(f"{array.dtype.str} {array.shape} ".encode(), np.ascontiguousarray(array))


@singledispatch
def parts_of(value):
    """Return what an object is made of: as for pickle, unless its class is registered here."""
    reduce = copyreg.dispatch_table.get(type(value))
    parts = reduce(value) if reduce else value.__reduce_ex__(4)
    if isinstance(parts, str):  # a name in a module
        return getattr(value, "__module__", None), parts
    return [list(part) if hasattr(part, "__next__") else part for part in parts]


def _digest(*parts):
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _described(value, seen):
    """Return plain values and tuples of them that are equal where two values are.

    Functions and classes that were `seen` already, as in a recursion, count by their names.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray):
        return "array", key_of_array(value)
    if isinstance(value, ModuleType):
        return "module", value.__name__

    def inside(part):
        return _described(part, seen)

    name = type(value).__qualname__
    if isinstance(value, FunctionType | type):
        place = value.__module__, value.__qualname__
        if id(value) in seen:
            return place
        seen.add(id(value))
        return place, inside((_of_class if isinstance(value, type) else _of_function)(value))
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, inside(value.co_consts)
    if isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections"):
        return name, *sorted(((repr(inside(k)), inside(v)) for k, v in value.items()), key=repr)
    if isinstance(value, Set):
        return name, *sorted(repr(inside(part)) for part in value)
    if type(value) in (list, tuple):
        return name, *map(inside, value)
    return type(value).__module__, name, inside(parts_of(value))


def _of_function(function):
    code, used = function.__code__, function.__globals__
    uses = {n: used[n] for n in _names(code) if n in used}
    uses = {n: part for n, part in uses.items() if _is_of_module(part, used.get("__name__"))}
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    defaults = function.__defaults__, function.__kwdefaults__
    text = "" if function.__module__ == "__main__" else _text(code.co_filename)
    return [text, code, defaults, closure, uses]


def _of_class(cls):
    members = {n: part for n, part in vars(cls).items() if isinstance(part, FunctionType)}
    bases = [base for base in cls.__bases__ if base is not object]
    return [members, bases]


def _is_of_module(value, module):
    if isinstance(value, FunctionType | type):
        return value.__module__ == module
    return isinstance(value, _DATA)


def _names(code):
    """Return the global names that a function uses, those of functions inside it included."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return sorted({*code.co_names, *(name for part in inner for name in _names(part))})


def _text(filename):
    """Return the digest of a file, an empty text if there is none."""
    if not os.path.isfile(filename):
        return ""
    linecache.checkcache(filename)
    return _digest("".join(linecache.getlines(filename)).encode())
