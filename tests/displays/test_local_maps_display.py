import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_micranet.displays import LocalMapsDisplay

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 4096, (3, 16, 20)).astype(np.uint16)
MAPS = RNG.random((3, 2, 8, 16, 20)).astype(np.float32)
FEATURE_MAPS = RNG.normal(size=(3, 2, 16, 20))


def titles(display):
    return [ax.get_title() for ax in display.axes_]


def drawn(display, i):
    return np.asarray(display.images_[i].get_array())


def test_all_layers_and_the_feature_map():
    display = LocalMapsDisplay.from_predictions(
        IMAGES, MAPS, feature_maps=FEATURE_MAPS, sample=2, map_index=1, class_names=["a", "b"]
    )
    layers = [f"L{i}" for i in range(1, 9)]
    assert titles(display) == ["image 2, class b", *layers, "feature map"]
    np.testing.assert_array_equal(drawn(display, 0), IMAGES[2])
    for i in range(8):
        np.testing.assert_array_equal(drawn(display, 1 + i), MAPS[2, 1, i])
        assert display.images_[1 + i].get_clim() == (MAPS[2, 1, i].min(), MAPS[2, 1, i].max())
    np.testing.assert_array_equal(drawn(display, 9), FEATURE_MAPS[2, 1])
    assert {image.get_extent()[1] for image in display.images_} == {19.5}
    assert all(len(ax.get_xticks()) == 0 for ax in display.axes_)
    assert display.colorbar_.mappable is display.images_[-1]


def test_chosen_layers_in_the_order_asked_for():
    display = LocalMapsDisplay.from_predictions(IMAGES, MAPS, layers=["L8", "L2"])
    assert titles(display) == ["image 0, class 0", "L8", "L2"]
    np.testing.assert_array_equal(drawn(display, 1), MAPS[0, 0, 7])
    np.testing.assert_array_equal(drawn(display, 2), MAPS[0, 0, 1])


def test_a_single_class_without_a_name_is_not_numbered():
    display = LocalMapsDisplay.from_predictions(IMAGES, MAPS[:, :1], layers=["L8"])
    assert titles(display) == ["image 0", "L8"]
    display = LocalMapsDisplay.from_predictions(
        IMAGES, MAPS[:, :1], layers=["L8"], class_names=["cell"]
    )
    assert titles(display) == ["image 0, class cell", "L8"]


def test_the_image_alone():
    display = LocalMapsDisplay.from_predictions(IMAGES, MAPS, layers=[])
    assert len(display.axes_) == 1
    assert display.colorbar_ is None


def test_maps_of_an_absent_class_are_said_to_be_zero():
    maps = MAPS.copy()
    maps[0, 0] = 0
    display = LocalMapsDisplay.from_predictions(IMAGES, maps, layers=["L1"])
    assert titles(display)[1] == "L1 (zero)"


def test_axes_of_ones_own_in_a_grid():
    figure, axes = plt.subplots(2, 3)
    for row, sample in zip(axes, (0, 2), strict=True):
        display = LocalMapsDisplay.from_predictions(
            IMAGES, MAPS, sample=sample, layers=["L1", "L8"], ax=row
        )
        assert display.axes_.tolist() == row.tolist()
        assert display.figure_ is figure
        assert display.colorbar_ is None
    assert len(figure.axes) == 6


def test_rows_of_panels():
    display = LocalMapsDisplay.from_predictions(IMAGES, MAPS, n_columns=3)
    rows = [ax.get_subplotspec().rowspan.start for ax in display.axes_]
    assert rows == [0, 0, 0, 1, 1, 1, 2, 2, 2]


class CAM(BaseEstimator):
    """Local maps of one image."""

    classes_ = np.array(["ring", "rod"])

    def transform(self, X):
        self.n_seen_ = len(X)
        return MAPS[:1, :, :3].view(Named)

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True


class Named(np.ndarray):
    layer_names = ("image", "L1[0]", "L1[1]")


@pytest.mark.parametrize("flat", [False, True])
def test_from_an_estimator(flat):
    cam = CAM()
    images = IMAGES.reshape(3, -1) if flat else IMAGES
    display = LocalMapsDisplay.from_estimator(cam, images, sample=1, map_index=1)
    assert cam.n_seen_ == 1
    assert titles(display) == ["image 1, class rod", "image", "L1[0]", "L1[1]"]
    np.testing.assert_array_equal(drawn(display, 0), IMAGES[1])


def test_from_a_pipeline_the_step_after_the_maps_gives_the_feature_map():
    fuse = FunctionTransformer(lambda maps: np.asarray(maps).sum(axis=2))
    halve = FunctionTransformer(lambda maps: maps / 2)
    pipe = make_pipeline(FunctionTransformer(), CAM(), fuse, halve)
    display = LocalMapsDisplay.from_estimator(pipe, IMAGES, layers=["image"])
    assert titles(display) == ["image 0, class ring", "image", "feature map"]
    np.testing.assert_allclose(drawn(display, 2), MAPS[0, 0, :3].sum(axis=0))
    display = LocalMapsDisplay.from_estimator(make_pipeline(FunctionTransformer(), CAM()), IMAGES)
    assert titles(display)[-1] == "L1[1]"


def test_of_an_estimator_without_local_maps_the_feature_map_is_drawn():
    guided = FunctionTransformer(lambda images: MAPS[: len(images), :, 0])
    guided.map_classes_ = ["disc", "ring"]
    colour = np.stack([IMAGES] * 3, axis=-1)
    pipe = make_pipeline(FunctionTransformer(), guided, FunctionTransformer())
    display = LocalMapsDisplay.from_estimator(pipe, colour, map_index=1)
    assert titles(display) == ["image 0, class ring", "feature map"]
    np.testing.assert_array_equal(drawn(display, 1), MAPS[0, 1, 0])
    with pytest.raises(ValueError, match=r"layers must be some of \[\]. Got \['L8'\]"):
        LocalMapsDisplay.from_estimator(pipe, colour, layers=["L8"])


def test_an_estimator_without_local_maps_is_refused():
    with pytest.raises(TypeError, match=r"must make local maps: .* Got Pipeline without one"):
        LocalMapsDisplay.from_estimator(make_pipeline(FunctionTransformer()), IMAGES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"local_maps": MAPS[:, 0]}, r"here \(n_maps, n_layers, 16, 20\). Got \(8, 16, 20\)"),
        ({"local_maps": MAPS[..., :5]}, r"here \(n_maps, n_layers, 16, 20\). Got \(2, 8, 16, 5\)"),
        ({"local_maps": MAPS[:2]}, "local_maps must hold one array for each of the 3 images"),
        ({"local_maps": MAPS[:, :, :4]}, "one name for each of the 4 layers. Got None"),
        ({"layer_names": ["L1"]}, r"one name for each of the 8 layers. Got \['L1'\] instead"),
        ({"layers": ["L9"]}, r"layers must be some of \['L1', .* Got \['L9'\] instead"),
        ({"feature_maps": FEATURE_MAPS[:, 0]}, r"here \(2, 16, 20\). Got \(16, 20\) instead"),
        ({"map_index": 2}, "map_index == 2, must be <= 1"),
        ({"class_names": ["a"]}, "one name for each of the 2 maps. Got 1 instead"),
        ({"n_columns": 0}, "n_columns == 0, must be >= 1"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalMapsDisplay.from_predictions(**{"images": IMAGES, "local_maps": MAPS, **arguments})
