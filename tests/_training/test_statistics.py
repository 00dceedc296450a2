import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._training import _statistics

RNG = np.random.default_rng(0)
Y = np.arange(30) % 2
X = (RNG.normal(5, 2, (30, 16, 16)) + 3 * Y[:, None, None]).astype(np.float32)


def small(**parameters):
    defaults = {"n_filters": 2, "max_epochs": 1, "dropout": 0, "random_state": 0, "lr": 1e-6}
    return MicraNetClassifier(**(defaults | parameters))


def first_statistics(images):
    """Mean and variance of the first convolution over all images, by hand."""
    return images.mean((0, 2, 3)), images.var((0, 2, 3), unbiased=True)


def of_first_layer(classifier, images):
    images = torch.from_numpy(images)[:, None]
    with torch.no_grad():
        return classifier.module_.depth1.conv_a(images)


@pytest.mark.parametrize("n_images", [30, 20])
def test_statistics_are_those_of_the_training_images_after_one_step(n_images):
    classifier = small(batch_size=64, validation_fraction=0).fit(X[:n_images], Y[:n_images])
    mean, variance = first_statistics(of_first_layer(classifier, X[:n_images]))
    norm = classifier.module_.depth1.norm_a
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-3, atol=1e-4)
    assert norm.num_batches_tracked == 1
    assert norm.momentum == 0.1


def test_the_validation_loss_is_that_of_right_statistics():
    seen = []

    class Look(Callback):
        def on_epoch_end(self, net, dataset_train=None, **kwargs):
            images = dataset_train[np.arange(len(dataset_train))][0]
            with torch.no_grad():
                seen.append(net.module_.depth1.conv_a(images))
            seen.append(net.module_.depth1.norm_a.running_mean.clone())

    small(batch_size=64, max_epochs=3, callbacks=[Look()]).fit(X, Y)
    for features, mean in zip(seen[::2], seen[1::2], strict=True):
        torch.testing.assert_close(mean, features.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_the_average_has_no_bias_where_nothing_is_estimated():
    classifier = small(batch_size=64).partial_fit(X, Y, classes=[0, 1])
    mean, _ = first_statistics(of_first_layer(classifier, X))
    running = classifier.module_.depth1.norm_a.running_mean
    torch.testing.assert_close(running, mean, rtol=1e-3, atol=1e-3)  # not a tenth of it


def test_estimates_end_after_the_first_steps(monkeypatch):
    monkeypatch.setattr(_statistics.BatchStatistics.__init__, "__defaults__", (4,))
    estimated = []
    original = _statistics.BatchStatistics._parts

    def count(self, net):
        estimated.append(self.n_done_)
        return original(self, net)

    monkeypatch.setattr(_statistics.BatchStatistics, "_parts", count)
    small(batch_size=16, max_epochs=5).fit(X, Y)
    assert estimated == [2]


def test_frozen_depths_keep_their_statistics():
    start = small(validation_fraction=0).fit(X, Y).module_.state_dict()
    tuned = small(pretrained=start, fine_tune_depth=1).fit(X + 10, Y)
    for name, tensor in tuned.module_.state_dict().items():
        if "running_mean" in name:
            assert torch.equal(tensor, start[name]) == ("depth4" not in name), name


@pytest.mark.parametrize(("n_images", "batch_size"), [(30, 32), (36, 256), (200, 256)])
def test_a_few_images_are_learned_from(n_images, batch_size):
    rng = np.random.default_rng(n_images)
    y = np.arange(n_images) % 2
    images = rng.normal(0, 1, (n_images, 32, 32)).astype(np.float32)
    rows, columns = np.mgrid[:32, :32]
    for i in np.flatnonzero(y):
        row, column = rng.integers(6, 26, 2)
        images[i][(rows - row) ** 2 + (columns - column) ** 2 <= 16] += 3
    classifier = MicraNetClassifier(n_filters=8, batch_size=batch_size, random_state=0)
    assert classifier.fit(images, y).score(images, y) >= 0.95
