"""What all displays have in common, with scikit-learn's."""

import inspect
import os
import re
import subprocess
import sys

import pytest

from sklearn_micranet import displays
from sklearn_micranet.displays import _axes

DISPLAYS = [name for name in displays.__all__ if name.endswith("Display")]


def methods():
    """Methods of the displays that the checks of all public names do not reach."""
    for name in DISPLAYS:
        cls = getattr(displays, name)
        for method, function in vars(cls).items():
            if isinstance(function, classmethod):
                yield pytest.param(getattr(cls, method), id=f"{name}.{method}")
        yield pytest.param(cls.plot, id=f"{name}.plot")


METHODS = list(methods())


@pytest.mark.parametrize("name", DISPLAYS)
def test_displays_are_made_from_estimators_and_plotted(name):
    cls = getattr(displays, name)
    assert {"from_estimator"} < {method for method in vars(cls) if method.startswith("from_")}
    assert next(iter(inspect.signature(cls.plot).parameters.values())).name == "self"
    assert inspect.signature(cls.plot).parameters["ax"].default is None
    attributes = inspect.getdoc(cls).partition("Attributes")[2]
    assert "figure_ : matplotlib Figure" in attributes
    assert ("ax_ : matplotlib Axes" in attributes) != ("axes_ : ndarray" in attributes)


@pytest.mark.parametrize("method", METHODS)
def test_methods_describe_their_parameters_in_order(method):
    described = re.findall(r"^(\*{0,2}\w+) : ", inspect.getdoc(method).split("Returns")[0], re.M)
    parameters = [name for name in inspect.signature(method).parameters if name != "self"]
    assert [name.lstrip("*") for name in described] == parameters


@pytest.mark.parametrize("method", METHODS)
def test_defaults_described_are_those_of_the_code(method):
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.default is not parameter.empty:
            stated = re.search(rf"^{name} : .*default=(.*)$", inspect.getdoc(method), re.M)
            assert stated[1].strip("\"'") == str(parameter.default), name


def test_a_method_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    message = r'Install it with: pip install "sklearn-micranet\[plot\]"'
    with pytest.raises(ImportError, match=message):
        _axes.pyplot()
    with pytest.raises(ImportError, match=message):  # before the arguments are looked at
        displays.MaskDisplay.from_predictions(None, None)
    with pytest.raises(ImportError, match=message):
        displays.TrainingDisplay([1]).plot()


def test_importing_the_displays_imports_neither_matplotlib_nor_torch():
    code = "import sys; from sklearn_micranet.displays import *; print(*sys.modules)"
    # With SciPy's array API, which the tests switch on, scikit-learn looks for torch.
    environment = {k: v for k, v in os.environ.items() if k != "SCIPY_ARRAY_API"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert "sklearn_micranet" in modules
    assert not modules & {"matplotlib", "torch", "skorch"}
