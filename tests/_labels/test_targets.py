from math import exp

import numpy as np
import pytest

from sklearn_micranet._labels._targets import Targets

INDICATOR = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]])


def test_binary_targets():
    y = np.array(["no", "yes", "yes"])
    targets = Targets.of(y)
    assert (targets.kind, targets.n_outputs) == ("binary", 1)
    assert targets.classes.tolist() == ["no", "yes"]
    assert targets.encode(y).dtype == np.float32
    assert targets.encode(y).tolist() == [[0], [1], [1]]
    assert targets.indicator(y).tolist() == [[True, False], [False, True], [False, True]]
    logits = np.array([[0.0], [1.0], [-2.0]], dtype=np.float32)
    positive = [1 / 2, 1 / (1 + exp(-1)), 1 / (1 + exp(2))]
    np.testing.assert_allclose(
        targets.probabilities(logits), [[1 - p, p] for p in positive], rtol=1e-6
    )
    for threshold in (0.6, [0.6], np.array([0.6])):
        present = targets.present(logits, threshold)
        assert present.tolist() == [[False], [True], [False]]
    assert targets.decode(present).tolist() == ["no", "yes", "no"]


def test_multiclass_targets():
    y = np.array([30, 10, 20, 30])
    targets = Targets.of(y)
    assert (targets.kind, targets.n_outputs) == ("multiclass", 3)
    assert targets.classes.tolist() == [10, 20, 30]
    assert targets.encode(y).dtype == np.int64
    assert targets.encode(y).tolist() == [2, 0, 1, 2]
    assert targets.indicator(y)[:2].tolist() == [[False, False, True], [True, False, False]]
    logits = np.log(np.array([[1, 2, 5], [6, 3, 1]], dtype=np.float32))
    np.testing.assert_allclose(
        targets.probabilities(logits), [[0.125, 0.25, 0.625], [0.6, 0.3, 0.1]], rtol=1e-6
    )
    present = targets.present(logits, threshold=1.0)  # not used
    assert present.tolist() == [[False, False, True], [True, False, False]]
    assert targets.decode(present).tolist() == [30, 10]


def test_multilabel_targets():
    targets = Targets.of(INDICATOR)
    assert (targets.kind, targets.n_outputs) == ("multilabel", 3)
    assert targets.classes.tolist() == [0, 1, 2]
    assert targets.encode(INDICATOR).dtype == np.float32
    assert targets.encode(INDICATOR).tolist() == INDICATOR.tolist()
    assert targets.indicator(INDICATOR).tolist() == (INDICATOR == 1).tolist()
    logits = np.array([[0.0, 1.0, -2.0]], dtype=np.float32)
    np.testing.assert_allclose(
        targets.probabilities(logits), [[1 / 2, 1 / (1 + exp(-1)), 1 / (1 + exp(2))]], rtol=1e-6
    )
    assert targets.present(logits, 0.5).tolist() == [[True, True, False]]
    present = targets.present(logits, [0.51, 0.73, 0.11])
    assert present.tolist() == [[False, True, True]]
    assert targets.decode(present).tolist() == [[0, 1, 1]]


def test_two_columns_are_two_classes_that_do_not_exclude_each_other():
    targets = Targets.of(np.array([[1, 1], [0, 0]]))
    assert (targets.kind, targets.n_outputs) == ("multilabel", 2)


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match=r"at least two classes.*Got one class instead: \['a'\]"):
        Targets.of(np.array(["a", "a"]))


@pytest.mark.parametrize(
    ("classes", "y", "match"),
    [
        (np.array([1, 2, 3]), np.array([1, 4, 5]), r"classes \[1, 2, 3\] only. Got \[4, 5\]"),
        (np.array(["a", "b"]), np.array(["c"]), r"classes \['a', 'b'\] only. Got \['c'\]"),
        (INDICATOR, INDICATOR[:, :2], "Got 2 columns instead"),
        (INDICATOR, np.array([0, 1]), r"first call's, multilabel. Got 1 dimension\(s\)"),
        (np.array([0, 1]), INDICATOR, r"first call's, binary. Got 2 dimension\(s\)"),
    ],
)
def test_labels_that_are_not_among_the_classes_are_refused(classes, y, match):
    with pytest.raises(ValueError, match=match):
        Targets.of(classes).check(y)


@pytest.mark.parametrize(
    ("threshold", "match"),
    [
        ([0.5, 0.5], r"one number or one per class, 3. Got the shape \(2,\)"),
        ([[0.5, 0.5, 0.5]], r"Got the shape \(1, 3\)"),
        ([0.5, 1.1, 0.5], r"in \[0, 1\]. Got \[0.5, 1.1, 0.5\]"),
        (-0.1, r"in \[0, 1\]. Got -0.1"),
        ([0.5, np.nan, 0.5], r"in \[0, 1\]"),
        (["low", "low", "high"], "could not convert string to float"),
    ],
)
def test_thresholds_that_do_not_fit_are_refused(threshold, match):
    with pytest.raises(ValueError, match=match):
        Targets.of(INDICATOR).check_threshold(threshold)


# --- the mean of several networks ------------------------------------------------------------

SEVERAL = np.random.default_rng(0).normal(0, 4, (5, 7, 3)).astype(np.float32)


@pytest.mark.parametrize("y", [np.array([0, 1, 1]), np.array([0, 1, 2]), INDICATOR])
def test_mean_logits_are_those_of_the_mean_probability(y):
    targets = Targets.of(y)
    logits = [part[:, : targets.n_outputs] for part in SEVERAL]
    mean = targets.mean_logits(logits)
    assert mean.dtype == np.float32
    assert mean.shape == (7, targets.n_outputs)
    expected = np.mean([targets.probabilities(part.astype(np.float64)) for part in logits], axis=0)
    np.testing.assert_allclose(targets.probabilities(mean), expected, rtol=2e-5)
    assert abs(expected - targets.probabilities(np.mean(logits, axis=0))).max() > 0.05


def test_mean_logits_by_hand():
    # (1/2 + 3/4) / 2 = 5/8: odds 5 to 3.  (1/2 + 1/4) / 2 = 3/8.
    logits = [np.zeros((1, 2)), np.array([[np.log(3), -np.log(3)]])]
    expected = [[np.log(5 / 3), np.log(3 / 5)]]
    np.testing.assert_allclose(
        Targets.of(INDICATOR[:, :2]).mean_logits(logits), expected, rtol=1e-6
    )
    # Exclusive classes: (1/2, 1/4, 1/4) and (1/4, 1/2, 1/4) in the mean.
    logits = [np.log([[2, 1, 1]]), np.log([[1, 2, 1]])]
    expected = np.log([[3 / 8, 3 / 8, 1 / 4]])
    np.testing.assert_allclose(Targets.of(np.arange(3)).mean_logits(logits), expected, rtol=1e-6)


def test_mean_logits_of_one_network_are_its_own():
    for y in (np.array([0, 1]), np.array([0, 1, 2]), INDICATOR):
        targets = Targets.of(y)
        logits = SEVERAL[0, :, : targets.n_outputs]
        assert targets.mean_logits([logits]) is logits


@pytest.mark.parametrize("y", [np.array([0, 1, 1]), np.array([0, 1, 2]), INDICATOR])
def test_mean_logits_of_extreme_logits_are_finite_and_keep_their_order(y):
    targets = Targets.of(y)
    # Where two are equally sure of opposites, the mean is in between; where they agree, it stays.
    sure = np.float32([[300], [-300], [300], [20]]) * np.eye(3, dtype=np.float32)[0]
    other = np.float32([[300], [-300], [-300], [30]]) * np.eye(3, dtype=np.float32)[0]
    mean = targets.mean_logits([part[:, : targets.n_outputs] for part in (sure, other)])
    assert np.isfinite(mean).all()
    assert np.isfinite(targets.mean_logits([1e30 * part[:, :1] for part in SEVERAL])).all()
    probabilities = targets.probabilities(mean)
    column = 1 if targets.kind == "binary" else 0
    np.testing.assert_allclose(probabilities[[0, 3], column], 1, atol=1e-6)
    np.testing.assert_allclose(probabilities[1, column], 0, atol=1e-6)
    if targets.kind == "multiclass":
        np.testing.assert_allclose(probabilities[2], [1 / 2, 1 / 4, 1 / 4], atol=1e-6)
    else:
        np.testing.assert_allclose(probabilities[2, column], 1 / 2, atol=1e-6)
        assert mean[0, 0] == pytest.approx(300)
        assert mean[1, 0] == pytest.approx(-300)


def test_a_threshold_for_each_class_is_no_dict():
    with pytest.raises(TypeError, match=r"Got a dict instead: pass a list in the order .*'a', 'b'"):
        Targets.of(np.array(["a", "b"])).check_threshold({"a": 0.5})
