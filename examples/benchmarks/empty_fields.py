"""Objects invented in images of background, by networks that have seen background or have not.

Canvases show stripes or fine grain, blobs that differ from the background by their texture alone.
Three networks are trained on 200 canvases with one of the two each, and on 0, 25 or 100 canvases of
background besides. On 200 new canvases of background every object is a false one; on others
with one class the mean IoU of masks tells that silence is not all that was learned. Otsu's
threshold of the image, of the same smallest size, is the answer of a tool that knows no labels.
Exits with 1 unless some canvases of background leave less than a tenth of the false objects::

    python examples/benchmarks/empty_fields.py --seeds 0 1 --out empty_fields.json

Takes about three minutes for each seed on two cores.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from _side_by_side import print_machine
from scipy.ndimage import gaussian_filter, label
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_objects
from sklearn.pipeline import make_pipeline

from sklearn_micranet import GuidedFeatureMap, MicraNetClassifier, ThresholdSegmenter
from sklearn_micranet.datasets import make_texture_canvases
from sklearn_micranet.metrics import iou_score

N_POSITIVE = 200
N_EMPTY = (0, 25, 100)
MIN_SIZE = 60  # px


def canvases(n_positive, n_empty, seed):
    """Canvases with one class, then canvases without any."""
    drawn = make_texture_canvases(5 * (n_positive + n_empty), random_state=seed)
    n_classes = drawn.labels.sum(axis=1)
    chosen = [np.flatnonzero(n_classes == 1)[:n_positive], np.flatnonzero(n_classes == 0)[:n_empty]]
    assert [len(part) for part in chosen] == [n_positive, n_empty]
    chosen = np.concatenate(chosen)
    return drawn.images[chosen], drawn.labels[chosen], drawn.masks[chosen]


def otsu(image):
    smooth = gaussian_filter(image, 2)
    mask = smooth > threshold_otsu(smooth)
    return label(remove_small_objects(mask, max_size=MIN_SIZE))[0]


def network_objects(n_empty, seed, *tests):
    images, labels, _ = canvases(N_POSITIVE, n_empty, seed)
    network = MicraNetClassifier(
        n_filters=8,
        lr=5e-3,
        lr_schedule="cosine",
        max_epochs=15,
        early_stopping=False,
        validation_fraction=0,
        random_state=seed,
    )
    pipe = make_pipeline(
        GuidedFeatureMap(network, random_state=seed),
        ThresholdSegmenter(method="fixed", min_size=MIN_SIZE),
    ).fit(images, labels)
    return [pipe[-1].predict_instances(pipe[:-1].transform(test)) for test in tests]


def row_of(name, seed, on_empty, on_positive, truth):
    invented = np.array([sum(m.max() for m in maps) for maps in on_empty])
    row = {
        "name": name,
        "seed": seed,
        "invented": float(invented.mean()),
        "share of fields": float((invented > 0).mean()),
    }
    if truth is not None:
        masks = np.asarray(on_positive) > 0
        row["IoU"] = float(np.nanmean(iou_score(truth, masks, zero_division=np.nan)))
    print(row, flush=True)
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, help="JSON file to write the rows to")
    args = parser.parse_args()
    print_machine()
    empty = canvases(0, 200, 1000)[0]
    positive, _, truth = canvases(60, 0, 1001)
    rows = [row_of("Otsu", 0, [[otsu(image)] for image in empty], None, None)]
    for seed in args.seeds:
        for n_empty in N_EMPTY:
            objects = network_objects(n_empty, seed, empty, positive)
            rows.append(row_of(f"{n_empty} of background", seed, *objects, truth))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    invented = [
        np.mean([row["invented"] for row in rows if row["name"].startswith(f"{n} ")])
        for n in N_EMPTY
    ]
    sys.exit(not 0.1 * invented[0] > max(invented[1:]))
