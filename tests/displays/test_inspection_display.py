import numpy as np
import pytest

from sklearn_micranet.displays import InspectionDisplay

SCORES, IS_TRUE = [0.6, 0.9, 0.8, 0.7], [1, 1, 1, 0]


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_curve_worked_out_by_hand():
    display = InspectionDisplay.from_predictions(
        SCORES, IS_TRUE, areas=100, total_area=1000, name="ours", target_recall=0.5
    )
    x, y = display.line_.get_data()
    np.testing.assert_allclose(x, [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(y, [0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert display.line_.get_drawstyle() == "steps-post"
    assert display.inspected_at_target_ == pytest.approx(0.2)
    assert legend(display) == ["random order", "ours", "50% found after 20.0% of the area"]
    mark = display.ax_.lines[-1]
    np.testing.assert_allclose(mark.get_xydata(), [[0.2, 0.5]])
    np.testing.assert_allclose(display.chance_level_.get_xydata(), [[0, 0], [1, 1]])
    assert display.ax_.get_xlim() == (0, 0.4)


def test_without_target_and_chance():
    display = InspectionDisplay.from_predictions(
        SCORES, IS_TRUE, areas=100, total_area=1000, plot_chance_level=False
    )
    assert display.inspected_at_target_ is None
    assert display.chance_level_ is None
    assert len(display.ax_.lines) == 1
    assert display.ax_.get_legend() is None


def test_a_target_that_is_never_reached():
    display = InspectionDisplay.from_predictions(
        SCORES, IS_TRUE, areas=100, total_area=1000, n_true=6, target_recall=0.6
    )
    assert np.isnan(display.inspected_at_target_)
    assert legend(display)[-1] == "60% found never"


def test_the_target_is_not_missed_for_rounding():
    display = InspectionDisplay([0, 0.1], [0, 0.3 - 1e-16 * 2]).plot(target_recall=0.3)
    assert display.recall[1] < 0.3
    assert display.inspected_at_target_ == 0.1


class Classifier:
    classes_ = np.array([0, 1])

    def predict_proba(self, X):
        p = X.mean(axis=(1, 2))
        return np.stack([1 - p, p], axis=1)


WINDOWS = np.ones((4, 5, 6)) * np.reshape(SCORES, (4, 1, 1))


def test_from_a_classifier():
    display = InspectionDisplay.from_estimator(Classifier(), WINDOWS, IS_TRUE)
    x, y = display.line_.get_data()
    np.testing.assert_allclose(x, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(y, [0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert legend(display) == ["random order", "Classifier"]
    display = InspectionDisplay.from_estimator(Classifier(), WINDOWS, IS_TRUE, total_area=1200)
    np.testing.assert_allclose(display.inspected[-1], 4 * 30 / 1200)
    display = InspectionDisplay.from_estimator(Classifier(), WINDOWS, IS_TRUE, pos_label=0)
    np.testing.assert_allclose(display.recall, [0, 0, 1, 1, 1])


def test_from_a_classifier_of_several_labels():
    y = np.stack([np.zeros(4, int), IS_TRUE], axis=1)
    display = InspectionDisplay.from_estimator(Classifier(), WINDOWS, y, map_index=1)
    np.testing.assert_allclose(display.recall, [0, 1 / 3, 2 / 3, 2 / 3, 1])
    with pytest.raises(ValueError, match=r"y has 2 columns. Got map_index=None instead of the one"):
        InspectionDisplay.from_estimator(Classifier(), WINDOWS, y)
    with pytest.raises(ValueError, match="map_index == 2, must be <= 1"):
        InspectionDisplay.from_estimator(Classifier(), WINDOWS, y, map_index=2)


def test_which_of_two_named_classes_is_looked_for_is_not_guessed():
    classifier = Classifier()
    classifier.classes_ = np.array(["cell", "empty"])
    y = np.where(IS_TRUE, "cell", "empty")
    with pytest.raises(ValueError, match=r"\['cell', 'empty'\], the class to look for. Got None"):
        InspectionDisplay.from_estimator(classifier, WINDOWS, y)
    with pytest.raises(ValueError, match=r"pos_label must be one of .* Got 'rod' instead"):
        InspectionDisplay.from_estimator(classifier, WINDOWS, y, pos_label="rod")
    display = InspectionDisplay.from_estimator(classifier, WINDOWS, y, pos_label="cell")
    np.testing.assert_allclose(display.recall, [0, 1 / 3, 1 / 3, 2 / 3, 1])  # least likely 1 first


def test_refuses():
    with pytest.raises(ValueError, match=r"\(n_thresholds \+ 1,\). Got \(2,\) and \(3,\) instead"):
        InspectionDisplay([0, 1], [0, 0.5, 1]).plot()
    with pytest.raises(ValueError, match="target_recall == 0, must be > 0"):
        InspectionDisplay([0, 1], [0, 1]).plot(target_recall=0)
    with pytest.raises(ValueError, match=r"windows of one size, .* Got shape \(4,\) instead"):
        InspectionDisplay.from_estimator(Classifier(), [0] * 4, IS_TRUE)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        InspectionDisplay.from_estimator(Classifier(), WINDOWS[:3], IS_TRUE)
