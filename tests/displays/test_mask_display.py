import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import same_color, to_rgba
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_micranet.displays import MaskDisplay
from sklearn_micranet.displays._axes import CLASS_COLOURS, FALSE_ALARM, HIT, MISS
from sklearn_micranet.displays._outlines import outline_segments
from sklearn_micranet.metrics import instance_scores

IMAGES = np.arange(2 * 10 * 12, dtype=np.uint16).reshape(2, 10, 12)


def rectangles(*slices, shape=(10, 12)):
    """Instances numbered in the order of their (rows, columns)."""
    instances = np.zeros(shape, np.int32)
    for number, where in enumerate(slices, start=1):
        instances[where] = number
    return instances


def outlines(patch):
    return {
        tuple(map(tuple, line)) for line in patch.get_path().vertices.reshape(-1, 2, 2).tolist()
    }


def expected(labels):
    return {tuple(map(tuple, segment)) for segment in outline_segments(labels).tolist()}


def legend(display):
    texts = display.ax_.get_legend().get_texts()
    return [text.get_text() for text in texts]


def test_outlines_of_each_class_in_its_colour():
    masks = np.zeros((2, 3, 10, 12), bool)
    masks[1, 0, 2:4, 2:6] = masks[1, 2, 5:9, 0:3] = True
    display = MaskDisplay.from_predictions(
        IMAGES, masks, sample=1, class_names=["a", "b", "c"], pixel_size=10, unit="nm"
    )
    np.testing.assert_array_equal(display.image_.get_array(), IMAGES[1])
    np.testing.assert_allclose(display.image_.get_clim(), np.percentile(IMAGES[1], [0.1, 99.9]))
    assert list(display.outlines_) == legend(display) == ["a", "c"]  # b does not occur
    assert outlines(display.outlines_["a"]) == expected(masks[1, 0])
    assert outlines(display.outlines_["c"]) == expected(masks[1, 2])
    assert same_color(display.outlines_["a"].get_edgecolor(), CLASS_COLOURS[0])
    assert same_color(display.outlines_["c"].get_edgecolor(), CLASS_COLOURS[2])
    assert display.ax_.get_title() == "image 1"
    assert display.figure_ is display.ax_.figure
    assert display.overlay_ is None
    assert display.ax_.get_xlim() == (-0.5, 11.5)  # outlines do not widen the view
    assert display.ax_.get_ylim() == (9.5, -0.5)


def test_one_class_only():
    masks = np.ones((2, 2, 10, 12), bool)
    display = MaskDisplay.from_predictions(IMAGES, masks, map_index=1)
    assert list(display.outlines_) == ["class 1"]
    assert same_color(display.outlines_["class 1"].get_edgecolor(), CLASS_COLOURS[1])
    single = MaskDisplay.from_predictions(IMAGES, masks[:, :1])
    assert single.ax_.get_legend() is None


def test_from_the_eighth_class_on_areas_are_filled():
    masks = np.zeros((1, 9, 10, 12), bool)
    masks[0, 1, :2], masks[0, 8, 5:] = True, True
    display = MaskDisplay.from_predictions(IMAGES[:1], masks)
    colours = [display.outlines_[f"class {k}"].get_edgecolor() for k in (1, 8)]
    assert same_color(*colours)
    overlay = np.asarray(display.overlay_.get_array())
    np.testing.assert_array_equal(overlay[..., 3] > 0, masks[0, 8])


def test_masks_are_compared_pixel_by_pixel():
    pred, true = (np.zeros((1, 1, 10, 12), bool) for _ in range(2))
    pred[0, 0, 2:6, 2:4] = True  # 8 px, of which 4 are true
    true[0, 0, 4:8, 2:4] = True  # 8 px, of which 4 are found
    display = MaskDisplay.from_predictions(IMAGES[:1], pred, masks_true=true)
    overlay = np.asarray(display.overlay_.get_array())
    np.testing.assert_allclose(overlay[4:6, 2:4, :3], np.broadcast_to(to_rgba(HIT)[:3], (2, 2, 3)))
    np.testing.assert_allclose(overlay[6:8, 2:4, :3], np.broadcast_to(to_rgba(MISS)[:3], (2, 2, 3)))
    np.testing.assert_allclose(
        overlay[2:4, 2:4, :3], np.broadcast_to(to_rgba(FALSE_ALARM)[:3], (2, 2, 3))
    )
    np.testing.assert_array_equal(overlay[..., 3] > 0, (pred | true)[0, 0])
    assert display.overlay_.get_extent() == display.image_.get_extent()
    assert legend(display) == ["found: 33% (IoU)", "missed: 33%", "false alarm: 33%"]
    swatches = [patch.get_facecolor() for patch in display.ax_.get_legend().get_patches()]
    assert swatches == [to_rgba(colour) for colour in (HIT, MISS, FALSE_ALARM)]


def test_segments_are_masks_where_they_are_not_zero():
    segments = np.zeros((1, 1, 10, 12), np.float32)
    segments[0, 0, 2:6, 2:4] = 0.3
    display = MaskDisplay.from_predictions(IMAGES[:1], segments, masks_true=segments)
    assert legend(display)[0] == "found: 100% (IoU)"


def test_instances_are_compared_object_by_object():
    # Rows 0-2: the same; rows 4-6: IoU 2/5 is not enough; row 8: one found object, none true.
    pred = rectangles(np.s_[0:2, 0:4], np.s_[4:6, 0:2], np.s_[8:9, 6:9])
    true = rectangles(np.s_[4:6, 0:5], np.s_[0:2, 0:4])
    display = MaskDisplay.from_predictions(
        IMAGES[:1], pred[None, None], masks_true=true[None, None]
    )
    assert legend(display) == ["found: 1", "missed: 1", "false alarm: 2"]
    assert outlines(display.outlines_["found"]) == expected(pred == 1)
    assert outlines(display.outlines_["missed"]) == expected(true == 1)
    assert outlines(display.outlines_["false alarm"]) == expected(pred * (pred > 1))
    for name, colour in {"found": HIT, "missed": MISS, "false alarm": FALSE_ALARM}.items():
        assert same_color(display.outlines_[name].get_edgecolor(), colour)
    assert display.overlay_ is None


@given(*[arrays(np.int32, (10, 12), elements=st.integers(0, 5))] * 2)
@settings(deadline=None, max_examples=10)
def test_objects_are_counted_as_in_the_scores(pred, true):
    pred, true = (np.repeat(np.repeat(part[:5, :6], 2, 0), 2, 1) for part in (pred, true))
    assume(pred.max() > 1 and true.max() > 1)
    display = MaskDisplay(IMAGES[0], pred[None], masks_true=true[None]).plot()
    tp, fp, fn, *_ = instance_scores(true, pred)
    assert legend(display) == [f"found: {tp}", f"missed: {fn}", f"false alarm: {fp}"]
    plt.close(display.figure_)


def test_masks_and_instances_are_compared_with_each_other():
    # Two objects that touch, one of which is found: one component, covered to 2/3.
    pred, true = rectangles(np.s_[0:2, 0:4]), rectangles(np.s_[0:2, 0:4], np.s_[0:2, 4:6])
    display = MaskDisplay(IMAGES[0], pred[None] > 0, masks_true=true[None]).plot()
    assert legend(display) == ["found: 67% (IoU)", "missed: 33%", "false alarm: 0%"]
    display = MaskDisplay(IMAGES[0], true[None], masks_true=pred[None] > 0).plot()
    assert legend(display) == ["found: 1", "missed: 0", "false alarm: 1"]
    display = MaskDisplay(IMAGES[0], pred[None], masks_true=true[None] > 0).plot()
    assert legend(display) == ["found: 1", "missed: 0", "false alarm: 0"]


def test_nothing_predicted_and_nothing_true():
    nothing = np.zeros((1, 1, 10, 12), np.int32)
    display = MaskDisplay.from_predictions(IMAGES[:1], nothing, masks_true=nothing)
    assert legend(display) == ["found: 0", "missed: 0", "false alarm: 0"]
    nothing = nothing > 0
    display = MaskDisplay.from_predictions(IMAGES[:1], nothing, masks_true=nothing)
    assert legend(display) == ["found: 0% (IoU)", "missed: 0%", "false alarm: 0%"]
    assert MaskDisplay.from_predictions(IMAGES[:1], nothing).outlines_ == {}


def test_no_legend_where_none_is_wanted():
    masks = np.ones((2, 2, 10, 12), bool)
    assert MaskDisplay.from_predictions(IMAGES, masks, legend=False).ax_.get_legend() is None


def test_the_legend_is_as_wide_as_there_is_room():
    masks = np.ones((2, 9, 10, 12), bool)
    _, axes = plt.subplots(1, 4, figsize=(8, 2))
    for ax, n_columns in [(None, 3), (axes[0], 1)]:
        display = MaskDisplay.from_predictions(IMAGES, masks, ax=ax)
        display.figure_.canvas.draw()
        texts = display.ax_.get_legend().get_texts()
        assert len({round(text.get_window_extent().x0) for text in texts}) == n_columns


@pytest.mark.parametrize(("n_px", "inches"), [(64, 5), (1200, 8), (3000, 10)])
def test_large_images_get_large_figures(n_px, inches):
    image = np.zeros((n_px // 2, n_px), np.uint8)
    display = MaskDisplay(image, image[None] > 0).plot()
    assert display.figure_.get_size_inches().tolist() == [inches, inches / 2]


def test_images_of_different_size():
    images = [np.zeros((4, 5)), np.zeros((8, 3, 3), np.uint8)]
    masks = [np.ones((1, 4, 5), bool), np.ones((1, 8, 3), bool)]
    display = MaskDisplay.from_predictions(images, masks, sample=1, masks_true=masks)
    assert display.image_.get_array().shape == (8, 3, 3)


class Threshold(BaseEstimator):
    """Masks where the image exceeds 5, instances where rows begin."""

    classes_ = np.array(["cell"])

    def fit(self, X, y=None):
        return self

    def predict(self, X):
        self.n_seen_ = len(X)
        return (X > 5)[:, np.newaxis]

    def predict_instances(self, X):
        return (X > 5)[:, np.newaxis].astype(np.int32) * 4

    def __sklearn_is_fitted__(self):
        return True


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_from_an_estimator(in_pipeline):
    estimator, threshold = Threshold(), 5
    if in_pipeline:
        estimator, threshold = make_pipeline(FunctionTransformer(np.sqrt), Threshold()), 25
    display = MaskDisplay.from_estimator(estimator, IMAGES, sample=0)
    np.testing.assert_array_equal(display.masks, [IMAGES[0] > threshold])
    assert list(display.outlines_) == ["cell"]
    display = MaskDisplay.from_estimator(estimator, IMAGES, class_names=["nucleus"])
    assert list(display.outlines_) == ["nucleus"]
    last = estimator[-1] if in_pipeline else estimator
    assert last.n_seen_ == 1
    display = MaskDisplay.from_estimator(
        estimator, IMAGES, [[IMAGES[0] // 200], None], response_method="predict_instances"
    )
    np.testing.assert_array_equal(np.unique(display.masks), [0, 4])
    assert legend(display) == ["found: 0", "missed: 0", "false alarm: 1"]


def test_flattened_images():
    class Masks(Threshold):
        def predict(self, X):
            return X.reshape(-1, 1, 10, 12) > 5

    display = MaskDisplay.from_estimator(Masks(), IMAGES.reshape(2, -1), sample=1)
    np.testing.assert_array_equal(display.image_.get_array(), IMAGES[1])


@pytest.mark.parametrize("n_found", [0, 3])
def test_detections_instead_of_masks_are_refused(n_found):
    class Detections(Threshold):
        def predict(self, X):
            return [np.zeros((n_found, 4))]

    message = rf"must have shape \(n_maps, height, width\), .* Got \({n_found}, 4\) instead"
    with pytest.raises(ValueError, match=message):
        MaskDisplay.from_estimator(Detections(), IMAGES)
    with pytest.raises(ValueError, match="An image must"):
        MaskDisplay.from_estimator(Detections(), IMAGES.reshape(2, -1))


def test_an_estimator_without_the_method_is_refused():
    with pytest.raises(TypeError, match=r"must have the method predict_instances. Got Functio"):
        MaskDisplay.from_estimator(
            FunctionTransformer(), IMAGES, response_method="predict_instances"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masks": np.ones((1, 10, 12), bool)}, r"one array for each of the 2 images. Got 1"),
        ({"masks": np.ones((2, 10, 12), bool)}, r"\(n_maps, 10, 12\). Got \(10, 12\) instead"),
        ({"masks": np.ones((2, 1, 12, 10), bool)}, r"\(n_maps, 10, 12\). Got \(1, 12, 10\)"),
        ({"masks_true": np.ones((2, 3, 10, 12), bool)}, "as many maps as masks, 1. Got 3"),
        ({"class_names": ["a", "b"]}, "one name for each of the 1 maps. Got 2 instead"),
        ({"map_index": 1}, "map_index == 1, must be <= 0"),
        ({"images": IMAGES[0]}, r"must hold one array for each of the 10 images. Got 2"),
        ({"percentiles": (3, 2)}, "percentiles must be two ascending numbers"),
    ],
)
def test_refuses(arguments, message):
    legal = {"images": IMAGES, "masks": np.ones((2, 1, 10, 12), bool)}
    with pytest.raises(ValueError, match=message):
        MaskDisplay.from_predictions(**{**legal, **arguments})


def test_several_classes_are_compared_one_at_a_time():
    masks = np.ones((2, 4, 10, 12), bool)
    with pytest.raises(ValueError, match="4 classes and no map_index instead: pass one of 0 to 3"):
        MaskDisplay.from_predictions(IMAGES, masks, masks_true=masks)
    MaskDisplay.from_predictions(IMAGES, masks, masks_true=masks, map_index=2)


def test_objects_of_masks_of_0_and_1_are_components():
    masks = (rectangles(np.s_[0:2, 0:4], np.s_[4:6, 0:2]) > 0).astype(np.uint8)
    display = MaskDisplay(IMAGES[0], masks[None], masks_true=masks[None]).plot()
    assert legend(display)[0] == "found: 2"
    with pytest.raises(ValueError, match=r"masks must hold masks, or.*Got 0 and 255"):
        MaskDisplay(IMAGES[0], masks[None] * 255, masks_true=masks[None]).plot()
