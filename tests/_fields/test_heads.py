import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_micranet._fields._heads import Head, choose_windows, fit_head, read_with_halo

RNG = np.random.default_rng(0)
HEAD = Head(np.array([[1.0, 2.0, 0.0], [0.5, 0.0, -1.0]]), np.array([0.25, -0.5]))


def test_a_head_is_a_linear_layer():
    features = np.array([[1, 2, 3]], dtype=np.float32)
    found = HEAD(features)
    assert_allclose(found, [[5.25, -3.0]])
    assert found.dtype == np.float32


def test_a_head_is_fitted_to_linear_logits():
    features = RNG.normal(3, [1, 10, 0.1], (200, 3))
    truth = Head(np.array([[1.5, 2.0, -3.0], [0.5, 0.2, -1.0]]), np.array([1.0, 2.0]))
    head, r2 = fit_head(HEAD, features, truth(features))
    assert_allclose(head(features), truth(features), atol=0.01)
    assert (r2 > 0.999).all()


def test_noise_leaves_the_linear_layer_but_for_a_constant():
    features = RNG.normal(0, 1, (40, 3))
    logits = HEAD(features) + 7 + RNG.normal(0, 1, (40, 2))
    head, r2 = fit_head(HEAD, features, logits)
    assert_allclose(head.weight, HEAD.weight, atol=0.4)
    assert_allclose(head.bias, HEAD.bias + 7, atol=0.5)
    assert (r2 < 0.95).all()


def test_features_and_logits_that_never_change():
    features = np.ones((10, 3))
    head, r2 = fit_head(HEAD, features, np.full((10, 2), 4.0))
    assert_allclose(head(features), 4)
    assert np.isfinite(r2).all()


def test_half_of_the_chosen_windows_are_those_of_the_highest_scores():
    scores = np.arange(100.0)
    chosen = choose_windows(scores, 20, np.random.RandomState(0))
    assert len(set(chosen)) == 20
    assert set(range(90, 100)) <= set(chosen)
    assert min(chosen) < 50
    assert_array_equal(choose_windows(scores, 100, np.random.RandomState(0)), np.arange(100))


def test_a_window_with_what_is_around_it():
    field = np.arange(400).reshape(20, 20)
    around = np.pad(field, 4, "reflect")
    assert_array_equal(read_with_halo(field, (0, 8), 8, 4), around[0:16, 8:24])
