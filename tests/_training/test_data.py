import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._training._data import LabelledImages, check_sample_weight


def test_weights_of_images_have_mean_1_over_those_that_are_used():
    weights = check_sample_weight([0, 1, 3, 0], 4)
    assert weights.dtype == torch.float32
    assert weights.tolist() == [0, 0.5, 1.5, 0]


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ([1, -1, 1], "weight >= 0 for each of the 3 images. Got negative weights"),
        ([0, 0, 0], r"above zero for at least two images. Got 0 such image\(s\) instead"),
        ([0, 2, 0], r"above zero for at least two images. Got 1 such image\(s\) instead"),
        ([1, 1], r"each of the 3 images. Got shape \(2,\) instead"),
        ([[1], [1], [1]], r"Got shape \(3, 1\) instead"),
        ([1, np.nan, 1], "sample_weight contains NaN"),
    ],
)
def test_weights_of_images_that_do_not_fit_are_refused(weights, match):
    with pytest.raises(ValueError, match=match):
        check_sample_weight(weights, 3)


def numbered(n, indices=None, image_shape=None):
    """Make a data set of n images whose pixels and targets are their number."""
    images = np.broadcast_to(np.arange(n)[:, None, None], (n, 8, 8))
    indices = np.arange(n) if indices is None else np.array(indices)
    return LabelledImages(images, torch.from_numpy(indices), image_shape, indices=indices)


def test_a_data_set_reads_its_own_images_in_the_order_asked_for():
    data = numbered(10, indices=[1, 4, 7])
    images, targets = data[np.array([2, 0])]
    assert len(data) == 3
    assert images[:, 0, 0, 0].tolist() == targets.tolist() == [7, 1]


def test_a_part_of_a_data_set_keeps_targets_and_weights_with_their_images():
    data = numbered(10, indices=[1, 4, 7, 8])
    data.weights = data.targets / 10
    part = data.subset(np.array([3, 1, 0])).subset(np.array([0, 2]))
    images, (targets, weights) = part[np.arange(2)]
    assert len(part) == 2
    assert images[:, 0, 0, 0].tolist() == targets.tolist() == part.indices.tolist() == [8, 1]
    np.testing.assert_allclose(weights, [0.8, 0.1])
    assert data.subset(np.array([2])).images is data.images


@pytest.mark.parametrize(
    "targets", [[[0.0], [1], [1]], [[0, 0, 0], [0, 0, 1], [1, 0, 1]]], ids=["binary", "multilabel"]
)
def test_an_image_with_any_class_is_positive(targets):
    data = LabelledImages(np.zeros((3, 8, 8)), torch.tensor(targets), None)
    assert data.is_positive.tolist() == [False, True, True]


def test_groups_that_are_too_few_to_monitor_are_told():
    X, y = np.random.default_rng(0).random((20, 8, 8)), np.arange(20) % 2
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    with (
        pytest.warns(UserWarning, match=r"1 group\(s\) .* too few for validation_fraction=0.1"),
        pytest.warns(ConvergenceWarning),
    ):
        classifier.fit(X, y, groups=np.zeros(20))
    assert "valid_loss" not in classifier.history_[-1]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_images_without_any_class_are_not_set_aside_alone():
    """Of ten groups two show the class: a tenth of them is none."""
    X, y = np.random.default_rng(0).random((40, 8, 8)), np.zeros(40, int)
    groups = np.repeat(np.arange(10), 4)
    y[[0, 1, 5]] = 1
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    told = r"2 group\(s\) of images with a class are too few for validation_fraction=0.1"
    with pytest.warns(UserWarning, match=told):
        classifier.fit(X, y, groups=groups)
    assert "valid_loss" not in classifier.history_[-1]
