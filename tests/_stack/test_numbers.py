import re
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils._param_validation import InvalidParameterError

import sklearn_micranet
from sklearn_micranet import FieldSegmenter, HungarianDetector, MicraNetClassifier
from sklearn_micranet._stack._numbers import Interval, check_scalar
from sklearn_micranet.displays import DetectionDisplay, MaskDisplay
from sklearn_micranet.images import measure_objects, summarize_objects, write_objects
from sklearn_micranet.metrics import detection_scorer, spectrum_change

INSTANCES = np.ones((1, 1, 8, 8), int)
IMAGES = np.random.default_rng(0).random((1, 8, 8))
TABLE = {"sample": [0], "class": ["cell"]}


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.int64(3)])
def test_numbers_are_in_an_interval(value):
    assert Interval(Real, 0, None, closed="neither").is_satisfied_by(value)
    assert check_scalar(value, "x", Real, min_val=0) == value


@pytest.mark.parametrize("value", [True, False, np.True_])
@pytest.mark.parametrize("kind", [Real, Integral])
def test_true_and_false_are_no_numbers(value, kind):
    assert not Interval(kind, None, None, closed="neither").is_satisfied_by(value)
    with pytest.raises(TypeError, match=r"^x must be"):
        check_scalar(value, "x", kind)


# Each is silently 1 px, nm or µm where a bool counts as a number.
SIZES = {
    "measure_objects": lambda v: measure_objects(INSTANCES, pixel_size=v),
    "summarize_objects": lambda v: summarize_objects(TABLE, pixel_size=v),
    "write_objects": lambda v: write_objects("cells.csv", INSTANCES, pixel_size=v),
    "spectrum_change": lambda v: spectrum_change(
        IMAGES[0], IMAGES[0] > 0, pixel_size=v, periods=(2, 9)
    ),
    "scale bar": lambda v: MaskDisplay.from_predictions(IMAGES, INSTANCES, pixel_size=v),
    "max_distance of a scorer": lambda v: detection_scorer(max_distance=v),
    "max_distance of a detector": lambda v: HungarianDetector(max_distance=v).fit(INSTANCES > 0),
    "max_distance of a display": lambda v: DetectionDisplay.from_predictions(
        IMAGES, [[]], points_true=[[]], max_distance=v
    ),
    "field": lambda v: FieldSegmenter(MicraNetClassifier(), size=8, pixel_size=v).fit(
        IMAGES, INSTANCES > 0
    ),
}


@pytest.mark.parametrize("call", SIZES.values(), ids=SIZES)
def test_true_is_no_size(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        (TypeError, InvalidParameterError), match=r"(pixel_size|max_distance)\b.*must be"
    ):
        call(True)
    assert not list(tmp_path.iterdir())


def test_no_file_takes_the_checks_of_scikit_learn_that_let_bools_pass():
    of_sklearn = re.compile(r"from sklearn\.utils\S* import [^\n]*\b(Interval|check_scalar)\b")
    sources = Path(sklearn_micranet.__file__).parent.rglob("*.py")
    found = {path.name for path in sources if of_sklearn.search(path.read_text(encoding="utf-8"))}
    assert found == {"_numbers.py"}
