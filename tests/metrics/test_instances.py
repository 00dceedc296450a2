from itertools import combinations, permutations

import numpy as np
import pytest
from cases import INSTANCE_CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_micranet.metrics import average_precision_score, instance_scores, match_instances

LABELS = arrays(np.int32, (5, 6), elements=st.integers(0, 4))
THRESHOLDS = st.sampled_from([0.01, 0.2, 1 / 3, 0.5, 0.75, 1])
CASES = pytest.mark.parametrize("case", INSTANCE_CASES.values(), ids=INSTANCE_CASES)
FRACTIONS = ("precision", "recall", "f1", "accuracy", "mean_true_score", "mean_matched_score")
FRACTIONS += ("panoptic_quality",)


def pixels(labels):
    """Return the set of pixels of each object."""
    return {n: set(map(tuple, np.argwhere(labels == n))) for n in set(labels.flat) - {0}}


def best_by_brute_force(true, pred, threshold):
    """Number of pairs and summed IoU of the best of all partial matchings."""
    true, pred = pixels(true), pixels(pred)
    iou = {(a, b): len(true[a] & pred[b]) / len(true[a] | pred[b]) for a in true for b in pred}
    best = (0, 0.0)
    for n in range(1, min(len(true), len(pred)) + 1):
        for chosen in combinations(true, n):
            for partners in permutations(pred, n):
                overlaps = [iou[pair] for pair in zip(chosen, partners, strict=True)]
                if min(overlaps) >= threshold:
                    best = max(best, (n, sum(overlaps)))
    return best


def stardist_scores(tp, total, n_true, n_pred):
    """Return the scores as StarDist defines them, from the counts and the summed IoU."""
    fp, fn = n_pred - tp, n_true - tp
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "precision": tp / (tp + fp) if tp else 0,
        "recall": tp / (tp + fn) if tp else 0,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0,
        "accuracy": tp / (tp + fp + fn) if tp else 0,
        "mean_true_score": total / n_true if n_true else 0,
        "mean_matched_score": total / tp if tp else 0,
        "panoptic_quality": total / (tp + fp / 2 + fn / 2),
    }


@CASES
def test_known_pairs(case):
    numbers_true, numbers_pred, overlaps = match_instances(
        case.true, case.pred, threshold=case.threshold
    )
    pairs = list(zip(numbers_true, numbers_pred, overlaps, strict=True))
    assert pairs == [pytest.approx(pair) for pair in case.pairs]


@CASES
def test_known_scores(case):
    scores = instance_scores(case.true, case.pred, threshold=case.threshold)
    total = sum(overlap for *_, overlap in case.pairs)
    expected = stardist_scores(len(case.pairs), total, case.n_true, case.n_pred)
    assert scores._asdict() == pytest.approx(expected)


@given(LABELS, LABELS, THRESHOLDS)
@settings(deadline=None, max_examples=50)
def test_equals_brute_force(true, pred, threshold):
    tp, total = best_by_brute_force(true, pred, threshold)
    numbers_true, numbers_pred, overlaps = match_instances(true, pred, threshold=threshold)
    assert len(overlaps) == tp
    assert (np.diff(numbers_true) > 0).all()
    assert len(set(numbers_pred)) == tp
    assert overlaps.sum() == pytest.approx(total)
    n_true, n_pred = len(pixels(true)), len(pixels(pred))
    if n_true + n_pred:
        scores = instance_scores(true, pred, threshold=threshold)
        assert scores._asdict() == pytest.approx(stardist_scores(tp, total, n_true, n_pred))


@given(LABELS, LABELS, THRESHOLDS, st.permutations(range(1, 5)))
@settings(deadline=None, max_examples=50)
def test_symmetric_bounded_and_blind_to_numbering(true, pred, threshold, numbers):
    scores = instance_scores(true, pred, threshold=threshold)
    swapped = instance_scores(pred, true, threshold=threshold)
    assert scores._asdict() == pytest.approx(
        swapped._asdict()
        | {"fp": swapped.fn, "fn": swapped.fp}
        | {"precision": swapped.recall, "recall": swapped.precision}
        # The sum of overlaps is over as many true objects as there are predicted ones swapped.
        | {"mean_true_score": scores.mean_matched_score * scores.recall}
    )
    assert all(0 <= getattr(scores, name) <= 1 for name in FRACTIONS)
    renumbered = np.array([0, *numbers], dtype=np.int64)[pred] * 1_000_000_007
    assert instance_scores(true, renumbered, threshold=threshold) == pytest.approx(scores)
    assert instance_scores(true, true, threshold=1)[3:] == (1,) * 7


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=3))
@settings(deadline=None, max_examples=20)
def test_images_are_pooled_or_scored_each(pairs):
    true, pred = map(np.array, zip(*pairs, strict=True))
    each = [instance_scores(*pair, threshold=0.3) for pair in pairs]
    per_image = instance_scores(true, pred, threshold=0.3, per_image=True)
    assert_allclose(per_image, np.transpose(each))
    pooled = instance_scores(true, pred, threshold=0.3)
    assert pooled[:3] == tuple(np.sum([scores[:3] for scores in each], axis=0))
    # Images beside each other, whose objects do not share numbers, are one image.
    offsets = 10 * np.arange(len(pairs))[:, np.newaxis, np.newaxis]
    joint = (np.concatenate(np.where(x > 0, x + offsets, 0)) for x in (true, pred))
    assert pooled == pytest.approx(instance_scores(*joint, threshold=0.3))
    # Maps are pooled, too.
    assert pooled == pytest.approx(
        instance_scores(true[np.newaxis], pred[np.newaxis], threshold=0.3)
    )


def test_several_thresholds():
    case = INSTANCE_CASES["more pairs before better pairs"]
    thresholds = [0.1, 0.5, 0.6]
    scores = instance_scores([case.true] * 2, [case.pred] * 2, threshold=thresholds)
    assert_array_equal(scores.tp, [4, 2, 0])
    # Alone, the best pair is that with 4 of 7 pixels.
    assert_allclose(scores.mean_matched_score, [(2 / 6 + 1 / 7) / 2, 4 / 7, 0])
    for k, threshold in enumerate(thresholds):
        one = instance_scores([case.true] * 2, [case.pred] * 2, threshold=threshold)
        assert one == tuple(score[k] for score in scores)
    per_image = instance_scores(
        [case.true] * 2, [case.pred] * 2, threshold=thresholds, per_image=True
    )
    assert_array_equal(per_image.tp, [[2, 1, 0]] * 2)


def test_images_of_different_sizes():
    cases = [INSTANCE_CASES[name] for name in ("the better of two", "in parts", "missed")]
    true, pred = ([getattr(case, name) for case in cases] for name in ("true", "pred"))
    scores = instance_scores(true, pred, threshold=0.5, per_image=True)
    assert_array_equal(scores.tp, [1, 1, 0])
    assert_array_equal(scores.fp, [1, 1, 0])
    assert_array_equal(scores.fn, [0, 0, 2])
    assert isinstance(instance_scores(true, pred).tp, int)
    assert isinstance(instance_scores(true, pred).f1, float)


@pytest.mark.parametrize("zero_division", [0.0, 1.0, np.nan])
@pytest.mark.parametrize(
    "nothing",
    [np.zeros((3, 4), int), np.zeros((2, 3, 4), int), np.zeros((0, 3, 4), int), [], [[[0]]]],
    ids=["one image", "two images", "no images", "empty list", "nested list"],
)
def test_nothing_to_find_and_nothing_predicted(nothing, zero_division):
    scores = instance_scores(nothing, nothing, zero_division=zero_division)
    assert scores[:3] == (0, 0, 0)
    assert_array_equal(scores[3:], [zero_division] * 7)
    assert_array_equal(
        average_precision_score(nothing, nothing, zero_division=zero_division), zero_division
    )


def test_an_empty_image_among_others():
    true, pred = np.zeros((2, 1, 4), int), np.zeros((2, 1, 4), int)
    true[0, 0, 0] = 1
    scores = instance_scores(true, pred, per_image=True)
    assert_array_equal(scores.f1, [0, 1])
    assert instance_scores(true, pred).f1 == 0


def test_average_precision_of_known_overlaps():
    # Overlaps of 3/5 (three thresholds: 0.5, 0.55, 0.6) and 1 (all ten) of two objects; so two
    # matches of two at three thresholds, and at seven one of two objects and two predictions.
    true, pred = [[1, 1, 1, 1, 1, 0, 2]], [[3, 3, 3, 0, 0, 0, 3 + 1]]
    assert average_precision_score(true, pred) == pytest.approx((3 * 1 + 7 * 1 / 3) / 10)
    assert average_precision_score(true, pred, thresholds=[0.5]) == 1
    assert average_precision_score(true, pred, thresholds=[0.6, 0.61]) == pytest.approx(2 / 3)


@given(LABELS, LABELS)
@settings(deadline=None, max_examples=20)
def test_average_precision_is_the_mean_accuracy(true, pred):
    thresholds = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    accuracies = [instance_scores(true, pred, threshold=t).accuracy for t in thresholds]
    assert average_precision_score(true, pred) == pytest.approx(np.mean(accuracies))


def test_many_objects_are_quick_and_no_table_of_all_pairs_is_made():
    true = np.arange(1, 90_001).reshape(300, 300).repeat(2, axis=0).repeat(2, axis=1)
    pred = np.roll(true, 1, axis=1)  # each pixel column but those at the border is half another's
    scores = instance_scores(true, pred, threshold=[0.3, 0.5])  # 2 of 6 pixels: 1/3
    assert_array_equal(scores.tp, [90_000, 0])


def test_wrong_arrays_raise():
    image = np.zeros((3, 4), int)
    with pytest.raises(TypeError, match=r"instances_true\[0\] must hold integers.*Got float64"):
        instance_scores(image.astype(float), image)
    with pytest.raises(TypeError, match=r"Got bool instead\. Number the objects first"):
        instance_scores(image, image > 0)
    with pytest.raises(ValueError, match=r"instances_pred\[0\] must not hold negative.*Got -1"):
        instance_scores(image, image - 1)
    with pytest.raises(ValueError, match=r"as many images as instances_true, 1\. Got 2"):
        instance_scores([image], [image, image])
    with pytest.raises(ValueError, match=r"shape of instances_true\[1\], \(3, 4\)\. Got \(4, 3\)"):
        instance_scores([image, image], [image, image.T])
    with pytest.raises(ValueError, match=r"instances_true must have shape \(height, width\)\. Got"):
        match_instances(image[np.newaxis], image)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, np.nan, [0.5, 2], [[0.5]]])
def test_impossible_thresholds_raise(threshold):
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        instance_scores([[1]], [[1]], threshold=threshold)


def test_wrong_parameters_raise():
    with pytest.raises(TypeError, match="Thresholds must be numbers"):
        instance_scores([[1]], [[1]], threshold="0.5")
    with pytest.raises(TypeError, match="threshold must be one number"):
        match_instances([[1]], [[1]], threshold=[0.5, 0.6])
    with pytest.raises(TypeError, match="zero_division must be an instance of"):
        instance_scores([[1]], [[1]], zero_division="warn")
    with pytest.raises(ValueError, match="thresholds must hold at least one number"):
        average_precision_score([[1]], [[1]], thresholds=[])


def test_masks_of_grey_levels_are_no_instances():
    numbered = np.array([[0, 255, 254, 0]])
    assert instance_scores(numbered, numbered).tp == 2
    for name, pair in {
        "true": (255 * (numbered > 0), numbered),
        "pred": (numbered, 255 * (numbered > 0)),
    }.items():
        match = rf"Got 0 and 255 only instead.*`skimage.measure.label\(instances_{name} > 0\)`"
        with pytest.raises(ValueError, match=match):
            instance_scores(*pair)
