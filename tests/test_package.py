import ast
import inspect
import os
import re
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

import sklearn_micranet

PACKAGE = Path(sklearn_micranet.__file__).parent
ROOT = PACKAGE.parent
SUBPACKAGES = ("metrics", "datasets", "images", "displays")
NAMESPACES = ("sklearn_micranet", *(f"sklearn_micranet.{name}" for name in SUBPACKAGES))

# The data's direction: what lies in a folder imports folders of a lower rank only. The folders of
# the last rank but one stay beside each other; at the door, one file per public estimator.
RANKS = [
    {"_stack"},
    {"_labels"},
    {"_network", "_masks", "_fields", "metrics", "images"},
    {"_training", "_guided", "datasets", "displays"},
    {"door"},
]
WITH_TORCH = {"_network", "_training", "_guided", "door"}


def public_names(namespace):
    return [name for name in import_module(namespace).__all__ if name not in SUBPACKAGES]


PUBLIC = [(namespace, name) for namespace in NAMESPACES for name in public_names(namespace)]


# --- imports --------------------------------------------------------------------------------


def imported_after(code):
    """Top-level packages that a fresh interpreter has imported after running some code."""
    environment = {k: v for k, v in os.environ.items() if k != "SCIPY_ARRAY_API"}
    code += "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return set(process.stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    imported = imported_after("import sklearn_micranet")
    assert "sklearn_micranet" in imported
    heavy = {"torch", "skorch", "matplotlib", "skimage", "sklearn", "scipy", "pandas", "pooch"}
    assert not imported & heavy


def test_what_follows_the_network_works_without_torch():
    imported = imported_after("""
import numpy as np
from sklearn_micranet import HungarianDetector, PCAFeatureMap, ThresholdSegmenter, metrics
maps = np.random.default_rng(0).random((2, 2, 8, 12, 12))
feature_maps = PCAFeatureMap().fit_transform(maps)
segments = ThresholdSegmenter().fit_transform(feature_maps)
HungarianDetector().fit(segments).score(segments, np.asarray(segments) != 0)
metrics.symmetric_boundary_dice_score(maps[:, :, 0] > 0.5, np.asarray(segments) != 0)
""")
    assert {"sklearn_micranet", "sklearn", "scipy"} <= imported
    assert not imported & {"torch", "skorch", "matplotlib"}


def test_data_sets_work_without_torch():
    imported = imported_after("""
from sklearn_micranet import datasets
datasets.make_digit_canvases(1, image_size=64, n_digits=1, random_state=0)
""")
    assert "sklearn" in imported
    assert not imported & {"torch", "skorch", "matplotlib"}


def imports(path):
    """Modules that a file of the package imports anywhere, absolute and with all parents."""
    package = (PACKAGE.name, *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def folder(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "door"


def folders_imported(path):
    """Folders of the package that a file imports from, besides its own."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("sklearn_micranet.")}
    at_the_door = {p.stem for p in PACKAGE.glob("_*.py")}
    found = {name if (PACKAGE / name).is_dir() else "door" for name in names}
    return {name for name in found if name != "door" or names & at_the_door} - {folder(path)}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_folders_import_folders_of_lower_rank_only(path):
    rank = next(i for i, folders in enumerate(RANKS) if folder(path) in folders)
    assert folders_imported(path) <= set().union(*RANKS[:rank])


def test_the_check_of_the_ranks_sees_imports():
    assert folders_imported(PACKAGE / "_training" / "_data.py") == {"_labels", "_network", "_stack"}
    assert folders_imported(PACKAGE / "_gradcam_feature_transformer.py") == {"_network", "_stack"}
    assert "torch" in set(imports(PACKAGE / "_network" / "_module.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_where_it_has_to_be_only(path):
    found = {name.partition(".")[0] for name in imports(path)} & {"torch", "skorch"}
    assert not found or folder(path) in WITH_TORCH


# --- public names ---------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_public_name_resolves(namespace):
    module = import_module(namespace)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="'sklearn_micranet' has no attribute 'MicraNut'"):
        sklearn_micranet.MicraNut  # noqa: B018


def test_the_api_page_lists_every_public_name_and_no_other():
    listed, namespace = {name: [] for name in NAMESPACES}, None
    in_summary = False
    for line in (ROOT / "docs" / "api" / "index.rst").read_text(encoding="utf-8").splitlines():
        if directive := re.match(r"\.\. (\w+):: ?(\S*)", line):
            if directive[1] == "currentmodule":
                namespace = directive[2]
            in_summary = directive[1] == "autosummary"
        elif in_summary and re.fullmatch(r"   \w+", line):
            listed[namespace].append(line.strip())
    for name in NAMESPACES:
        assert sorted(listed[name]) == sorted(public_names(name))


# --- docstrings -----------------------------------------------------------------------------


def sections(function):
    """Split a numpydoc docstring into its sections."""
    lines = inspect.getdoc(function).splitlines()
    starts = [i for i in range(1, len(lines)) if lines[i] and set(lines[i]) == {"-"}]
    ends = [i - 1 for i in starts[1:]] + [len(lines)]
    return {lines[i - 1]: lines[i + 1 : end] for i, end in zip(starts, ends, strict=True)}


def documented_parameters(function):
    """Map the parameters that a docstring describes to the words for their type."""
    fields = [
        re.match(r"(\S.*?) : (.*)", line) for line in sections(function).get("Parameters", [])
    ]
    return {
        name.lstrip("*"): match[2] for match in fields if match for name in match[1].split(", ")
    }


def signature(function):
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    return parameters


def public_callables():
    """Public classes, functions, and the methods that the classes define themselves."""
    for namespace, name in PUBLIC:
        member = getattr(import_module(namespace), name)
        yield pytest.param(member, id=name)
        if inspect.isclass(member):
            for method_name, method in vars(member).items():
                if inspect.isfunction(method) and not method_name.startswith("_"):
                    yield pytest.param(method, id=f"{name}.{method_name}")


CALLABLES = list(public_callables())


def test_public_classes_and_their_methods_are_among_those_checked():
    ids = [parameter.id for parameter in CALLABLES]
    assert "ThresholdSegmenter" in ids
    assert "MicraNetClassifier.fit" in ids
    assert "detection_scores" in ids


@pytest.mark.parametrize("member", CALLABLES)
def test_docstrings_describe_every_parameter_in_order(member):
    summary = inspect.getdoc(member).splitlines()[0]
    assert summary.endswith((".", ":")), summary
    assert list(documented_parameters(member)) == list(signature(member))


@pytest.mark.parametrize("member", CALLABLES)
def test_defaults_in_docstrings_are_those_of_the_code(member):
    documented = documented_parameters(member)
    for name, parameter in signature(member).items():
        stated = re.search(r"default=(.*)$", documented[name])
        if parameter.default is parameter.empty:
            assert stated is None, name
        elif stated:
            assert ast.literal_eval(stated[1]) == parameter.default, name
        else:  # scikit-learn's y, which an estimator may not need
            assert (name, parameter.default) == ("y", None)


@pytest.mark.parametrize("member", CALLABLES)
def test_functions_and_methods_say_what_they_return(member):
    if inspect.isclass(member):
        return
    nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(member))))
    returns = any(isinstance(node, ast.Return) and node.value is not None for node in nodes)
    assert ("Returns" in sections(member)) == returns


@pytest.mark.parametrize(("namespace", "name"), PUBLIC)
def test_public_names_have_an_example(namespace, name):
    example = "\n".join(sections(getattr(import_module(namespace), name))["Examples"])
    assert f"from {namespace} import " in example
    assert name in example


@pytest.mark.parametrize(("namespace", "name"), PUBLIC)
def test_parameters_after_the_data_are_keyword_only(namespace, name):
    member = getattr(import_module(namespace), name)
    by_position = [
        parameter.name
        for parameter in signature(member).values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and parameter.default is not parameter.empty
    ]
    assert len(by_position) <= 1  # such as n_samples of scikit-learn's make_* functions
