import os
import subprocess
import sys
from functools import partial, wraps
from pickle import PicklingError

import numpy as np
import pytest

from sklearn_micranet._stack._hash import Hasher


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


def hash_of(value):
    return Hasher().hash(value)


@pytest.mark.parametrize("wrap", [lambda f: f, partial, decorated, Callable, lambda f: {"f": [f]}])
def test_functions_of_one_name_differ_by_their_code(wrap):
    assert hash_of(wrap(double)) == hash_of(wrap(double))
    assert hash_of(wrap(double)) != hash_of(wrap(triple))


@pytest.mark.parametrize("wrap", [partial, decorated, Callable])
def test_a_function_that_is_wrapped_is_another(wrap):
    assert hash_of(wrap(double)) != hash_of(double)


def test_what_a_decorator_closes_over_counts():
    twice, thrice = scaled(2), scaled(3)
    wrapped = [twice(double), thrice(double), twice(triple), twice(thrice(double))]
    assert len({hash_of(function) for function in wrapped}) == 4
    assert hash_of(wrapped[0]) == hash_of(scaled(2)(double))


def test_constants_and_defaults_that_a_function_uses_count(monkeypatch):
    before = hash_of(with_constant), hash_of(with_default)
    monkeypatch.setitem(globals(), "FACTOR", 3)
    monkeypatch.setattr(with_default, "__defaults__", (3,))
    assert hash_of(with_constant) != before[0]
    assert hash_of(with_default) != before[1]


def test_values_and_classes_differ():
    class Other(Callable):
        pass

    values = [1, 2, "1", None, [1], np.ones(1), int, Callable, Callable(1), Other(1), len, np.abs]
    assert len({hash_of(value) for value in values}) == len(values)


SCRIPT = """
import joblib
from functools import partial
from sklearn_micranet._stack._hash import Hasher

class Callable:
    pass

def double(x):
    return 2 * x

def hash_of(value):
    return Hasher().hash(value)

if __name__ == "__main__":
    values = (double, partial(double, x=1), Callable(), Callable, {"b", "a", "c"})
    print([hash_of(value) for value in values])
    print(joblib.Parallel(2)(joblib.delayed(hash_of)(value) for value in values))
"""


NOTEBOOK = """
source = "def double(x): return [2 * value for value in x if value in {'a', 'b'}]"
exec(compile(source, "<ipython-input-1>", "exec"))
"""


def test_hashes_are_the_same_in_every_process(tmp_path):
    # A process of joblib has neither the function nor the class of a script in its __main__, nor
    # the source of a notebook's functions.
    script = SCRIPT.replace("def hash_of", NOTEBOOK + "\ndef hash_of")
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


@pytest.mark.parametrize("function", [lambda x: x, decorated(lambda x: x)])
def test_a_function_that_depends_on_what_is_around_is_refused(function):
    with pytest.raises(PicklingError, match="lambda"):
        hash_of(function)
