"""Two simulated microscopes and the settings that both scripts about them share.

The settings of microscope B, the training, the fine-tuning and the pipeline were chosen on other
scenes and seeds, with handwriting from the first 1350 digits only. The rest of the handwriting is
that of the test scenes, which were not looked at before. One choice, how the search for the depth
scores its candidates, was made after a run with seed 0.
"""

import warnings

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import average_precision_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    HungarianDetector,
    IntensityScaler,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
    TunedThresholdsClassifierCV,
)
from sklearn_micranet.datasets import make_digit_canvases
from sklearn_micranet.metrics import detection_scores

# That too little of a network is updated to adapt it is part of what is shown.
warnings.simplefilter("ignore", ConvergenceWarning)

N_CLASSES = 5  # digits 0 to 4: each is on two of five canvases, so that 12 images show all of them
WRITERS = {"train": slice(0, 1000), "fine-tune": slice(1000, 1350), "test": slice(1350, None)}
N_IMAGES = (12, 24, 36)
DEPTHS = (0, 1, 2, 4)
MAX_DISTANCE = 14  # px, half a digit
TRAINING = {
    "n_filters": 8,
    "lr_schedule": "cosine",
    "early_stopping": False,
    "validation_fraction": 0,
}


def microscope_a(n_images, writers, random_state):
    """Return canvases of one to four digits, 64 px wide, with labels and true points."""
    digits = load_digits()
    images, target = digits.images[WRITERS[writers]] / 16, digits.target[WRITERS[writers]]
    used = target < N_CLASSES
    scenes = make_digit_canvases(
        n_images,
        image_size=64,
        n_digits=(1, 2, 3, 4),
        digits=(images[used], target[used]),
        random_state=random_state,
    )
    return Bunch(images=scenes.images, labels=scenes.labels[:, :N_CLASSES], points=scenes.points)


def microscope_b(images, random_state):
    """Return the images as another microscope shows them.

    Its gamma is 1.7, which thins faint strokes; its optics blur by 1.2 px; it has 0.4 times the
    contrast, on a background of 0.1 to 0.3 that rises towards a random side. The camera adds the
    shot noise of 150 photons for white, and read noise of 0.02.
    """
    rng = np.random.default_rng(random_state)
    n, height, width = images.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi, size=(n, 1, 1))
    background = 0.2 + 0.1 * (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2)
    light = 0.4 * gaussian_filter(images**1.7, sigma=(0, 1.2, 1.2)) + background
    noise = rng.normal(scale=0.02, size=images.shape)
    return (rng.poisson(150 * light) / 150 + noise).clip(0, 1).astype(np.float32)


def make_data(seed):
    """Return scenes: `train_a` and `test_a` of microscope A, `tune_b` and `test_b` of B.

    Their `images` are what the networks see: each rescaled by its own percentiles. `raw` is what
    the microscope shows, and `seen_by_a` the same scenes under microscope A.
    """
    data = Bunch(
        train_a=microscope_a(1200, "train", 10 * seed),
        test_a=microscope_a(200, "test", 10 * seed + 1),
        tune_b=microscope_a(max(N_IMAGES), "fine-tune", 10 * seed + 2),
        test_b=microscope_a(200, "test", 10 * seed + 3),
    )
    for scenes in data.values():
        scenes.seen_by_a = scenes.raw = scenes.images
    data.tune_b.raw = microscope_b(data.tune_b.seen_by_a, 10 * seed + 4)
    data.test_b.raw = microscope_b(data.test_b.seen_by_a, 10 * seed + 5)
    for scenes in data.values():
        scenes.images = np.asarray(IntensityScaler(method="percentile").fit_transform(scenes.raw))
    return data


def train(scenes, seed):
    """Return a classifier trained on microscope A."""
    classifier = MicraNetClassifier(**TRAINING, lr=3e-3, max_epochs=14, random_state=seed)
    return classifier.fit(scenes.images, scenes.labels)


def fine_tuner(classifier, seed, depth=4, **params):
    """Return an unfitted classifier that starts from the weights of another one."""
    tuner = MicraNetClassifier(
        **TRAINING,
        pretrained=FrozenEstimator(classifier),
        fine_tune_depth=depth,
        lr=1e-3,
        max_epochs=40,
        batch_size=12,
        augmentation=["intensity", "gamma", "noise"],
        random_state=seed,
    )
    return tuner.set_params(**params)


def strategies(classifier, scenes, n_images, seed, **params):
    """Yield the name and classifier of each way to adapt to the first images, by their labels.

    `params` are those of the fine-tuning, instead of the ones of :func:`fine_tuner`.
    """
    images, labels = scenes.images[:n_images], scenes.labels[:n_images]
    tuned = TunedThresholdsClassifierCV(FrozenEstimator(classifier), cv="prefit")
    yield "threshold only", tuned.fit(images, labels)
    for depth in DEPTHS:
        yield f"depth {depth}", fine_tuner(classifier, seed, depth, **params).fit(images, labels)


def search(classifier, scenes, seed):
    """Return the fitted search for the depth and learning rate that suit the labels best."""
    # A dozen held-out images may lack a class, so all classes are ranked together.
    scoring = make_scorer(average_precision_score, response_method="predict_proba", average="micro")
    grid = {"fine_tune_depth": list(DEPTHS), "lr": [1e-3, 3e-3]}
    searched = GridSearchCV(fine_tuner(classifier, seed), grid, scoring=scoring, cv=3)
    return searched.fit(scenes.images, scenes.labels)


def make_pipeline(classifier):
    """Return the steps from images to detections, for a fitted classifier."""
    return Pipeline(
        [
            ("cam", GradCAMFeatureTransformer(FrozenEstimator(classifier))),
            ("pca", PCAFeatureMap(min_coarse_peak=0.3)),
            ("segment", ThresholdSegmenter(sigma=1, min_size=30)),
            ("detect", HungarianDetector(max_distance=MAX_DISTANCE)),
        ]
    )


def detection_f1(classifier, scenes):
    """Return the F1 of the digits found within half a digit of their true position."""
    pipe = make_pipeline(classifier).fit(scenes.images)
    return detection_scores(
        scenes.points, pipe.predict(scenes.images), max_distance=MAX_DISTANCE
    ).f1
