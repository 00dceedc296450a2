import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from sklearn_micranet._guided._gate import filled_area
from sklearn_micranet._guided._texture import (
    FINE,
    PixelModel,
    Scale,
    expectation_maximisation,
    likelihood,
    middle_of_evidence,
    pixel_features,
    with_background,
)


def soft_labels(seed=0, n=3000):
    """Pixels of two Gaussian classes and background, gates that are right four times in five."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=[0.2, 0.2, 0.6])
    features = rng.normal(0, 1, (n, 2)) + np.array([[3, 0], [0, 3], [0, 0]])[truth]
    seen = np.where(rng.random(n) < 0.8, truth, rng.integers(0, 3, n))
    gate = (seen[:, None] == np.arange(2)).astype(float)
    present = np.ones((n, 2), bool)
    return features, truth, gate, present


@pytest.mark.parametrize("classifier", [GaussianNB(), LogisticRegression()])
@pytest.mark.parametrize("seed", range(3))
def test_expectation_maximisation_never_lowers_its_objective(classifier, seed):
    features, _, gate, _ = soft_labels(seed)
    prior = with_background(0.4 * gate + 0.02)
    _, _, objective = expectation_maximisation(classifier, features, prior, n_rounds=8)
    assert len(objective) > 3
    assert (np.diff(objective) >= 0).all()
    assert objective[-1] > objective[0]


def test_the_classifier_of_pixels_is_better_than_the_gate_it_learned_from():
    features, truth, gate, present = soft_labels()
    with config_context(transform_output="pandas"):  # what the user wants of his own steps
        model = PixelModel(LogisticRegression(), FINE).fit(
            features, gate, present, np.array([0.2, 0.2])
        )
        found = model.whiten.transform(features)
    assert isinstance(found, np.ndarray)
    found = likelihood(model.classifier, found, model.share).argmax(axis=1)
    by_gate = np.where(gate.any(axis=1), gate.argmax(axis=1), 2)
    assert np.mean(by_gate == truth) < 0.88
    assert np.mean(found == truth) > 0.9


def test_a_class_that_the_labels_exclude_gets_no_share():
    features, _, gate, _ = soft_labels()
    prior = with_background(np.column_stack([0.4 * gate[:, 0] + 0.02, np.zeros(len(gate))]))
    classifier, share, _ = expectation_maximisation(LogisticRegression(), features, prior)
    assert_array_equal(classifier.classes_, [0, 2])
    assert not likelihood(classifier, features, share)[:, 1].any()


def test_posterior_is_bayes_rule():
    features, _, gate, present = soft_labels()
    model = PixelModel(LogisticRegression(), FINE).fit(
        features, gate, present, np.array([0.2, 0.2])
    )
    value = np.array([2.0, 0.5])
    activation = np.tile(value[:, None, None], (1, 16, 16)).astype(np.float32)
    opened = np.full((1, 16, 16), 0.25, dtype=np.float32)
    ratio = likelihood(model.classifier, model.whiten.transform(value[None]), model.share)[0]
    belief = 0.9 * 0.25**0.75 + 0.05
    weights = np.array([belief, 1 - belief]) * ratio[[0, 2]]
    weights[0] *= np.exp(-model.middle[0])
    found = model.posterior([activation], opened, np.array([0]), filled_area(opened))
    assert_allclose(found, np.full((1, 16, 16), weights[0] / weights.sum()), rtol=1e-3)


def test_components_may_be_taken_before_features_are_smoothed_and_enlarged():
    rng = np.random.default_rng(0)
    activations = [rng.random((3, 16, 16)), rng.random((5, 8, 8))]
    scale = Scale(2, 1.0, 4, 1.0)
    features = pixel_features(activations, (16, 15), scale).reshape(8, -1).T
    model = PixelModel(LogisticRegression(), scale)
    gate, present = rng.random((len(features), 1)), np.ones((len(features), 1), bool)
    model.fit(features, gate, present, np.array([0.3]))
    expected = model.whiten.transform(features).T.reshape(4, 16, 15)
    assert_allclose(model._whitened(activations, (16, 15)), expected, atol=1e-4)


def test_features_of_layers_lie_on_the_pixels_that_they_cover():
    fine = np.zeros((1, 16, 16), np.float32)
    fine[0, 4, 4] = 1
    coarse = np.zeros((2, 8, 8), np.float32)
    coarse[1, 2, 2] = 1  # pixels 4 and 5
    features = pixel_features([fine, coarse], (16, 15), Scale(2, 0.5, 3, 1.0))
    assert features.shape == (3, 16, 15)
    assert np.unravel_index(features[0].argmax(), (16, 15)) == (4, 4)
    assert_allclose(features[2, 4, 4], features[2, 5, 5])
    assert_allclose(features[2].max(), features[2, 4, 4], rtol=1e-6)


def test_a_crowded_class_has_the_area_of_each_image():
    features, _, gate, present = soft_labels()
    activation = np.zeros((2, 16, 16), np.float32)
    shares = []
    for filled in (8, 15):  # rows of the gate
        opened = np.zeros((1, 16, 16), np.float32)
        opened[0, :filled] = 0.5
        row = []
        for area in (0.2, 0.6):
            model = PixelModel(LogisticRegression(), FINE)
            model.fit(features, gate, present, np.array([area, area]))
            model.classifier, model.share, model.middle = Even(), np.full(3, 1 / 3), np.zeros(2)
            posterior = model.posterior([activation], opened, np.array([0]), filled_area(opened))
            row.append(posterior[0, 2, 2])
        shares.append(row)
    # No evidence: the posterior is the prior, 0.9 * 0.5 ** gamma + 0.05. Half and 15 / 16 of the
    # image are filled: gamma is 1 - 1.25 / 2 = 0.375 and 0.15; of a sparse class 0.75.
    sparse = 0.9 * 0.5**0.75 + 0.05
    crowded = [0.9 * 0.5**0.375 + 0.05, 0.9 * 0.5**0.15 + 0.05]
    assert_allclose(shares, [[sparse, crowded[0]], [sparse, crowded[1]]], rtol=1e-4)


def test_the_middle_of_evidence_is_half_way_between_medians():
    # One feature x, 3 in the class and 0 around it, of noise whose tails are unlike; the evidence
    # is 4 x - 2. Fewest pixels are wrong near 0.5, but the feature passes 1.5 at the outline.
    rng = np.random.default_rng(0)
    truth = np.arange(20_000) % 4 == 0
    x = 3.0 * truth + np.where(truth, 1, 0.1) * (rng.exponential(1, len(truth)) - np.log(2))
    likelihood = np.column_stack([np.exp(4 * x - 2), np.zeros(len(x)), np.ones(len(x))])
    belief = with_background(np.column_stack([0.98 * truth + 0.01, np.full(len(x), 0.01)]))
    assert_allclose(middle_of_evidence(likelihood, belief), [4 * 1.5 - 2, 0], atol=0.1)


def test_without_background_there_is_no_middle():
    # All pixels are of the class, and what the evidence calls background is, too.
    likelihood = np.column_stack([np.linspace(2, 8, 100), np.ones(100)])
    belief = np.tile([0.9, 0.1], (100, 1))
    assert_array_equal(middle_of_evidence(likelihood, belief), [0])
    belief = np.tile([1.0, 0.0], (100, 1))  # nor of background at all
    assert_array_equal(middle_of_evidence(likelihood, belief), [0])


@pytest.mark.parametrize("wider", [-3, 3])
@pytest.mark.parametrize("k", [0, 1])
def test_outlines_are_where_the_evidence_says_not_the_gate(k, wider):
    features, _, gate, present = soft_labels()
    model = PixelModel(LogisticRegression(), Scale(1, 0.5, 2, 0.5))
    model.fit(features, gate, present, np.array([0.2, 0.2]))
    activation = np.zeros((2, 60, 60), np.float32)
    activation[k, :, 20:40] = 3
    opened = np.zeros((1, 60, 60), np.float32)
    opened[0, :, 20 - wider : 40 + wider] = 1
    model.middle[1 - k] = 99  # of a class that is absent
    posterior = model.posterior([activation], opened, np.array([k]), filled_area(opened))
    assert_array_equal(posterior[0] > 0.5, activation[k] > 1.5)


def test_classes_that_adjoin_leave_no_seam():
    features, _, gate, present = soft_labels()
    model = PixelModel(LogisticRegression(), Scale(1, 2.0, 2, 0.5))
    model.fit(features, gate, present, np.array([0.2, 0.2]))
    activation = np.zeros((2, 60, 60), np.float32)
    activation[0, :, 10:30] = activation[1, :, 30:50] = 3
    opened = activation / 3
    posterior = model.posterior([activation], opened, np.arange(2), filled_area(opened))
    middle = posterior[..., 20:40]
    assert_array_equal(middle.argmax(axis=0), activation[..., 20:40].argmax(axis=0))
    assert (middle.sum(axis=0) > 0.85).all()


class Even:
    classes_ = np.arange(3)

    def predict_proba(self, features):
        return np.full((len(features), 3), 1 / 3)
