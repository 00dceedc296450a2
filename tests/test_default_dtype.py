"""The user's default dtype of torch changes nothing."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sklearn_micranet import (
    FieldSegmenter,
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    MicraNetClassifier,
    MicraNetEnsemble,
    UNetSegmenter,
)

LABELS = np.arange(24) % 3
MASKS = np.zeros((24, 16, 16), dtype=bool)
MASKS[LABELS > 0, 4:10, 4:10] = True
IMAGES = MASKS + np.random.default_rng(0).normal(0, 0.3, MASKS.shape)
INDICATOR = np.stack([LABELS > 0, LABELS > 1], axis=1).astype(int)


def small(**parameters):
    defaults = {"n_filters": 2, "max_epochs": 2, "batch_size": 8, "random_state": 0}
    return MicraNetClassifier(**(defaults | parameters))


def probabilities(y, **parameters):
    return lambda: small(**parameters).fit(IMAGES, y).predict_proba(IMAGES)


def local_maps():
    ensemble = MicraNetEnsemble(small(), n_estimators=2, random_state=0)
    return GradCAMFeatureTransformer(ensemble).fit(IMAGES, INDICATOR).transform(IMAGES)


def guided_maps():
    return GuidedFeatureMap(small(), random_state=0).fit(IMAGES, LABELS > 0).transform(IMAGES)


def unet_maps():
    segmenter = UNetSegmenter(
        n_filters=2, n_poolings=2, max_epochs=2, augmentation="microscopy", random_state=0
    )
    return segmenter.fit(IMAGES, MASKS).transform(IMAGES)


def windows(exact):
    field, mask = (np.hstack(stack[:9]) for stack in (IMAGES, MASKS))
    segmenter = FieldSegmenter(small(), size=16, exact=exact, random_state=0)
    return segmenter.fit([field], [mask]).predict_proba_map([field])[0]


RESULTS = {
    "binary": probabilities(LABELS > 0, negatives_per_positive=1),
    "multiclass": probabilities(LABELS, class_weight="balanced"),
    "multilabel": probabilities(INDICATOR, augmentation="microscopy", lr_schedule="cosine"),
    "local maps": local_maps,
    "guided maps": guided_maps,
    "U-Net": unet_maps,
    "shared windows": lambda: windows(exact=False),
    "exact windows": lambda: windows(exact=True),
}


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def expected():
    assert torch.get_default_dtype() == torch.float32
    return {name: np.asarray(result()) for name, result in RESULTS.items()}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_results_do_not_depend_on_it(name, expected, float64):
    result = np.asarray(RESULTS[name]())
    assert result.dtype == np.float32
    assert_array_equal(result, expected[name])
