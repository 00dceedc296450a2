import ast
import importlib
import os
import subprocess
import sys
from functools import partial, wraps

import numpy as np
import pytest

from sklearn_micranet._stack._keys import key_of, key_of_array, parts_of


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


triple.__name__ = triple.__qualname__ = "double"
FACTOR = 2


def with_constant(x):
    return FACTOR * x


def with_default(x, factor=FACTOR):
    return factor * x


def decorated(function):
    @wraps(function)
    def wrapper(x):
        return function(x)

    return wrapper


def scaled(factor):
    def decorator(function):
        @wraps(function)
        def wrapper(x):
            return factor * function(x)

        return wrapper

    return decorator


class Callable:
    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


@pytest.mark.parametrize("wrap", [lambda f: f, partial, decorated, Callable, lambda f: {"f": [f]}])
def test_functions_of_one_name_differ_by_their_code(wrap):
    assert key_of(wrap(double)) == key_of(wrap(double))
    assert key_of(wrap(double)) != key_of(wrap(triple))


@pytest.mark.parametrize("wrap", [partial, decorated, Callable])
def test_a_function_that_is_wrapped_is_another(wrap):
    assert key_of(wrap(double)) != key_of(double)


def test_what_a_decorator_closes_over_counts():
    twice, thrice = scaled(2), scaled(3)
    wrapped = [twice(double), thrice(double), twice(triple), twice(thrice(double))]
    assert len({key_of(function) for function in wrapped}) == 4
    assert key_of(wrapped[0]) == key_of(scaled(2)(double))


def test_constants_and_defaults_that_a_function_uses_count(monkeypatch):
    before = key_of(with_constant), key_of(with_default)
    monkeypatch.setitem(globals(), "FACTOR", 3)
    monkeypatch.setattr(with_default, "__defaults__", (3,))
    assert key_of(with_constant) != before[0]
    assert key_of(with_default) != before[1]


def test_values_and_classes_differ():
    class Other(Callable):
        pass

    values = [1, 2, "1", None, [1], np.ones(1), int, Callable, Callable(1), Other(1), len, np.abs]
    assert len({key_of(value) for value in values}) == len(values)


SCRIPT = """
import joblib
from functools import partial
from sklearn_micranet._stack._keys import key_of

class Callable:
    SIZES = (1, 2)

class Static:
    @staticmethod
    def double(x):
        return 2 * x

def double(x):
    return 2 * x

# notebook

if __name__ == "__main__":
    values = (double, partial(double, x=1), Callable(), Callable, Static, {"b", "a", "c"})
    print([key_of(value) for value in values])
    print(joblib.Parallel(2)(joblib.delayed(key_of)(value) for value in values))
"""


NOTEBOOK = """
source = "def double(x): return [2 * value for value in x if value in {'a', 'b'}]"
exec(compile(source, "<ipython-input-1>", "exec"))
"""


@pytest.mark.parametrize("is_notebook", [False, True])
def test_keys_are_the_same_in_every_process(tmp_path, is_notebook):
    # A process of joblib has neither the function nor the class of a script in its __main__, nor
    # the source of a notebook's functions.
    script = SCRIPT.replace("# notebook", NOTEBOOK if is_notebook else "")
    (tmp_path / "script.py").write_text(script)
    lines = []
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, str(tmp_path / "script.py")]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr
        lines += run.stdout.splitlines()
    assert len(lines) == 4
    assert len(set(lines)) == 1


def test_the_file_of_a_script_that_runs_counts_in_every_process(tmp_path):
    lines = []
    for text in (SCRIPT, SCRIPT.replace("2 * x", "2*x")):  # the same code
        (tmp_path / "script.py").write_text(text)
        command = [sys.executable, str(tmp_path / "script.py")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr
        lines.append(ast.literal_eval(run.stdout.splitlines()[1]))
    changed = [before != after for before, after in zip(*lines, strict=True)]
    assert changed == [True, True, False, False, True, False]  # nothing of the others was edited


def test_lambdas_differ_by_their_code():
    functions = [lambda x: x, lambda x: 2 * x, lambda x: 3 * x]
    assert len({key_of(function) for function in functions}) == 3


MODULE = """
SIZES = (1, 2)

def helper(x):
    return x + SIZES[0]

def augment(x):
    return helper(x)

class Callable:
    def __call__(self, x):
        return helper(x)

class Static:
    @staticmethod
    def augment(x):
        return helper(x)

class Class:
    @classmethod
    def augment(cls, x):
        return helper(x)

class Property:
    @property
    def augment(self):
        return helper(self)
"""


@pytest.mark.parametrize("name", ["augment", "Callable", "Static", "Class", "Property"])
@pytest.mark.parametrize(
    "edit", [("(1, 2)", "(1, 3)"), ("x + SIZES", "x - SIZES"), ("1, 2", "1,2")]
)
def test_the_file_that_defines_a_function_or_class_counts(tmp_path, name, edit):
    keys = []
    for text in (MODULE, MODULE, MODULE.replace(*edit)):
        path = tmp_path / "user_module.py"
        path.write_text(text)
        namespace = {"__name__": "user_module"}
        exec(compile(text, str(path), "exec"), namespace)
        keys.append(key_of(namespace[name]))
    assert keys[0] == keys[1] != keys[2]


def test_what_a_function_reaches_in_its_module_counts():
    # There is no file, as in a notebook.
    keys = []
    for text in (MODULE, MODULE, MODULE.replace("(1, 2)", "(3, 2)")):
        namespace = {"__name__": "__main__"}
        exec(compile(text, "<ipython-input-1>", "exec"), namespace)
        keys.append([key_of(namespace[name]) for name in ("augment", "Callable")])
    assert keys[0] == keys[1]
    assert keys[0][0] != keys[2][0]
    assert keys[0][1] != keys[2][1]


@pytest.mark.parametrize("use", ["from helpers import helper", "import helpers"])
def test_the_files_of_what_a_function_imports_count(tmp_path, monkeypatch, use):
    monkeypatch.syspath_prepend(tmp_path)
    call = "helper(x)" if "from" in use else "helpers.helper(x)"
    text = f"{use}\n\ndef augment(x):\n    return {call}\n"
    keys = []
    for factor in (2, 2, 3):
        (tmp_path / "helpers.py").write_text(f"def helper(x):\n    return {factor} * x\n")
        namespace = {"__name__": "__main__"}
        exec(compile(text, "<ipython-input-1>", "exec"), namespace)
        keys.append(key_of(namespace["augment"]))
        del sys.modules["helpers"]
    assert keys[0] == keys[1] != keys[2]


def test_the_file_of_a_class_without_methods_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for sizes in ("(1, 2)", "(1, 2)", "(1, 3)"):
        (tmp_path / "plain.py").write_text(f"class Sizes:\n    ALL = {sizes}\n")
        keys.append(key_of(importlib.import_module("plain").Sizes))
        del sys.modules["plain"]
    assert keys[0] == keys[1] != keys[2]


def test_the_attributes_of_a_class_without_a_file_count():
    keys = []
    for sizes in ("(1, 2)", "(1, 2)", "(1, 3)"):
        namespace = {"__name__": "__main__"}
        exec(f"class Sizes:\n    ALL = {sizes}\n", namespace)
        keys.append(key_of(namespace["Sizes"]))
    assert keys[0] == keys[1] != keys[2]


def recursive(n):
    return n and recursive(n - 1)


def test_recursion_ends():
    assert key_of(recursive) == key_of(recursive) != key_of(double)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, ">f4", bool, object])
def test_arrays_count_by_values_shape_and_dtype(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    others = [array.T, array.ravel(), array[:, ::-1], array.astype(np.complex64)]
    assert key_of_array(array) == key_of_array(np.asfortranarray(array))
    assert key_of_array(array) not in {key_of_array(other) for other in others}


def test_the_order_of_dicts_and_sets_does_not_count():
    assert key_of({"a": 1, "b": {2, 3}}) == key_of({"b": {3, 2}, "a": 1})
    assert key_of([1, 2]) != key_of([2, 1])


def test_an_open_file_cannot_be_taken_apart(tmp_path):
    with open(tmp_path / "file", "w") as file, pytest.raises(TypeError, match="cannot pickle"):
        key_of({"file": file})


def test_a_class_may_say_what_counts_of_its_objects():
    class Remembering:
        def __init__(self, setting):
            self.setting, self.last = setting, object()

    parts_of.register(Remembering)(lambda value: value.setting)
    assert key_of(Remembering(1)) == key_of(Remembering(1)) != key_of(Remembering(2))
