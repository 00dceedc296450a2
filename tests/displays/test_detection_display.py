import numpy as np
import pytest
from matplotlib.colors import same_color
from sklearn.base import BaseEstimator

from sklearn_micranet.displays import DetectionDisplay
from sklearn_micranet.displays._axes import CLASS_COLOURS, FALSE_ALARM, HIT, MISS

IMAGES = np.random.default_rng(0).random((2, 30, 40, 3))
DETECTIONS = [[], [[0, 10, 11, 0.9], [2, 25, 25, 0.4], [0, 20, 5, 0.3]]]


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def positions(marks):
    return np.asarray(marks.get_offsets()).tolist()


def test_crosses_of_each_class_in_its_colour():
    display = DetectionDisplay.from_predictions(IMAGES, DETECTIONS, sample=1)
    assert list(display.marks_) == legend(display) == ["class 0", "class 2"]
    assert positions(display.marks_["class 0"]) == [[11, 10], [5, 20]]  # x is the column
    assert positions(display.marks_["class 2"]) == [[25, 25]]
    assert same_color(display.marks_["class 0"].get_edgecolor()[0], CLASS_COLOURS[0])
    assert same_color(display.marks_["class 2"].get_edgecolor()[0], CLASS_COLOURS[2])
    assert display.image_.get_array().shape == (30, 40, 3)
    assert display.ax_.get_xlim() == (-0.5, 39.5)
    assert display.ax_.get_title() == "image 1"


def test_one_class_only():
    display = DetectionDisplay.from_predictions(
        IMAGES, DETECTIONS, sample=1, map_index=2, class_names=["a", "b", "c"]
    )
    assert legend(display) == ["c"]
    assert positions(display.marks_["c"]) == [[25, 25]]


def test_no_detections():
    display = DetectionDisplay.from_predictions(IMAGES, DETECTIONS)
    assert display.marks_ == {}
    display = DetectionDisplay.from_predictions(
        IMAGES, DETECTIONS, points_true=[[], []], max_distance=3
    )
    assert legend(display) == ["matched: 0", "missed: 0", "false alarm: 0"]


def test_compared_with_true_positions():
    # Class 0: (10, 11) is 5 px from (13, 15), (20, 5) is far from all. Class 2: 1 px, found.
    # Class 1: missed, although a detection of class 0 is on it.
    true = [[0, 13, 15], [2, 25, 26], [1, 20, 5]]
    display = DetectionDisplay.from_predictions(
        IMAGES, DETECTIONS, points_true=[[], true], max_distance=5, sample=1
    )
    assert legend(display) == ["matched: 2", "missed: 1", "false alarm: 1"]
    assert positions(display.marks_["matched"]) == [[11, 10], [25, 25]]
    assert positions(display.marks_["false alarm"]) == [[5, 20]]
    assert positions(display.circles_["matched"]) == [[15, 13], [26, 25]]
    assert positions(display.circles_["missed"]) == [[5, 20]]
    for marks, colour in [
        (display.marks_["matched"], HIT),
        (display.circles_["matched"], HIT),
        (display.circles_["missed"], MISS),
        (display.marks_["false alarm"], FALSE_ALARM),
    ]:
        assert same_color(marks.get_edgecolor()[0], colour)
    np.testing.assert_allclose(display.circles_["missed"].get_widths(), 10)  # diameters
    (pairs,) = (c for c in display.ax_.collections if hasattr(c, "get_segments"))
    ends = [segment.tolist() for segment in pairs.get_segments()]
    assert ends == [[[11, 10], [15, 13]], [[25, 25], [26, 25]]]
    names = [text.get_text() for text in display.ax_.texts]
    assert names == ["class 0", "class 2", "class 0", "class 1"]


def test_circles_have_the_radius_of_max_distance_on_the_screen():
    display = DetectionDisplay.from_predictions(
        IMAGES, [[], []], points_true=[[[0, 15, 20]], []], max_distance=7
    )
    display.figure_.canvas.draw()
    circles = display.circles_["missed"]
    px = circles.get_transforms()[0][0, 0] * circles.get_transform().get_matrix()[0, 0]
    ends = display.ax_.transData.transform([(20, 15), (27, 15)])[:, 0]
    assert px == pytest.approx(ends[1] - ends[0])


@pytest.mark.parametrize("is_found", [True, False])
@pytest.mark.parametrize("place", [(0, 0), (0, 39), (29, 0), (29, 39), (15, 20)])
def test_names_stay_inside_the_image(place, is_found):
    marks = [[[0, 10, 20], [1, *place]]]
    found, true = (marks, [[]]) if is_found else ([[]], marks)
    display = DetectionDisplay.from_predictions(
        IMAGES[:1], found, points_true=true, max_distance=3, class_names=["cell", "platelet"]
    )
    display.figure_.canvas.draw()
    (name,) = (text for text in display.ax_.texts if text.get_text() == "platelet")
    inside = display.ax_.get_window_extent().padded(1)
    box = name.get_window_extent()
    assert inside.contains(box.x0, box.y0)
    assert inside.contains(box.x1, box.y1)


def test_names_are_written_only_where_colours_do_not_tell_the_class():
    display = DetectionDisplay.from_predictions(
        IMAGES, DETECTIONS, points_true=[[], []], max_distance=3, sample=1, map_index=0
    )
    assert len(display.ax_.texts) == 0
    assert legend(display) == ["matched: 0", "missed: 0", "false alarm: 2"]


def test_most_pairs_come_first_as_in_the_scores():
    true, found = [[[0, 5, 0], [0, 5, 3]]], [[[0, 5, 2], [0, 5, 5]]]
    display = DetectionDisplay.from_predictions(IMAGES[:1], found, points_true=true, max_distance=3)
    assert legend(display)[0] == "matched: 2"


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_truth_may_be_masks_or_instances(dtype):
    true = np.zeros((2, 3, 30, 40), np.uint8)
    true[1, 0, 8:13, 9:14], true[1, 2, 0, 0] = 2, 1  # about (10, 11), and a single pixel
    display = DetectionDisplay.from_predictions(
        IMAGES, DETECTIONS, points_true=true.astype(dtype), max_distance=1, sample=1
    )
    assert legend(display) == ["matched: 1", "missed: 1", "false alarm: 2"]
    with pytest.raises(ValueError, match=r"points_true of an image must have shape .*30, 40\)"):
        DetectionDisplay(IMAGES[1], [], points_true=true[1, :, :9], max_distance=1).plot()


class Detector(BaseEstimator):
    map_classes_ = np.array(["RBC", "WBC"])

    def predict(self, X):
        return [np.array([[1, len(X), 4, 0.5]])]

    def __sklearn_is_fitted__(self):
        return True


def test_from_an_estimator():
    display = DetectionDisplay.from_estimator(Detector(), IMAGES, sample=1)
    assert legend(display) == ["WBC"]
    assert positions(display.marks_["WBC"]) == [[4, 1]]  # of one image only
    display = DetectionDisplay.from_estimator(
        Detector(), IMAGES, [[], [[1, 2, 4]]], max_distance=1, sample=1
    )
    assert legend(display) == ["matched: 1", "missed: 0", "false alarm: 0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detections": [[]]}, "detections must hold one array for each of the 2 images"),
        ({"detections": [[[1, 2]], []]}, "must have 3 or 4 columns, .* Got 2 columns instead"),
        ({"detections": [[[0.5, 2, 3]], []]}, r"hold map indices, .* Got \[0.5\] instead"),
        ({"detections": [[[0, np.nan, 3]], []]}, "Input detections contains NaN"),
        ({"detections": [[["cell", 2, 3]], []]}, "a class is its index, counted from 0"),
        ({"points_true": [[], []]}, "required together. Got only one of them"),
        ({"max_distance": 3}, "required together. Got only one of them"),
        ({"points_true": [[[0, 1, 2, 3]], []], "max_distance": 3}, "points_true of an image must"),
        ({"points_true": [[], []], "max_distance": np.inf}, "max_distance must be finite"),
        (
            {"points_true": [[[0, 1, 2]], []], "max_distance": -1},
            "max_distance == -1, must be >= 0",
        ),
        ({"class_names": ["a"], "sample": 1}, "one name for each of the 3 maps. Got 1 instead"),
    ],
)
def test_refuses(arguments, message):
    legal = {"images": IMAGES, "detections": DETECTIONS}
    with pytest.raises(ValueError, match=message):
        DetectionDisplay.from_predictions(**{**legal, **arguments})
