"""One rule: what a prediction is made with acts at once, everything else in the next fit."""

from copy import deepcopy

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    MicraNetClassifier,
    MicraNetEnsemble,
    TunedThresholdsClassifierCV,
    UNetSegmenter,
)

RNG = np.random.default_rng(0)
LABELS = np.arange(24) % 2
MASKS = np.zeros((24, 1, 16, 16), dtype=bool)
MASKS[1::2, :, 4:9, 5:10] = True
IMAGES = RNG.random((24, 16, 16)) + 2 * MASKS[:, 0]
TRAINING = {"n_filters": 2, "max_epochs": 8, "random_state": 0, "validation_fraction": 0}
NETWORK = MicraNetClassifier(**TRAINING, lr=1e-2).fit(IMAGES, LABELS)

OF_TRAININGS = {
    "n_filters": 3,
    "lr": 1.0,
    "lr_schedule": "cosine",
    "min_lr": 0.1,
    "patience": 1,
    "batch_size": 3,
    "max_epochs": 1,
    "early_stopping": False,
    "n_iter_no_change": 1,
    "validation_fraction": 0.5,
    "augmentation": "flip",
    "pretrained": {},
    "device": "meta",
    "n_threads": 2,
    "checkpoint_dir": "absent",
    "callbacks": [None],
    "random_state": 1,
    "verbose": 1,
}
OTHER = LogisticRegression()
CASES = {  # estimator, output, what acts at once, what does not
    "classifier": (
        NETWORK,
        lambda c: (c.predict(IMAGES), c.predict_proba(IMAGES), c.score(IMAGES, MASKS)),
        {"threshold": 1.0, "precision": "bfloat16", "min_coverage": 0.9},
        OF_TRAININGS
        | {
            "image_shape": (8, 32),
            "background_label": 1,
            "dropout": 0.9,
            "class_weight": "balanced",
            "negatives_per_positive": 1.0,
            "fine_tune_depth": 0,
        },
    ),
    "U-Net": (
        UNetSegmenter(n_poolings=1, **TRAINING | {"max_epochs": 2}).fit(IMAGES, MASKS),
        lambda s: (s.predict(IMAGES), np.asarray(s.transform(IMAGES)), s.predict_instances(IMAGES)),
        {"threshold": 0.6, "precision": "bfloat16", "min_size": 200},
        OF_TRAININGS | {"n_poolings": 2, "contour_dilation": 2},
    ),
    "ensemble": (
        MicraNetEnsemble(NETWORK, n_estimators=2, random_state=0).fit(IMAGES, LABELS),
        lambda e: (e.predict(IMAGES), e.predict_proba(IMAGES)),
        {"threshold": 1.0},
        {"estimator": OTHER, "n_estimators": 1, "cv": 2, "n_jobs": 2, "random_state": 1},
    ),
    "tuned thresholds": (
        TunedThresholdsClassifierCV(NETWORK, cv="prefit").fit(IMAGES, LABELS),
        lambda t: (t.predict(IMAGES), t.predict_proba(IMAGES)),
        {},
        {
            "estimator": OTHER,
            "scoring": "accuracy",
            "thresholds": [0.99, 0.999],
            "cv": 2,
            "refit": False,
            "n_jobs": 2,
            "random_state": 1,
        },
    ),
    "local maps": (
        GradCAMFeatureTransformer(FrozenEstimator(NETWORK)).fit(IMAGES),
        lambda g: (np.asarray(g.transform(IMAGES)),),
        {"classes": "all", "min_max": False, "include_image": True},
        {"estimator": OTHER, "memory": None, "batch_size": 3},  # neither changes any map
    ),
    "guided maps": (
        GuidedFeatureMap(FrozenEstimator(NETWORK), random_state=0).fit(IMAGES, LABELS),
        lambda g: (np.asarray(g.transform(IMAGES)),),
        {"level": 0.3},
        {
            "estimator": OTHER,
            "features": "texture",
            "classifier": OTHER,
            "n_fit_samples": 1,
            "memory": None,
            "batch_size": 3,
            "random_state": 1,
        },
    ),
}
ALL = [
    (name, parameter, acts)
    for name, (_, _, at_once, later) in CASES.items()
    for acts, group in ((True, at_once), (False, later))
    for parameter in group
]


@pytest.mark.parametrize("name", CASES)
def test_the_rule_is_tested_for_every_parameter(name):
    estimator, _, at_once, later = CASES[name]
    # These objects are too simple to be split: see tests/test_unet_segmenter.py.
    tested = at_once.keys() | later.keys() | ({"min_distance"} if name == "U-Net" else set())
    assert tested == estimator.get_params(deep=False).keys()


@pytest.mark.parametrize(("name", "parameter", "acts_at_once"), ALL)
def test_what_a_prediction_is_made_with_acts_at_once_and_nothing_else(
    name, parameter, acts_at_once
):
    estimator, output, at_once, later = CASES[name]
    before = output(estimator)
    changed = deepcopy(estimator).set_params(**{parameter: (at_once | later)[parameter]})
    after = output(changed)
    are_equal = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert are_equal != acts_at_once
    restored = changed.set_params(**{parameter: estimator.get_params(deep=False)[parameter]})
    for a, b in zip(before, output(restored), strict=True):
        np.testing.assert_array_equal(a, b)
