"""One rule: what a prediction is made with acts at once, everything else in the next fit."""

from copy import deepcopy

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sklearn_micranet import (
    FieldSegmenter,
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    HungarianDetector,
    IntensityScaler,
    MicraNetClassifier,
    MicraNetEnsemble,
    PCAFeatureMap,
    ThresholdSegmenter,
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
LOCAL_MAPS = np.asarray(
    GradCAMFeatureTransformer(FrozenEstimator(NETWORK), classes="all", include_image=True)
    .fit(IMAGES)
    .transform(IMAGES)
)
# Two classes, of which the first has two touching discs, a hole and a pixel by itself.
DISCS = np.zeros((1, 2, 32, 32), dtype=np.float32)
for _row, _column, _height in ((12, 9, 1.0), (12, 19, 0.8)):
    _distance = np.hypot(*np.ogrid[-_row : 32 - _row, -_column : 32 - _column])
    DISCS[0, 0] += np.where(_distance < 5.6, _height + 0.01 * (6 - _distance), 0)
DISCS[0, 0, 12, 8], DISCS[0, 0, 28, 28] = 0, 1.5
DISCS[0, 1, 10:20, 8:14] = 0.9
DISCS[0, 1, 25:27, 4:6] = 0.3
CHANNELS = RNG.integers(0, 200, (3, 8, 8, 2)) * np.array([1, 20])
CHANNELS = CHANNELS.astype(np.uint16)
FIELD = RNG.random((48, 64)) + 2 * (np.hypot(*np.ogrid[-20:28, -30:34]) < 6)


def segmented(segmenter):
    segments = segmenter.transform(DISCS)
    return np.asarray(segments), np.asarray(segments.instances), segmenter.predict(DISCS)


def swept(segmenter):
    return (*segmenter.predict_proba_map([FIELD]), *segmenter.decision_map([FIELD]))


OF_THRESHOLDS = {"ignore_zeros": True, "subtract_competitors": True, "sigma": 2}
OF_SHAPES = {"keep": "peak", "max_hole_size": 4, "min_size": 2}
OF_OBJECTS = {"split": "peaks", "min_distance": None}
UNUSED = {"threshold": 0.2, "block_size": 4}  # by the method of the case
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
        OF_TRAININGS | {"n_poolings": 2, "contour_dilation": 2, "fine_tune_depth": 0},
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
    "feature maps": (
        PCAFeatureMap(rescale="coarse").fit(LOCAL_MAPS),
        lambda p: (np.asarray(p.transform(LOCAL_MAPS)),),
        {
            "layers": ("L1", "L5"),
            "orient": False,
            "rescale": None,
            "foreground": lambda image: image > np.median(image),
            "min_coarse_peak": 0.9,
        },
        {"memory": None},  # changes no map
    ),
    "masks by quantile": (
        ThresholdSegmenter(method="quantile", quantile=0.8, min_distance=3).fit(DISCS),
        segmented,
        {"method": "block_otsu", "quantile": 0.9} | OF_THRESHOLDS | OF_SHAPES | OF_OBJECTS,
        UNUSED,
    ),
    "masks by a fixed threshold": (
        ThresholdSegmenter(method="fixed").fit(DISCS),
        segmented,
        {"threshold": 1.0},
        {"quantile": 0.3, "block_size": 4},
    ),
    "masks by blocks": (
        ThresholdSegmenter(method="block_otsu").fit(DISCS),
        segmented,
        {"block_size": 4},
        {"quantile": 0.3, "threshold": 0.2},
    ),
    "masks by learned thresholds": (
        ThresholdSegmenter(method="learned", min_distance=3).fit(DISCS, DISCS > 0.5),
        segmented,
        {"method": "quantile", "sigma": 2} | OF_SHAPES | OF_OBJECTS,
        UNUSED | {"quantile": 0.3},
    ),
    "detections": (
        HungarianDetector(max_distance=1).fit(DISCS),
        lambda d: (d.predict(DISCS)[0], d.score(DISCS, [[(0, 14, 14), (1, 14, 17)]])),
        {"max_distance": 30.0},
        {},
    ),
    "intensities by percentiles": (
        IntensityScaler(method="percentile").fit(CHANNELS),
        lambda s: (np.asarray(s.transform(CHANNELS)),),
        {"method": "dtype", "per_channel": False, "percentiles": (20, 80), "invert": True},
        {"bit_depth": 12},  # not used by this method
    ),
    "intensities by dtype": (
        IntensityScaler(method="dtype").fit(CHANNELS),
        lambda s: (np.asarray(s.transform(CHANNELS)),),
        {"bit_depth": 12},
        {"percentiles": (20, 80)},
    ),
    "flattened intensities": (
        IntensityScaler(image_shape=(8, 8, 2)).fit(CHANNELS.reshape(3, -1)),
        lambda s: (np.asarray(s.transform(CHANNELS.reshape(3, -1))),),
        {"per_channel": False},
        {"image_shape": (8, 16)},
    ),
    "fields": (
        FieldSegmenter(FrozenEstimator(NETWORK), size=16, random_state=0).fit([FIELD]),
        swept,
        {"step": 16, "exact": True},
        {
            "estimator": OTHER,
            "size": 32,
            "annotation": "points",
            "scaler": IntensityScaler(),
            "pixel_size": 2.0,  # only fields that state theirs are compared with it
            "tile_size": 16,
            "memory": None,
            "n_jobs": 2,
            "n_fit_samples": 2,
            "random_state": 1,
            "verbose": 0,
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
    estimator, _, _, _ = CASES[name]
    # These objects are too simple to be split: see tests/test_unet_segmenter.py.
    tested = {"min_distance"} if name == "U-Net" else set()
    for other, _, at_once, later in CASES.values():
        if type(other) is type(estimator):  # what one method uses another may not
            tested |= at_once.keys() | later.keys()
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
