"""From local maps to masks: ours against research style.

Local maps of three classes, 256 x 256 px. Exits with 1 if a claim fails:

- fusion, smoothing and Otsu's threshold are at least 15 times faster than in research code, which
  fits five randomised PCAs to the 65,536 pixels of each map and averages them;
- fusion and threshold together take less than a third of the time of the local maps.

Run with ``python examples/benchmarks/masks.py``.
"""

import argparse
import sys

import numpy as np
from _side_by_side import SIZE, classifier_that_finds, print_machine, ratio, side_by_side, verdict
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator

from sklearn_micranet import GradCAMFeatureTransformer, PCAFeatureMap, ThresholdSegmenter

PRESENT = [1, 4, 7]
N_IMAGES = 2


def research_style(local_maps):
    """Return the masks of the classes present, map by map."""
    masks = []
    for sample in local_maps:
        for k in PRESENT:
            pixels = sample[k, :7].reshape(7, -1).T
            components = []
            for seed in range(5):
                pca = PCA(n_components=1, svd_solver="randomized", random_state=seed)
                component = pca.fit_transform(pixels)[:, 0]
                flip = (component * sample[k, 7].ravel()).sum() < 0
                components.append(-component if flip else component)
            feature_map = gaussian_filter(np.mean(components, axis=0).reshape(SIZE, SIZE), 1)
            masks.append(feature_map > threshold_otsu(feature_map))
    return masks


def main(n_rounds):
    images = np.random.default_rng(0).random((N_IMAGES, SIZE, SIZE), dtype=np.float32)
    classifier = classifier_that_finds(PRESENT)
    transformer = GradCAMFeatureTransformer(FrozenEstimator(classifier)).fit(images)
    local_maps = np.asarray(transformer.transform(images))
    fusion, segmenter = PCAFeatureMap(), ThresholdSegmenter(sigma=1)
    print_machine("scikit-learn", "scikit-image", "scipy")
    print(f"{N_IMAGES} images:")
    seconds = side_by_side(
        {
            "local maps": lambda: np.asarray(transformer.transform(images)),
            "research style": lambda: research_style(local_maps),
            "fusion and threshold": lambda: segmenter.predict(fusion.transform(local_maps)),
        },
        n_rounds,
    )
    to_research = ratio(seconds, "research style", "fusion and threshold")
    to_maps = ratio(seconds, "fusion and threshold", "local maps")
    return verdict(
        {
            f"{to_research:.1f} times faster than research style (claim: 15)": to_research >= 15,
            f"{to_maps:.2f} of the time of the local maps (claim: 0.33)": to_maps <= 1 / 3,
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    sys.exit(main(parser.parse_args().rounds))
