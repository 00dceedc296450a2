"""Crop size and number of negatives: what they do to the objects found, and to those invented.

Fields of drawn tissue show objects of about 32 px among distractors that are as dark. Networks that
differ only in the size of their windows, or in the number of windows without an object for each one
with, are trained on boxes in two fields, and see about the same number of windows. Then they find
the objects of two other fields, and what they take for an object in two fields that show none.
Exits with 1 unless windows of two and of three times the width of an object have a better F1, by at
least 0.1, than windows as narrow as an object::

    python examples/benchmarks/crops.py --seeds 0 1 --out crops.json

Takes about ten minutes for each seed on two cores; ``docs/pictures.py`` draws the figures.
"""

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from _side_by_side import print_machine
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    FieldSegmenter,
    GuidedFeatureMap,
    IntensityScaler,
    MicraNetClassifier,
    ThresholdSegmenter,
)
from sklearn_micranet.datasets import make_sparse_field
from sklearn_micranet.images import extract_crops
from sklearn_micranet.metrics import detection_scores

OBJECT = 32  # px
SIZES = (32, 64, 96, 128)  # px, with 5 negatives
NEGATIVES = (1, 5, 16)  # for each positive, with windows of 96 px
N_SEEN = 4000  # windows, in all epochs together


def fields(n_objects, seeds):
    drawing = {"n_distractors": 12, "object_size": OBJECT}
    return [
        make_sparse_field((768, 768), n_objects=n_objects, **drawing, random_state=seed)
        for seed in seeds
    ]


def trained(train, size, negatives, seed):
    """The segmenter of fields, with as many epochs as make up N_SEEN windows."""
    images, boxes = [field.image for field in train], [field.boxes for field in train]
    n_positive = (extract_crops(images, size=size, step=size // 2, boxes=boxes).labels == 1).sum()
    network = MicraNetClassifier(
        n_filters=8,
        max_epochs=max(round(N_SEEN / (n_positive * (1 + negatives))), 1),
        lr=3e-3,
        lr_schedule="cosine",
        negatives_per_positive=negatives,
        augmentation=["flip", "turn"],
        early_stopping=False,
        validation_fraction=0,
        random_state=seed,
    )
    pipe = make_pipeline(
        IntensityScaler(method="dtype"),
        GuidedFeatureMap(network, random_state=seed),
        ThresholdSegmenter(method="fixed", sigma=1, min_size=100),
    )
    segmenter = FieldSegmenter(pipe, size=size, annotation="boxes", random_state=seed)
    return segmenter.fit(images, boxes)


def measured(size, negatives, seed):
    """One row of the table."""
    start = perf_counter()
    segmenter = trained(fields(10, (2 * seed, 2 * seed + 1)), size, negatives, seed)
    test, empty = fields(10, (100, 101)), fields(0, (200, 201))
    found = detection_scores(
        [np.insert(field.points, 0, 0, axis=1) for field in test],
        [points[:, :3] for points in segmenter.detect([field.image for field in test])],
        max_distance=OBJECT / 2,
    )
    invented = [len(points) for points in segmenter.detect([field.image for field in empty])]
    row = {
        "size": size,
        "negatives": negatives,
        "seed": seed,
        "precision": found.precision,
        "recall": found.recall,
        "f1": found.f1,
        "invented": float(np.mean(invented)),
    }
    print(*(f"{k} {v:.3g}" for k, v in row.items()), f"{perf_counter() - start:.0f} s", flush=True)
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, help="JSON file to write the rows to")
    args = parser.parse_args()
    print_machine()
    settings = sorted({(size, 5) for size in SIZES} | {(96, n) for n in NEGATIVES})
    rows = [measured(*setting, seed) for seed in args.seeds for setting in settings]
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    f1 = {s: np.mean([r["f1"] for r in rows if (r["size"], r["negatives"]) == s]) for s in settings}
    sys.exit(not min(f1[64, 5], f1[96, 5]) > f1[32, 5] + 0.1)
