"""Adapting to a new microscope, after Fig. 5 of the paper: 3 seeds, 12, 24 and 36 images.

A network is trained on canvases of microscope A. Microscope B has another contrast, gamma, blur
and noise, and shows other scenes. The F1 of detections is reported as mean and standard deviation
over the seeds. Exits with 1 if a claim fails:

- the naive F1 on B is below 0.6 of that on A;
- the best strategy wins back at least 80 % of the drop;
- so does the depth and learning rate that a grid search picks by labels alone.

Run with ``python examples/benchmarks/new_microscope.py``.
"""

import platform
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import sklearn
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from _new_microscope import (
    DEPTHS,
    N_IMAGES,
    detection_f1,
    make_data,
    search,
    strategies,
    train,
)

SEEDS = (0, 1, 2)


def run(seed):
    """Return a dict of F1 by name, or by name and number of images, for one seed."""
    start = perf_counter()
    data = make_data(seed)
    classifier = train(data.train_a, seed)
    f1 = {
        "A": detection_f1(classifier, data.test_a),
        "naive": detection_f1(classifier, data.test_b),
    }
    for n_images in N_IMAGES:
        for name, adapted in strategies(classifier, data.tune_b, n_images, seed):
            f1[name, n_images] = detection_f1(adapted, data.test_b)
    picked = search(classifier, data.tune_b, seed)
    f1["grid search"] = detection_f1(picked.best_estimator_, data.test_b)
    print(
        f"seed {seed}: A {f1['A']:.3f}, naive {f1['naive']:.3f}, grid search "
        f"{f1['grid search']:.3f} with {picked.best_params_}, {perf_counter() - start:.0f} s",
        flush=True,
    )
    return f1


def main():
    print(
        f"{platform.machine()}, {'CUDA' if torch.cuda.is_available() else 'CPU'} with "
        f"{torch.get_num_threads()} threads; torch {torch.__version__}, numpy {np.__version__}, "
        f"scikit-learn {sklearn.__version__}"
    )
    runs = [run(seed) for seed in SEEDS]
    f1 = {key: np.array([run[key] for run in runs]) for key in runs[0]}

    def cell(key):
        return f"{f1[key].mean():.3f} +- {f1[key].std(ddof=1):.3f}"

    print(f"\nmicroscope A         {cell('A')}\nmicroscope B, naive  {cell('naive')}\n")
    print("images of B    " + "".join(f"{n:>17}" for n in N_IMAGES))
    names = ["threshold only", *(f"depth {depth}" for depth in DEPTHS)]
    for name in names:
        print(f"{name:15}" + "".join(f"{cell((name, n)):>17}" for n in N_IMAGES))
    print(f"{'grid search':15}" + f"{cell('grid search'):>{17 * len(N_IMAGES)}}\n")

    def share_won_back(key):
        return ((f1[key] - f1["naive"]) / (f1["A"] - f1["naive"])).mean()

    left = (f1["naive"] / f1["A"]).mean()
    best = max(((name, n) for name in names for n in N_IMAGES), key=lambda key: f1[key].mean())
    won, won_by_search = share_won_back(best), share_won_back("grid search")
    claims = {
        f"naive F1 on B is {left:.2f} of that on A (claim: below 0.6)": left < 0.6,
        f"{best[0]} with {best[1]} images wins back {won:.0%} of the drop (claim: 80 %)": won
        >= 0.8,
        f"grid search wins back {won_by_search:.0%} (claim: 80 %)": won_by_search >= 0.8,
    }
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
