"""scikit-learn's checks, and the same manners checked on images, which scikit-learn has none of."""

import pickle
from copy import deepcopy
from unittest import SkipTest

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    MicraNetClassifier,
    MicraNetEnsemble,
)

AMBIGUOUS = "Of two labels 1 and 2, nobody has said which of them is the structure."
OF_MAPS = {
    "check_array_api_input": "A lazy stack is no array of a namespace: np.asarray makes one.",
    "check_estimators_dtypes": AMBIGUOUS,
    "check_fit2d_1feature": AMBIGUOUS,
}


def expected_failed_checks(estimator):
    if isinstance(estimator, GradCAMFeatureTransformer | GuidedFeatureMap):
        return OF_MAPS
    reason = "An image that is repeated is in other batches than one of twice the weight."
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@parametrize_with_checks(
    [
        MicraNetClassifier(n_filters=4, max_epochs=6, lr=2e-2),
        MicraNetEnsemble(
            MicraNetClassifier(n_filters=4, max_epochs=4, lr=2e-2), n_estimators=2, random_state=0
        ),
        GradCAMFeatureTransformer(MicraNetClassifier(n_filters=2, max_epochs=2, random_state=0)),
        GuidedFeatureMap(
            MicraNetClassifier(n_filters=2, max_epochs=2, random_state=0), random_state=0
        ),
    ],
    expected_failed_checks=expected_failed_checks,
)
def test_scikit_learn_checks(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:
        pytest.fail(f"A check was skipped: {reason}")


SMALL = MicraNetClassifier(n_filters=2, max_epochs=2, batch_size=8, random_state=0)
ESTIMATORS = {
    "classifier": SMALL,
    "ensemble": MicraNetEnsemble(SMALL, n_estimators=2, random_state=0),
    "transformer": GradCAMFeatureTransformer(SMALL, classes="all"),
    "guided": GuidedFeatureMap(
        clone(SMALL).set_params(threshold=0.0), features="texture", random_state=0
    ),
}
IMAGES = np.random.default_rng(0).random((20, 17, 22, 3), dtype=np.float32)
LABELS = np.random.default_rng(1).integers(0, 2, (20, 2))


def output(estimator, images):
    if hasattr(estimator, "transform"):
        return np.asarray(estimator.transform(images))
    return estimator.decision_function(images)


@pytest.fixture(params=list(ESTIMATORS))
def unfitted(request):
    return clone(ESTIMATORS[request.param])


@pytest.fixture(scope="module", params=list(ESTIMATORS))
def fitted(request):
    return clone(ESTIMATORS[request.param]).fit(IMAGES, LABELS)


def test_a_clone_is_unfitted_and_becomes_the_same(fitted):
    copy = clone(fitted)
    assert not hasattr(copy, "classes_")
    np.testing.assert_array_equal(output(copy.fit(IMAGES, LABELS), IMAGES), output(fitted, IMAGES))


def test_fit_is_idempotent(unfitted):
    first = output(unfitted.fit(IMAGES, LABELS), IMAGES)
    torch.rand(3)  # the state of the global generator must not matter
    np.testing.assert_array_equal(output(unfitted.fit(IMAGES, LABELS), IMAGES), first)


def test_another_random_state_gives_another_network(fitted):
    name = "random_state" if "random_state" in fitted.get_params() else "estimator__random_state"
    other = clone(fitted).set_params(**{name: 1}).fit(IMAGES, LABELS)
    assert np.abs(output(other, IMAGES) - output(fitted, IMAGES)).max() > 1e-3


def test_copies_on_disk_compute_the_same_bits(fitted, tmp_path):
    expected = output(fitted, IMAGES)
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "fitted.joblib")):
        np.testing.assert_array_equal(output(copy, IMAGES), expected)


def test_neither_order_nor_batch_matters(fitted):
    expected = output(fitted, IMAGES)
    order = np.random.default_rng(0).permutation(len(IMAGES))
    np.testing.assert_allclose(output(fitted, IMAGES[order]), expected[order], atol=1e-5)
    one_by_one = np.concatenate([output(fitted, image[np.newaxis]) for image in IMAGES])
    np.testing.assert_allclose(one_by_one, expected, atol=1e-5)
    copy = deepcopy(fitted)
    for batch_size in (2, 7, 100):
        for estimator in getattr(copy, "estimators_", [copy]):
            estimator.set_params(batch_size=batch_size)
        np.testing.assert_allclose(output(copy, IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_inputs_are_left_as_they_are(unfitted, dtype):
    images, labels = (IMAGES * 100).astype(dtype), LABELS.copy()
    before = images.copy()
    output(unfitted.fit(images, labels), images)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(labels, LABELS)
    images.flags.writeable = labels.flags.writeable = False
    output(unfitted.fit(images, labels), images)


def test_global_random_states_are_left_as_they_are(unfitted):
    torch_before = torch.get_rng_state()
    numpy_before = pickle.dumps(np.random.get_state())
    output(unfitted.fit(IMAGES, LABELS), IMAGES)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert pickle.dumps(np.random.get_state()) == numpy_before
