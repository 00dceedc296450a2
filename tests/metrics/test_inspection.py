import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_micranet.metrics import inspection_curve


def test_worked_out_by_hand():
    # By falling score: 0.9 true of 10 px, 0.5 false of 30 px, 0.2 true of 20 px; 200 px in all.
    curve = inspection_curve([0.5, 0.9, 0.2], [0, 1, 1], areas=[30, 10, 20], total_area=200)
    np.testing.assert_allclose(curve.inspected, [0, 0.05, 0.2, 0.3])
    np.testing.assert_allclose(curve.recall, [0, 0.5, 0.5, 1])
    np.testing.assert_array_equal(curve.thresholds, [np.inf, 0.9, 0.5, 0.2])


def test_equal_scores_are_inspected_together():
    curve = inspection_curve([0.5, 0.5, 0.1], [True, False, True], areas=1, total_area=3)
    np.testing.assert_allclose(curve.inspected, [0, 2 / 3, 1])
    np.testing.assert_allclose(curve.recall, [0, 0.5, 1])


def test_objects_that_nobody_proposed_are_never_found():
    curve = inspection_curve([2, 1], [1, 1], areas=1, total_area=10, n_true=8)
    np.testing.assert_allclose(curve.recall, [0, 1 / 8, 1 / 4])


def test_without_proposals_nothing_is_inspected():
    curve = inspection_curve([], [], areas=1, total_area=10, n_true=3)
    assert curve.inspected.tolist() == curve.recall.tolist() == [0]
    assert curve.thresholds.tolist() == [np.inf]


def test_without_objects_recall_is_not_defined():
    curve = inspection_curve([2, 1], [0, 0], areas=1, total_area=10)
    assert np.isnan(curve.recall).all()
    np.testing.assert_allclose(curve.inspected, [0, 0.1, 0.2])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 9)), min_size=1),
    st.integers(0, 3),
)
def test_is_what_an_expert_counts_at_each_threshold(proposals, n_missed):
    scores, is_true, areas = (np.array(column) for column in zip(*proposals, strict=True))
    n_true = int(is_true.sum()) + n_missed
    curve = inspection_curve(scores, is_true, areas=areas, total_area=1000, n_true=n_true)
    for inspected, recall, threshold in zip(*curve.values(), strict=True):
        looked_at = scores >= threshold
        assert inspected == pytest.approx(areas[looked_at].sum() / 1000)
        if n_true:
            assert recall == pytest.approx(is_true[looked_at].sum() / n_true)
    assert np.all(np.diff(curve.inspected) > 0)


def test_windows_that_cover_the_images_are_not_refused_for_rounding():
    curve = inspection_curve(np.arange(10), np.ones(10), areas=0.1, total_area=1)
    assert sum([0.1] * 10) != 1
    assert curve.inspected[-1] == pytest.approx(1)
    assert curve.inspected[-1] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"is_true": [1, 0, 1]}, "same length. Got 2, 3 and 2 instead"),
        ({"areas": [1, 2, 3]}, "same length. Got 2, 2 and 3 instead"),
        ({"scores": [[1, 2]]}, r"scores must have shape \(n_proposals,\). Got shape \(1, 2\)"),
        ({"scores": [np.nan, 1]}, "Input scores contains NaN"),
        ({"is_true": [0.5, 1]}, r"true and false only. Got \[0.5 1. \]"),
        ({"areas": [0, 1]}, "areas must be positive. Got 0 instead"),
        ({"total_area": 1.5}, "at least the sum of areas, 2. Got 1.5 instead"),
        ({"n_true": 0}, "at least the 1 true ones of is_true. Got 0 instead"),
        ({"total_area": 0}, "'total_area' parameter of inspection_curve must be"),
    ],
)
def test_refuses(arguments, message):
    legal = {"scores": [2, 1], "is_true": [1, 0], "areas": 1, "total_area": 10}
    inspection_curve(**legal)
    with pytest.raises(ValueError, match=message):
        inspection_curve(**{**legal, **arguments})
