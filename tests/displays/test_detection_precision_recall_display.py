import matplotlib.pyplot as plt
import numpy as np
import pytest

from sklearn_micranet.displays import DetectionPrecisionRecallDisplay
from sklearn_micranet.metrics import detection_precision_recall_curve

TRUE = [[[0, 10, 10], [0, 40, 40]]]
FOUND = [[[0, 11, 10, 0.9], [0, 25, 25, 0.75], [0, 40, 41, 0.5]]]


class Detector:
    def predict(self, X):
        return FOUND * len(X)


def test_curve_worked_out_by_hand():
    display = DetectionPrecisionRecallDisplay.from_predictions(
        TRUE, FOUND, max_distance=3, name="ours", color="red"
    )
    x, y = display.line_.get_data()
    np.testing.assert_allclose(x, [1, 0.5, 0.5, 0])
    np.testing.assert_allclose(y, [2 / 3, 1 / 2, 1, 1])
    assert display.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    (text,) = display.ax_.get_legend().get_texts()
    assert text.get_text() == "ours (AP = 0.83)"
    assert display.line_.get_drawstyle() == "steps-post"
    assert display.line_.get_color() == "red"
    assert display.ax_.get_xlabel() == "recall (within 3 px)"
    assert display.ax_.get_ylabel() == "precision"


def test_average_precision_counts_objects_that_are_never_found():
    true = [[*TRUE[0], [0, 80, 80], [0, 90, 90]]]
    display = DetectionPrecisionRecallDisplay.from_predictions(true, FOUND, max_distance=3)
    assert display.average_precision == pytest.approx((0.5 * 1 + 0.5 * 2 / 3) / 2)


def test_several_curves_on_one_ax():
    _, ax = plt.subplots()
    one = DetectionPrecisionRecallDisplay.from_predictions(TRUE, FOUND, max_distance=3, ax=ax)
    two = DetectionPrecisionRecallDisplay.from_estimator(
        Detector(), [0], TRUE, max_distance=1, ax=ax
    )
    assert one.ax_ is two.ax_ is ax
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "AP = 0.83",
        "Detector (AP = 0.83)",
    ]


def test_from_the_curve_itself():
    precision, recall, _ = detection_precision_recall_curve(TRUE, FOUND, max_distance=3)
    display = DetectionPrecisionRecallDisplay(precision, recall).plot()
    assert display.ax_.get_legend() is None
    assert display.ax_.get_xlabel() == "recall"


def test_refuses():
    with pytest.raises(ValueError, match=r"n_thresholds \+ 1,\). Got \(2,\) and \(3,\) instead"):
        DetectionPrecisionRecallDisplay([1, 1], [1, 0.5, 0]).plot()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DetectionPrecisionRecallDisplay.from_estimator(Detector(), [0, 0], TRUE, max_distance=1)
    with pytest.raises(ValueError, match="Got 3 columns instead"):
        DetectionPrecisionRecallDisplay.from_predictions(TRUE, TRUE, max_distance=1)


@pytest.mark.filterwarnings("ignore:There are no objects:UserWarning")
def test_without_objects_the_average_precision_is_not_negative():
    display = DetectionPrecisionRecallDisplay.from_predictions(
        [np.empty((0, 3))], [np.empty((0, 4))], max_distance=3
    )
    assert f"{display.average_precision:.2f}" == "0.00"
