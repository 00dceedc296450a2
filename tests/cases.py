"""Masks, instances, points and detections with answers worked out by hand."""

from typing import NamedTuple

import numpy as np


def mask(*rows):
    """Draw a mask: "#" is inside."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


class MaskCase(NamedTuple):
    mask_true: np.ndarray
    mask_pred: np.ndarray
    iou: float
    dice: float
    boundary_dice: float  # with radius 1: a pixel and its four edge neighbours


MASK_CASES = {
    "identical": MaskCase(
        mask("....", ".##.", ".###", "...."),
        mask("....", ".##.", ".###", "...."),
        iou=1,
        dice=1,
        boundary_dice=1,
    ),
    "disjoint": MaskCase(
        mask("##....", "##....", "......", "......"),
        mask("......", "......", "....##", "....##"),
        iou=0,
        dice=0,
        boundary_dice=0,
    ),
    # 2 common pixels of 4 + 4. All pixels are boundary. Left column of the true square: 3 true, 1
    # predicted, 1 common pixel nearby, 2 / 4 each. Right column: 3, 3 and 2, 4 / 6 each. So
    # 1 + 4/3 for the true square, the same for the predicted one by symmetry: 14/3 over 8 pixels.
    "shifted": MaskCase(
        mask(".....", ".##..", ".##..", "....."),
        mask(".....", "..##.", "..##.", "....."),
        iou=2 / 6,
        dice=4 / 8,
        boundary_dice=7 / 12,
    ),
    # 1 common pixel of 8 + 1. The centre has its four edge neighbours, so it is no true boundary
    # pixel though it touches the notch. Corners (3): no prediction nearby, 0. Top and left: 3 true
    # pixels nearby, 1 predicted and common, 2 / 4. Right and bottom: 4 and 1, 2 / 5. The predicted
    # pixel: 5 and 1, 2 / 6. The sum 1 + 4/5 + 1/3 = 32/15 over 7 + 1 pixels.
    "notched": MaskCase(
        mask(".....", "..##.", ".###.", ".###.", "....."),
        mask(".....", ".....", "..#..", ".....", "....."),
        iou=1 / 8,
        dice=2 / 9,
        boundary_dice=4 / 15,
    ),
    # 3 common pixels of 6 + 3. Beyond the image is outside, so all pixels are boundary. True, left
    # column: 4/5, 6/7, 4/5 (3, 4, 3 true, 2, 3, 2 predicted pixels nearby, all of them common);
    # right column: 2/4, 2/5, 2/4. Predicted: 4/5, 6/7, 4/5 again. 221/35 over 9 pixels.
    "at the image border": MaskCase(
        mask("##..", "##..", "##.."),
        mask("#...", "#...", "#..."),
        iou=3 / 6,
        dice=6 / 9,
        boundary_dice=221 / 315,
    ),
    "missed": MaskCase(
        mask("....", ".##.", "...."),
        mask("....", "....", "...."),
        iou=0,
        dice=0,
        boundary_dice=0,
    ),
    "invented": MaskCase(
        mask("....", "....", "...."),
        mask("....", ".##.", "...."),
        iou=0,
        dice=0,
        boundary_dice=0,
    ),
}


def instances(*rows):
    """Draw instances: each digit is the number of an object, "." is background."""
    return np.array([[int(pixel.replace(".", "0")) for pixel in row] for row in rows])


class InstanceCase(NamedTuple):
    true: np.ndarray
    pred: np.ndarray
    threshold: float
    pairs: list  # (number_true, number_pred, overlap)
    n_true: int
    n_pred: int


INSTANCE_CASES = {
    "touching objects, all found": InstanceCase(
        instances("1122", "1122"),
        instances("7733", "7733"),
        threshold=1,
        pairs=[(1, 7, 1), (2, 3, 1)],
        n_true=2,
        n_pred=2,
    ),
    # The union is the merged object, half of it each of the true ones.
    "merged, inclusive threshold": InstanceCase(
        instances("1122", "1122"),
        instances("1111", "1111"),
        threshold=0.5,
        pairs=[(1, 1, 1 / 2)],
        n_true=2,
        n_pred=1,
    ),
    "merged": InstanceCase(
        instances("1122", "1122"),
        instances("1111", "1111"),
        threshold=0.51,
        pairs=[],
        n_true=2,
        n_pred=1,
    ),
    # 4 of 6 pixels, and 2 of 6.
    "the better of two": InstanceCase(
        instances("111111."),
        instances("225555."),
        threshold=0.3,
        pairs=[(1, 5, 4 / 6)],
        n_true=1,
        n_pred=2,
    ),
    # 5 shares 4 of 7 pixels with 1, more than 6 does (2 of 6), and 1 of 7 with 2.
    "more pairs before better pairs": InstanceCase(
        instances("111111222"),
        instances("6655555.."),
        threshold=0.1,
        pairs=[(1, 6, 2 / 6), (2, 5, 1 / 7)],
        n_true=2,
        n_pred=2,
    ),
    # A number is an object, also where it is not connected: 3 common pixels of 4 + 3.
    "in parts": InstanceCase(
        instances("11.11", "....."),
        instances("11.1.", "...2."),
        threshold=0.5,
        pairs=[(1, 1, 3 / 4)],
        n_true=1,
        n_pred=2,
    ),
    "missed": InstanceCase(
        instances("11.2"), instances("...."), threshold=0.5, pairs=[], n_true=2, n_pred=0
    ),
    "invented": InstanceCase(
        instances("...."), instances("3..."), threshold=0.5, pairs=[], n_true=0, n_pred=1
    ),
}


class PointCase(NamedTuple):
    points_true: list
    points_pred: list
    max_distance: float
    pairs: list  # (index_true, index_pred)
    total_distance: float


POINT_CASES = {
    # The nearest two points (distance 1) would leave the outer ones 5 apart: two pairs win.
    "more pairs before nearer pairs": PointCase(
        [[0, 0], [0, 3]], [[0, 2], [0, 5]], 3, pairs=[(0, 0), (1, 1)], total_distance=4
    ),
    # Two pairs of distance 0 are possible, at the price of the outermost two points.
    "more pairs before many nearer pairs": PointCase(
        [[0, 0], [0, 3], [0, 6]],
        [[0, 3], [0, 6], [0, 9]],
        max_distance=3,
        pairs=[(0, 0), (1, 1), (2, 2)],
        total_distance=9,
    ),
    "crossed order": PointCase(
        [[0, 0], [0, 10]], [[0, 9], [0, 1]], 100, pairs=[(0, 1), (1, 0)], total_distance=2
    ),
    "exactly max_distance": PointCase([[1, 1]], [[4, 5]], 5, pairs=[(0, 0)], total_distance=5),
    "just too far": PointCase([[1, 1]], [[4, 5]], 4.99, pairs=[], total_distance=0),
    "detected twice": PointCase(
        [[7, 7]], [[7, 8], [7, 7], [6, 7]], 3, pairs=[(0, 1)], total_distance=0
    ),
    "one of three found": PointCase(
        [[0, 0], [50, 50], [90, 90]], [[51, 50]], 3, pairs=[(1, 0)], total_distance=1
    ),
}


class DetectionCase(NamedTuple):
    points_true: list  # rows (class index, row, column)
    points_pred: list  # rows (class index, row, column, score)
    max_distance: float
    n_true_positives: int
    n_false_positives: int
    n_false_negatives: int


# Sample 0: one object of class 0 found, one of class 1 found (2 TP). The object at (30, 30) is
# missed (1 FN): only the other class is detected there (1 FP).
# Sample 1: one object detected twice (1 TP, 1 FP), and a detection at (30, 30) that would fit the
# missed object, were it not in another sample (1 FP).
# Sample 2: nothing there, nothing detected.
DETECTION_CASE = DetectionCase(
    [
        [[0, 10, 10], [0, 30, 30], [1, 10, 10]],
        [[1, 5, 5]],
        [],
    ],
    [
        [[0, 11, 10, 0.9], [1, 31, 30, 0.8], [1, 10, 12, 0.7]],
        [[1, 5, 6, 0.6], [1, 5, 4, 0.5], [0, 30, 30, 0.4]],
        [],
    ],
    max_distance=3,
    n_true_positives=3,
    n_false_positives=3,
    n_false_negatives=1,
)


def width_at_a_half(profile):
    """Between the two places where a profile crosses 0.5, linear between pixels."""
    above = np.flatnonzero(profile > 0.5)
    sides = [(above[0] - 1, above[0]), (above[-1] + 1, above[-1])]
    ends = [a + (0.5 - profile[a]) / (profile[b] - profile[a]) * (b - a) for a, b in sides]
    return ends[1] - ends[0]
