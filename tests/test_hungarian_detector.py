import pickle

import numpy as np
import pytest
from cases import DETECTION_CASE, instances, mask
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict

from sklearn_micranet import HungarianDetector
from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet.metrics import detection_scores
from sklearn_micranet.metrics._regions import as_points

# Per class: a 2x3 and a 1x1 object, and three pixels that share corners only.
DRAWINGS = [
    mask(
        "###...",
        "###...",
        "......",
        ".....#",
    ),
    mask(
        "#.....",
        ".#....",
        "..#...",
        "......",
    ),
]
MASKS = np.stack(DRAWINGS)[np.newaxis]


def segments():
    """Give the pixels of the drawings values."""
    values = np.zeros(MASKS.shape, dtype=np.float32)
    values[0, 0, :2, :3] = [[0.5, 0.125, 0.75], [0.25, 0.125, 0.5]]
    values[0, 0, 3, 5] = 0.25
    values[0, 1][MASKS[0, 1]] = [-1.5, -0.5, -1.5]  # maps may be negative inside a mask
    return values


EXPECTED = [
    [0, 0.5, 1, 0.375],  # class, row, column, score
    [0, 3, 5, 0.25],
    [1, 1, 1, 1e-4 / (7 / 6 + 0.02)],  # a mean of -7/6
]


def test_detections_by_hand():
    (detections,) = HungarianDetector().predict(segments())
    assert detections.dtype == np.float64
    np.testing.assert_allclose(detections, EXPECTED)


def test_the_centroid_is_that_of_the_pixels_not_of_their_values():
    (detections,) = HungarianDetector().predict([[[[0, 1, 9, 1e-9, 0]]]])
    np.testing.assert_allclose(detections[:, :3], [[0, 0, 2]])


def test_masks_have_the_score_1():
    for dtype in (bool, np.uint8, ">i2", ">i4"):
        masks = MASKS.astype(dtype)
        (detections,) = HungarianDetector().predict(masks)
        np.testing.assert_allclose(detections[:, :3], np.array(EXPECTED)[:, :3])
        np.testing.assert_array_equal(detections[:, 3], 1)


def test_pixels_that_share_a_corner_are_one_object():
    (detections,) = HungarianDetector().predict([[mask("##..", "##..", "..##", "..##")]])
    np.testing.assert_allclose(detections, [[0, 1.5, 1.5, 1]])


def test_samples_without_objects_have_no_detections():
    X = np.concatenate([np.zeros((1, 2, 4, 6)), MASKS, np.zeros((1, 2, 4, 6))])
    detections = HungarianDetector().predict(X)
    assert (detections.shape, detections.dtype) == ((3,), object)
    assert [d.shape for d in detections] == [(0, 4), (3, 4), (0, 4)]
    assert {d.dtype for d in detections} == {np.dtype(np.float64)}


def test_counts_are_lengths():
    detections = HungarianDetector().predict(MASKS)[0]
    assert np.bincount(detections[:, 0].astype(int)).tolist() == [2, 1]


def test_lists_and_lazy_stacks_of_different_sizes():
    X = [MASKS[0], MASKS[0, :, :3, :4]]
    expected = [HungarianDetector().predict(x[np.newaxis])[0] for x in X]
    assert [len(d) for d in expected] == [3, 2]
    for source in (X, LazyStack(X, list, item_shape=None)):
        detections = HungarianDetector().fit(source).predict(source)
        for found, truth in zip(detections, expected, strict=True):
            np.testing.assert_array_equal(found, truth)


# --- instances, scores, positions -----------------------------------------------------------

NUMBERED = np.array([[instances("1122..", "1122.3", "......", "5...5.")]])


def test_each_number_of_instances_is_one_detection():
    [found] = HungarianDetector().predict(NUMBERED)
    # Number 5 is one object in two parts: its position is one of its pixels.
    assert found.tolist() == [[0, 0.5, 0.5, 1], [0, 0.5, 2.5, 1], [0, 1, 5, 1], [0, 3, 0, 1]]
    assert HungarianDetector(max_distance=0).score(NUMBERED, NUMBERED) == 1
    assert HungarianDetector(max_distance=0).score(NUMBERED, [found[:, :3]]) == 1
    # Of a mask, the objects that touch are one.
    assert HungarianDetector(max_distance=0.4).score(NUMBERED > 0, NUMBERED) == 2 * 2 / (4 + 4)


@given(arrays(np.uint8, (1, 2, 6, 7), elements=st.integers(0, 4)), st.sampled_from([1, 3, 2**20]))
@settings(deadline=None, max_examples=50)
def test_instances_have_a_detection_each_in_the_object_in_any_numbering(numbered, scale):
    [found] = HungarianDetector().predict(numbered.astype(int) * scale)
    [points] = as_points(numbered.astype(int) * max(scale, 2))
    if numbered.max() > 1:  # otherwise a mask
        np.testing.assert_array_equal(found[:, :3], points)
        assert (found[:, 3] == 1).all()
        assert len(found) == sum(len(set(labels[labels > 0])) for labels in numbered[0])
    for k, *position, _ in found:
        pixels = np.argwhere(numbered[0, int(k)])
        assert np.abs(pixels - position).max(axis=1).min() <= 0.5 + 1e-9


def test_the_position_of_a_ring_lies_on_it():
    [[detection]] = HungarianDetector().predict([[mask("#####", "#...#", "#...#", "#####")]])
    assert mask("#####", "#...#", "#...#", "#####")[tuple(detection[1:3].astype(int))]


@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=2, max_size=9, unique=True))
@settings(deadline=None, max_examples=200)
def test_scores_rank_as_values_do_and_are_these_inside_the_unit_interval(values):
    values = np.unique([v for v in values if v != 0] or [1.0])
    segments = np.zeros((len(values), 1, 1, 2), dtype=np.float32)
    segments[..., 0, 0] = values[:, np.newaxis]
    scores = np.array([found[0, 3] for found in HungarianDetector().predict(segments)])
    assert ((scores >= 0) & (scores <= 1)).all()
    rises = np.diff(scores) > 0
    assert (rises | (np.diff(values) < 1e-6)).all()
    assert (np.diff(scores) >= 0).all()
    inside = (values >= 0.01) & (values <= 0.99)
    np.testing.assert_array_equal(scores[inside], values[inside])


def test_scores_by_hand():
    values = [10, 1, 0.995, 0.99, 0.5, 0.01, 1e-9, -1, -10]
    expected = [1 - 1e-4 / 9.02, 0.995, 1 - 1e-4 / 0.015, 0.99, 0.5, 0.01, 0.005, 1e-4 / 1.02]
    [found] = HungarianDetector().predict([[[np.insert(values, range(1, 9), 0)]]])
    np.testing.assert_allclose(found[:, 3], [*expected, 1e-4 / 10.02], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f4", ">f8", np.longdouble])
def test_segments_of_every_float_dtype(dtype):
    for source in (segments().astype(dtype), list(segments().astype(dtype))):
        [found] = HungarianDetector().predict(source)
        np.testing.assert_allclose(found, EXPECTED)
    assert HungarianDetector(max_distance=0).score(segments().astype(dtype), MASKS) == 1


@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.int64, np.uint64])
def test_instances_of_every_int_dtype(dtype):
    [found] = HungarianDetector().predict(NUMBERED.astype(dtype))
    np.testing.assert_array_equal(found, HungarianDetector().predict(NUMBERED)[0])


@pytest.mark.parametrize(
    ("X", "match"), [(-NUMBERED, "negative numbers"), (MASKS * np.uint8(255), "0 and 255 only")]
)
def test_integers_that_are_neither_masks_nor_instances_are_refused(X, match):
    with pytest.raises(ValueError, match=match):
        HungarianDetector().predict(X)


@pytest.mark.parametrize("n", [2, 6])
def test_cross_val_predict_gives_the_detections_of_each_sample(n):
    X = [dots([(0, i, j) for j in range(0, i, 2)], (1, 9, 9 + i % 2)) for i in range(6)]
    equal = np.array([dots([(0, 3, 3), (0, 6, i)], (1, 9, 9)) for i in range(6)])
    for source in (X, equal):
        found = cross_val_predict(HungarianDetector(), source, cv=n)
        assert (found.shape, found.dtype) == ((6,), object)
        for one, other in zip(found, HungarianDetector().predict(source), strict=True):
            np.testing.assert_array_equal(one, other)


def refuse(batch):
    raise AssertionError("A sample was read.")


def unread(shape=(3, 2, 12, 12)):
    return LazyStack(np.zeros(shape), refuse, item_shape=shape[1:])


def test_predict_reads_a_lazy_stack_batch_by_batch():
    sizes = []

    def record(batch):
        sizes.append(len(batch))
        return batch

    X = np.repeat(MASKS, 5, axis=0)
    stack = LazyStack(X, record, item_shape=X.shape[1:], dtype=bool, batch_size=2)
    assert [len(d) for d in HungarianDetector().fit(stack).predict(stack)] == [3] * 5
    assert sizes == [2, 2, 1]


# --- score ----------------------------------------------------------------------------------


def dots(rows, shape=(2, 40, 40)):
    """Draw single pixels at (class index, row, column)."""
    drawing = np.zeros(shape, dtype=bool)
    for k, row, column, *_ in rows:
        drawing[k, row, column] = True
    return drawing


def test_score_on_points_by_hand():
    # Found: (0, 10, 10) and (1, 20, 20). Missed: (0, 30, 30). Invented: (1, 2, 2) in sample 1.
    X = np.stack([dots([(0, 11, 11), (1, 20, 20)]), dots([(1, 2, 2)])])
    points = [[[0, 10, 10], [0, 30, 30], [1, 20, 20]], []]
    assert HungarianDetector(max_distance=2).score(X, points) == pytest.approx(4 / (4 + 1 + 1))


def test_score_of_a_case_with_doubles_and_confused_classes():
    case = DETECTION_CASE
    X = np.stack([dots(rows) for rows in case.points_pred])
    tp, fp, fn = case.n_true_positives, case.n_false_positives, case.n_false_negatives
    # Two of its detections are 2 px apart, so they stay two objects.
    score = HungarianDetector(max_distance=case.max_distance).score(X, case.points_true)
    assert score == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_score_on_masks_matches_the_centroids_of_their_components():
    true = np.zeros((1, 2, 20, 20), dtype=bool)
    true[0, 0, 2:7, 2:7] = True  # centroid (4, 4)
    true[0, 1, 10:13, 10:13] = True  # centroid (11, 11)
    X = np.zeros(true.shape)
    X[0, 0, 4, 7] = 0.3  # 3 px away, and outside the mask
    X[0, 0, 11, 11] = 0.9  # right, but for the class
    for y in (true, true.astype(int), list(true), true.tolist()):
        assert HungarianDetector(max_distance=3).score(X, y) == pytest.approx(2 / (2 + 1 + 1))
        assert HungarianDetector(max_distance=2.9).score(X, y) == 0


def test_segments_score_perfectly_against_themselves():
    assert HungarianDetector(max_distance=0).score(segments(), MASKS) == 1


@pytest.mark.parametrize(("max_distance", "score"), [(5, 1), (4.999, 0), (100, 1)])
def test_max_distance_is_inclusive(max_distance, score):
    X = dots([(0, 4, 5)])[np.newaxis]
    assert HungarianDetector(max_distance=max_distance).score(X, [[[0, 1, 1]]]) == score


def test_classes_are_not_matched_with_each_other():
    X = dots([(0, 5, 5)])[np.newaxis]
    assert HungarianDetector().score(X, [[[1, 5, 5]]]) == 0
    assert HungarianDetector().score(X, [[[0, 5, 5]]]) == 1


def test_samples_are_not_matched_with_each_other():
    X = np.stack([dots([(0, 5, 5)]), dots([])])
    assert HungarianDetector().score(X, [[], [[0, 5, 5]]]) == 0


def test_each_object_is_matched_once():
    X = dots([(0, 5, 5), (0, 5, 7), (0, 5, 9)])[np.newaxis]
    assert HungarianDetector().score(X, [[[0, 5, 6]]]) == pytest.approx(2 / (2 + 2))


def test_score_without_objects():
    nothing, something = np.zeros((1, 2, 9, 9)), dots([(0, 5, 5)], (2, 9, 9))[np.newaxis]
    assert HungarianDetector().score(nothing, [[]]) == 1
    assert HungarianDetector().score(nothing, nothing.astype(bool)) == 1
    assert HungarianDetector().score(nothing, something) == 0
    assert HungarianDetector().score(something, nothing.astype(bool)) == 0


def test_score_on_points_of_images_of_different_sizes():
    X = [dots([(0, 5, 5)], (1, 9, 9)), dots([(0, 1, 6)], (1, 4, 8))]
    assert HungarianDetector().score(X, [[[0, 5, 5]], [[0, 1, 6]]]) == 1
    for y in (X, [x * 7 for x in X], [x.astype(float) for x in X]):
        for source in (X, LazyStack(X, list, item_shape=None)):
            assert HungarianDetector(max_distance=0).score(source, y) == 1
    with pytest.raises(ValueError, match=r"height and width of the images, \(4, 8\) for sample 1"):
        HungarianDetector().score(X, X[:1] * 2)


def test_score_agrees_with_the_metric():
    rng = np.random.default_rng(0)
    X = rng.random((4, 2, 30, 30)) > 0.97
    points = [np.c_[rng.integers(2, size=20), rng.uniform(0, 30, (20, 2))] for _ in X]
    expected = detection_scores(points, HungarianDetector().predict(X), max_distance=2.5).f1
    assert 0.2 < expected < 0.9
    assert HungarianDetector(max_distance=2.5).score(X, points) == expected


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.zeros((3, 2, 12, 11), dtype=bool), r"height and width of the images, \(12, 12\)"),
        (np.zeros((3, 1, 12, 12), dtype=bool), "one channel per class, 2 in all"),
        (np.zeros((2, 2, 12, 12), dtype=bool), "inconsistent numbers of samples"),
        (np.full((3, 2, 12, 12), 0.5), "0 and 1 only"),
        (np.full((3, 2, 12, 12), -7), r"must not hold negative numbers.*Got -7"),
        (np.eye(12, dtype=int) * np.full((3, 2, 1, 1), 255), "Got 0 and 255 only"),
        ([[[0, 1, 1]]], r"inconsistent numbers of samples: \[3, 1\]"),
        ([[[0, 1]], [], []], r"points_true\[0\] must have 3 columns"),
        ([[[0.5, 1, 1]], [], []], "class indices"),
        ([[[0, np.nan, 1]], [], []], "contains NaN"),
        ("abc", "Got 'a' instead"),
        ([[[2, 1, 1]], [], []], "indices of classes with maps, below 2.*Got 2 for sample 0"),
        ([0, 1, 1], r"must be a table of shape \(n_objects, 3\).*Got the shape \(\)"),
        (np.zeros((3, 12, 12), dtype=bool), r"pass `y\[:, np.newaxis\]`"),
        ([np.zeros((12, 12))] * 3, r"pass `\[mask\[np.newaxis\] for mask in y\]`"),
    ],
)
def test_truth_that_does_not_fit_is_refused_before_anything_is_computed(y, match):
    with pytest.raises((TypeError, ValueError), match=match):
        HungarianDetector().score(unread(), y)


# --- manners --------------------------------------------------------------------------------


@pytest.mark.parametrize("max_distance", [-1, np.nan, "far", None])
def test_wrong_parameters_are_refused(max_distance):
    detector = HungarianDetector(max_distance=max_distance)
    for method in (detector.fit, detector.predict):
        with pytest.raises(ValueError, match="'max_distance' parameter"):
            method(MASKS)
    with pytest.raises(ValueError, match="'max_distance' parameter"):
        detector.score(MASKS, MASKS)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (MASKS[0], r"\(n_samples, n_classes, height, width\). Got 3 dimensions"),
        (np.full((1, 1, 4, 4), np.nan), "contains NaN"),
        (np.zeros((0, 1, 4, 4)), "at least one sample"),
        ("text", "Got the path 'text' instead: pass what the steps before return"),
    ],
)
def test_wrong_segments_are_refused(X, match):
    for method in ("fit", "predict"):
        with pytest.raises((TypeError, ValueError), match=match):
            getattr(HungarianDetector(), method)(X)


def test_computed_segments_of_different_sizes_and_wrong_dimensions_are_refused():
    stack = LazyStack([np.zeros((2, 8, 6, 5)), np.zeros((2, 8, 4, 5))], list, item_shape=None)
    with pytest.raises(ValueError, match=r"n_classes, height, width\). Got 5 dimensions instead"):
        HungarianDetector().predict(stack)


def test_fit_reads_and_learns_nothing():
    detector = HungarianDetector()
    assert detector.fit(unread(), y="ignored") is detector
    assert vars(detector) == {"max_distance": 10.0}


def test_the_input_is_left_as_it_is():
    X = segments()
    X.setflags(write=False)
    detector = HungarianDetector().fit(X)
    detector.predict(X)
    detector.score(X, MASKS)
    np.testing.assert_array_equal(X, segments())


def test_order_does_not_matter():
    X = np.stack([dots([(0, 5, 5)]), dots([(1, 2, 2), (1, 8, 8)])])
    forward, backward = HungarianDetector().predict(X), HungarianDetector().predict(X[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_clone_and_pickle():
    detector = HungarianDetector(max_distance=3)
    for copy in (clone(detector), pickle.loads(pickle.dumps(detector))):
        assert copy.get_params() == {"max_distance": 3}
        np.testing.assert_array_equal(copy.predict(MASKS)[0], detector.predict(MASKS)[0])
