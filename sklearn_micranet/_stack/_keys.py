"""Keys: short texts that are equal where the same thing would be computed, in every process."""

import copyreg
import os
import sys
from collections.abc import Mapping, Set
from functools import lru_cache, singledispatch
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import numpy as np

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DATA = (*_PLAIN, list, tuple, dict, set, frozenset, np.ndarray, np.generic)
_COUNTED = (*_DATA, FunctionType, type, ModuleType)


def key_of(*values):
    """Return a key of values, among which may be arrays, functions, classes and objects.

    What counts of them:

    - of data the values, whatever the order of a dict or set;
    - of a function or class its name and the whole file that defines it, if there is one; of a
      function also its code as it was loaded, its defaults, what it closes over, the data,
      functions and classes of its own module that it uses, and the files of those that it uses of
      other modules; of a class also its methods and bases, without a file its attributes too;
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
        return "module", value.__name__, _digest_of_file(getattr(value, "__file__", None))

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
    uses = {n: _as_used(used[n], used.get("__name__")) for n in _names(code) if n in used}
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    defaults = function.__defaults__, function.__kwdefaults__
    return [_file_of(function), code, defaults, closure, uses]


def _of_class(cls):
    file = _file_of(cls)
    counted = FunctionType if file else (FunctionType, *_DATA)
    members = {name: _functions_in(part) for name, part in vars(cls).items() if name != "__doc__"}
    members = {name: part for name, part in members.items() if isinstance(part, counted)}
    bases = [base for base in cls.__bases__ if base is not object]
    return [file, members, bases]


def _functions_in(member):
    """Return the function of a static method, class method or property."""
    if isinstance(member, property):
        return member.fget
    return getattr(member, "__func__", member)


def _as_used(value, module):
    """Return what counts of a global value that a function of a module uses."""
    if isinstance(value, FunctionType | type) and value.__module__ != module:
        return value.__module__, value.__qualname__, _file_of(value)
    return value if isinstance(value, _COUNTED) else None


def _names(code):
    """Return the global names that a function uses, those of functions inside it included."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return sorted({*code.co_names, *(name for part in inner for name in _names(part))})


def _file_of(value):
    """Return the digest of the file that defines a function or class, an empty text without one."""
    if isinstance(value, FunctionType):
        # A function of a script has lost the name of its file in the processes of joblib, where
        # its globals still have it.
        file = value.__code__.co_filename
        return _digest_of_file(file) or _digest_of_file(value.__globals__.get("__file__"))
    if value.__module__ == "__main__":  # which is another one in the processes of joblib
        return ""
    return _digest_of_file(getattr(sys.modules.get(value.__module__), "__file__", None))


def _digest_of_file(file):
    if file is None or not os.path.isfile(file):
        return ""
    state = os.stat(file)
    return _digest_of_file_as_it_is(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _digest_of_file_as_it_is(file, time, size):
    return _digest(Path(file).read_bytes())
