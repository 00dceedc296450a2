"""A grid search over thresholds with ``memory=`` against one `predict`.

20 settings x 5 folds over 50 canvases of 256 x 256 px with 10 classes, the default network,
frozen. Exits with 1 unless the search takes at most 2 times as long as one `predict` of the 50
canvases without memory.

Run with ``python examples/benchmarks/grid_search.py``.
"""

import argparse
import sys
from tempfile import TemporaryDirectory

import numpy as np
from _side_by_side import classifier_that_finds, print_machine, ratio, side_by_side, verdict
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_micranet import GradCAMFeatureTransformer, PCAFeatureMap, ThresholdSegmenter
from sklearn_micranet.datasets import make_digit_canvases

SETTINGS = {"segment__quantile": np.linspace(0.8, 0.99, 20)}


def pipeline(classifier, memory=None):
    """Return a pipeline of a frozen classifier whose feature maps are kept in a folder."""
    return Pipeline(
        [
            ("cam", GradCAMFeatureTransformer(FrozenEstimator(classifier))),
            ("pca", PCAFeatureMap(memory=memory)),
            ("segment", ThresholdSegmenter(method="quantile")),
        ]
    )


def search(classifier, canvases):
    """Search with a folder that is empty at first."""
    with TemporaryDirectory() as folder:
        candidates = GridSearchCV(pipeline(classifier, folder), SETTINGS, cv=5, refit=False)
        candidates.fit(canvases.images, canvases.masks)


def main(n_rounds):
    canvases = make_digit_canvases(50, n_digits=5, random_state=0)
    classifier = classifier_that_finds([1, 4, 7])
    fitted = pipeline(classifier).fit(canvases.images)
    print_machine("scikit-learn", "joblib")
    seconds = side_by_side(
        {
            "predict": lambda: fitted.predict(canvases.images),
            "grid search": lambda: search(classifier, canvases),
        },
        n_rounds,
    )
    to_predict = ratio(seconds, "grid search", "predict")
    return verdict({f"{to_predict:.2f} times one predict (claim: 2)": to_predict <= 2})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    sys.exit(main(parser.parse_args().rounds))
