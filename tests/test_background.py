"""Which class is the structure, and where its maps lie."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet._labels._targets import Targets


def images_of(names, n=120, size=24):
    """Noise with a square for "cells", a line for "bar", nothing for any other name."""
    rng = np.random.default_rng(0)
    y = np.array(names)[rng.integers(0, len(names), n)]
    X = rng.normal(0.2, 0.05, (n, size, size)).astype(np.float32)
    for image, name in zip(X, y, strict=True):
        row, column = rng.integers(2, size - 12, 2)
        if name == "cells":
            image[row : row + 6, column : column + 6] += 0.7
        elif name == "bar":
            image[row : row + 2, column : column + 11] += 0.7
    return X, y


def trained(X, y, background_label=None):
    return MicraNetClassifier(
        n_filters=4,
        max_epochs=15,
        lr=1e-2,
        validation_fraction=0,
        background_label=background_label,
        random_state=0,
    ).fit(X, y)


@pytest.fixture(scope="module")
def cells():
    X, y = images_of(["cells", "empty"])
    return X, y, trained(X, y, "empty")


def test_maps_are_those_of_the_structure_whatever_the_alphabet(cells):
    X, y, classifier = cells
    assert classifier.classes_.tolist() == ["cells", "empty"]
    assert classifier.map_classes_.tolist() == ["cells"]
    assert classifier.score(X, y) > 0.95
    maps = GradCAMFeatureTransformer(FrozenEstimator(classifier)).fit(X).transform(X)
    assert maps.class_names == maps[:3].class_names == ("cells",)
    masks = ThresholdSegmenter().fit_transform(PCAFeatureMap().fit_transform(maps))
    found = np.asarray(masks).any(axis=(1, 2, 3))
    assert found[y == "cells"].mean() > 0.95
    assert found[y == "empty"].mean() < 0.05


def test_decisions_and_probabilities_are_scikit_learns(cells):
    X, y, classifier = cells
    decision, probabilities = classifier.decision_function(X), classifier.predict_proba(X)
    assert ((decision > 0) == (y == "empty")).mean() > 0.95  # classes_[1]
    np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-decision)), atol=1e-6)
    assert (classifier.predict(X) == classifier.classes_[probabilities.argmax(axis=1)]).all()


def test_the_file_of_weights_remembers_the_background(cells, tmp_path):
    X, _, classifier = cells
    classifier.save_weights(tmp_path / "net.pt")
    loaded = MicraNetClassifier(n_filters=4).load_weights(tmp_path / "net.pt")
    assert loaded.map_classes_.tolist() == ["cells"]
    np.testing.assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    other = MicraNetClassifier(n_filters=4, background_label="cells")
    with pytest.raises(ValueError, match="background_label must be 'empty', as the network"):
        other.load_weights(tmp_path / "net.pt")


def test_exclusive_classes_but_the_background_have_maps():
    X, y = images_of(["bar", "cells", "none"])
    classifier = trained(X, y, "none")
    assert classifier.map_classes_.tolist() == ["bar", "cells"]
    maps = GradCAMFeatureTransformer(FrozenEstimator(classifier)).fit(X).transform(X)
    assert maps.shape == (120, 2, 8, 24, 24)
    present = np.asarray(maps).any(axis=(2, 3, 4))
    predicted = classifier.predict(X)
    np.testing.assert_array_equal(present, predicted[:, np.newaxis] == ["bar", "cells"])


@pytest.mark.parametrize(
    ("labels", "positive"),
    [([0, 1], 1), ([-1, 1], 1), ([False, True], 1), ([0.0, 1.0], 1)],
)
def test_some_pairs_of_labels_tell(labels, positive):
    targets = Targets.of(np.array(labels))
    targets.check_maps()
    assert targets.map_classes.tolist() == [labels[positive]]


@pytest.mark.parametrize("labels", [["cells", "empty"], ["no", "yes"], [1, 2], ["0", "1"]])
def test_other_pairs_of_labels_are_refused_before_the_training(labels):
    X, y = images_of(["cells", "empty"], n=20)
    y = np.array(labels)[(y == "cells").astype(int)]
    with pytest.raises(ValueError, match=r"Maps are those of the structure.*Set background_label="):
        GradCAMFeatureTransformer(MicraNetClassifier()).fit(X, y)
    first, second = labels
    for background, structure in ((first, second), (second, first)):
        assert Targets.of(y, background).map_classes.tolist() == [structure]


def test_an_unknown_background_is_refused():
    with pytest.raises(ValueError, match=r"one of the classes \['a', 'b'\]. Got 'c' instead"):
        Targets.of(np.array(["a", "b"]), "c")
    with pytest.raises(ValueError, match="None for an indicator matrix or masks"):
        Targets.of(np.zeros((3, 2)), 0)


# --- where maps lie -----------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [1, 2])
def test_paddings_of_an_image_move_nothing(cells, axis):
    X, y, classifier = cells
    image = X[y == "cells"][:1, :17, :17]
    cam = GradCAMFeatureTransformer(FrozenEstimator(classifier), classes="all", min_max=False).fit(
        X
    )
    expected = np.asarray(cam.transform(image))
    for n in range(1, 8):  # 18 to 24 px are continued to 24 px, as 17 px are
        width = [(0, n if i == axis else 0) for i in range(3)]
        padded = np.pad(image, width, mode="edge")
        maps = np.asarray(cam.transform(padded))[..., :17, :17]
        np.testing.assert_array_equal(maps, expected)


@pytest.mark.parametrize("size", [(24, 24), (17, 31), (9, 8)])
def test_a_map_pixel_covers_its_own_pixels(cells, size):
    _, _, classifier = cells
    X = np.random.default_rng(0).random((1, *size), dtype=np.float32)
    cam = GradCAMFeatureTransformer(FrozenEstimator(classifier), classes="all").fit(X)
    maps = np.asarray(cam.transform(X))[0, 0]
    for layer, factor in zip(maps, (1, 1, 2, 2, 4, 4, 8, 8), strict=True):
        corners = layer[::factor, ::factor]
        full = corners.repeat(factor, axis=0).repeat(factor, axis=1)
        np.testing.assert_array_equal(layer, full[: size[0], : size[1]])


# --- axes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((60, 3, 32, 32), r"pass np.moveaxis\(X, 1, -1\)"),
        ((60, 1, 32, 32), r"pass np.moveaxis\(X, 1, -1\)"),
        ((60, 3, 12, 12), r"sides of at least 8 px .* pass np.moveaxis"),
        ((60, 32, 32, 20), "at most 16 channels"),
        ((60, 32, 3), r"single colour image as image\[np.newaxis\]"),
    ],
)
def test_implausible_axes_are_refused(shape, match):
    with pytest.raises(ValueError, match=match):
        MicraNetClassifier().fit(np.zeros(shape), np.arange(60) % 2)


def test_features_that_are_no_square_are_warned_of():
    X = np.random.default_rng(0).random((6, 300))
    with pytest.warns(UserWarning, match="300 features .* pixels of one row.*Set image_shape"):
        MicraNetClassifier(n_filters=1, max_epochs=1).fit(X, np.arange(6) % 2)


def test_masks_of_labels_that_do_not_name_the_structure_are_not_scored():
    X = np.random.default_rng(0).random((8, 16, 16))
    y = np.array(["cells", "empty"] * 4)
    masks = (y == "cells")[:, None, None, None] & np.ones((8, 1, 16, 16), bool)
    network = {"n_filters": 2, "max_epochs": 1, "validation_fraction": 0, "random_state": 0}
    with pytest.warns(ConvergenceWarning):
        classifier = MicraNetClassifier(**network).fit(X, y)
    with pytest.raises(ValueError, match="Set background_label='cells' or background_label="):
        classifier.score(X, masks)
    with pytest.warns(ConvergenceWarning):
        named = MicraNetClassifier(**network, background_label="empty").fit(X, y)
    assert named.score(X, masks) == named.score(X, y)
